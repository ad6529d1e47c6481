//! What users of other servers complain about in exports of patients and Groups: that it does not happen here.

use crate::job::{done, export_sql, ids};
use crate::levels::{loaded, patient, reference};
use crate::support::{assert_error_with_hint, fails, run};
use fhir_bulk_tests::Client;
use serde_json::{Value, json};

const TYPES: [&str; 9] = [
    "AllergyIntolerance",
    "Condition",
    "Coverage",
    "Encounter",
    "Group",
    "Location",
    "Observation",
    "Patient",
    "Procedure",
];

fn exported(client: &mut Client, request: &Value) -> String {
    let status = done(client, request);
    assert_eq!(status["error"], json!([]), "{status}");
    TYPES.iter().flat_map(|name| ids(client, &status, name)).collect::<Vec<_>>().join(" ")
}

fn group(id: &str, members: &[&str]) -> Value {
    let members: Vec<Value> = members.iter().map(|to| json!({"entity": reference(to)})).collect();
    json!({"resourceType": "Group", "id": id, "type": "person", "actual": true, "member": members})
}

fn observation(id: &str, patient: &str, status: &str) -> Value {
    json!({"resourceType": "Observation", "id": id, "status": status, "subject": reference(&format!("Patient/{patient}"))})
}

fn of_group(more: Value) -> Value {
    let mut request = json!({"level": "group", "group": "g"});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

#[test]
fn types_and_filters_count_at_every_level() {
    let (_database, mut client) = loaded(&[
        patient("a"),
        patient("b"),
        group("g", &["Patient/a"]),
        observation("final-a", "a", "final"),
        observation("draft-a", "a", "preliminary"),
        observation("final-b", "b", "final"),
        json!({"resourceType": "Condition", "id": "c-a", "subject": reference("Patient/a")}),
    ]);
    let filtered = json!({"_type": "Observation", "_typeFilter": ["Observation?status=final"]});
    assert_eq!(exported(&mut client, &of_group(filtered.clone())), "final-a");
    let mut patients = filtered;
    patients["level"] = "patient".into();
    assert_eq!(exported(&mut client, &patients), "final-a final-b");
    assert_eq!(exported(&mut client, &of_group(json!({"_type": "Condition"}))), "c-a");
    let other_type = of_group(json!({"_type": "Observation,Condition", "_typeFilter": ["Observation?status=final"]}));
    assert_eq!(exported(&mut client, &other_type), "c-a final-a");
}

#[test]
fn an_increment_of_a_group_has_what_is_new_of_patients_who_have_not_changed() {
    let (_database, mut client) = loaded(&[
        patient("a"),
        group("g", &["Patient/a"]),
        observation("old", "a", "final"),
        observation("new", "a", "final"),
    ]);
    run(
        &mut client,
        "UPDATE patient SET ts = '2020-01-01Z'; UPDATE \"group\" SET ts = '2020-01-01Z';
         UPDATE observation SET ts = '2020-01-01Z' WHERE id = 'old'; UPDATE observation SET ts = '2024-01-01Z' WHERE id = 'new'",
    );
    assert_eq!(exported(&mut client, &of_group(json!({"_since": "2023-01-01"}))), "new");
}

#[test]
fn places_that_members_resources_name_come_with_a_group() {
    let encounter = json!({"resourceType": "Encounter", "id": "e", "status": "finished", "class": {"code": "AMB"},
        "subject": reference("Patient/a"), "location": [{"location": reference("Location/l")}]});
    let place = |id: &str| json!({"resourceType": "Location", "id": id});
    let (_database, mut client) =
        loaded(&[patient("a"), group("g", &["Patient/a"]), encounter, place("l"), place("elsewhere")]);
    run(&mut client, "SET fhir_bulk.export_extras = 'Location'");
    assert_eq!(exported(&mut client, &of_group(json!({"_type": "Encounter,Location"}))), "e l");
}

#[test]
fn a_group_that_is_not_there_is_an_error_and_no_empty_export() {
    let (_database, mut client) = loaded(&[patient("a"), group("g", &["Patient/a"])]);
    for request in [json!({"level": "group", "group": "none"}), json!({"level": "group", "group": "Group/g"})] {
        let name = request["group"].as_str().unwrap();
        assert_error_with_hint(&fails(&mut client, &export_sql(&request)), "P0002", &[name]);
    }
    run(&mut client, "DROP TABLE \"group\"");
    assert_error_with_hint(&fails(&mut client, &export_sql(&of_group(json!({})))), "P0002", &["\"g\""]);
}

#[test]
fn what_belongs_to_a_patient_by_another_element_than_subject_and_patient_comes_too() {
    let a = || reference("Patient/a");
    let (_database, mut client) = loaded(&[
        patient("a"),
        group("g", &["Patient/a"]),
        json!({"resourceType": "AllergyIntolerance", "id": "recorder", "recorder": a()}),
        json!({"resourceType": "AllergyIntolerance", "id": "nobody", "recorder": reference("Practitioner/a")}),
        json!({"resourceType": "Observation", "id": "performer", "status": "final", "performer": [a()]}),
        json!({"resourceType": "Coverage", "id": "payor", "status": "active", "payor": [a()]}),
        json!({"resourceType": "Procedure", "id": "actor", "status": "completed", "performer": [{"actor": a()}]}),
    ]);
    assert_eq!(exported(&mut client, &of_group(json!({}))), "recorder payor g performer a actor");
}

#[test]
fn members_of_inner_groups_come_with_the_outer_one() {
    let (_database, mut client) = loaded(&[
        patient("a"),
        patient("b"),
        group("g", &["Group/inner"]),
        group("inner", &["Patient/a", "Group/innermost"]),
        group("innermost", &["Patient/b"]),
    ]);
    assert_eq!(exported(&mut client, &of_group(json!({"_type": "Patient"}))), "a b");
}

#[test]
fn patients_themselves_come_with_an_export_of_patients() {
    let (_database, mut client) = loaded(&[patient("a"), patient("alone"), observation("o", "a", "final")]);
    assert_eq!(exported(&mut client, &json!({"level": "patient"})), "o a alone");
    assert_eq!(exported(&mut client, &json!({"level": "patient", "_type": "Patient"})), "a alone");
}
