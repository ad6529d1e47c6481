//! Resources that come with patients because others refer to them.

use crate::job::{done, download, ids};
use crate::levels::{loaded, patient, reference};
use crate::support::run;
use fhir_bulk_tests::{Client, Database};
use serde_json::{Value, json};

const TYPES: [&str; 6] = ["Encounter", "Location", "Medication", "Organization", "Patient", "Practitioner"];

/// A patient in a Group and one beside it, each with an encounter; the people and places of the encounters, some of which
/// refer to more, and some to whom nobody refers.
fn hospital() -> (Database, Client) {
    let encounter = |id: &str, patient: &str, doctor: &str, place: &str| {
        json!({"resourceType": "Encounter", "id": id, "status": "finished", "class": {"code": "AMB"},
            "subject": reference(&format!("Patient/{patient}")),
            "participant": [{"individual": reference(doctor)}],
            "location": [{"location": reference(place)}],
            "contained": [{"resourceType": "Practitioner", "id": "inside", "extension": [{"url": "urn:x", "valueReference": reference("Practitioner/contained")}]}],
            "extension": [{"url": "urn:y", "valueReference": reference("Medication/m-extension")}]})
    };
    loaded(&[
        patient("a"),
        patient("b"),
        json!({"resourceType": "Group", "id": "g", "member": [{"entity": reference("Patient/a")}]}),
        encounter("e-a", "a", "Practitioner/d-a", "Location/l-a"),
        encounter("e-b", "b", "Practitioner/d-b", "Location/l-b"),
        encounter("e-v", "a", "Practitioner/versioned/_history/1", "Location/l-a"),
        json!({"resourceType": "Location", "id": "l-a", "managingOrganization": reference("Organization/o-a")}),
        json!({"resourceType": "Location", "id": "l-b"}),
        json!({"resourceType": "Organization", "id": "o-a", "partOf": reference("Organization/o-whole")}),
        json!({"resourceType": "Organization", "id": "o-whole"}),
        json!({"resourceType": "Organization", "id": "o-other"}),
        json!({"resourceType": "Practitioner", "id": "d-a"}),
        json!({"resourceType": "Practitioner", "id": "d-b"}),
        json!({"resourceType": "Practitioner", "id": "inside"}),
        json!({"resourceType": "Practitioner", "id": "contained"}),
        json!({"resourceType": "Practitioner", "id": "versioned"}),
        json!({"resourceType": "Medication", "id": "m-extension"}),
        json!({"resourceType": "Medication", "id": "m-other"}),
    ])
}

/// What an export has of the types above, and what it says in `error`.
fn exported(client: &mut Client, request: &Value) -> (String, String) {
    let status = done(client, request);
    let found: Vec<String> = TYPES.iter().flat_map(|name| ids(client, &status, name)).collect();
    let error = status["error"].as_array().unwrap().iter();
    let notes: Vec<Vec<u8>> = error.map(|file| download(client, &file["url"])).collect();
    (found.join(" "), String::from_utf8(notes.concat()).unwrap())
}

#[test]
fn what_is_referred_to_comes_once_and_so_does_what_that_refers_to() {
    let (_database, mut client) = hospital();
    let group = json!({"level": "group", "group": "g"});
    assert_eq!(exported(&mut client, &group), ("e-a e-v a".to_owned(), String::new()));
    run(
        &mut client,
        "SET fhir_bulk.export_extras = 'practitioner, Location,Organization,Medication,Nothing,Encounter'",
    );
    let all = "e-a e-v l-a m-extension o-a o-whole a d-a".to_owned();
    assert_eq!(exported(&mut client, &group), (all, String::new()));
    let both = json!({"level": "patient"});
    let all = "e-a e-b e-v l-a l-b m-extension o-a o-whole a b d-a d-b".to_owned();
    assert_eq!(exported(&mut client, &both), (all, String::new()));
    // A request that names types gets of them what it names.
    let some = json!({"level": "group", "group": "g", "_type": "Encounter,Location,Organization"});
    assert_eq!(exported(&mut client, &some), ("e-a e-v l-a o-a o-whole".to_owned(), String::new()));
    run(&mut client, "SET fhir_bulk.export_extras = 'Location'");
    let (found, note) = exported(&mut client, &some);
    assert_eq!(found, "e-a e-v l-a");
    assert!(note.contains("left out: Organization."), "{note}");
    // At system level everything comes once anyway.
    let system = json!({"_type": "Location,Organization"});
    assert_eq!(exported(&mut client, &system).0, "l-a l-b o-a o-other o-whole");
}

#[test]
fn extras_are_those_that_the_role_may_see() {
    let (database, mut client) = hospital();
    let role = database.role("nurse");
    run(
        &mut client,
        &format!(
            "GRANT SELECT ON patient, \"group\", encounter, location, practitioner TO {role};
             GRANT EXECUTE ON FUNCTION bulk_export, bulk_export_file TO {role};
             ALTER TABLE location ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON location USING (id <> 'l-a');
             UPDATE practitioner SET status = 'deleted' WHERE id = 'd-b'"
        ),
    );
    let mut nurse = database.connect_as(&role);
    run(&mut nurse, "SET fhir_bulk.export_extras = 'Practitioner,Location,Organization'");
    let status = done(&mut nurse, &json!({"level": "patient"}));
    let found: Vec<String> = TYPES.iter().flat_map(|name| ids(&mut nurse, &status, name)).collect();
    assert_eq!(found.join(" "), "e-a e-b e-v l-b a b d-a");
}

#[test]
fn who_is_named_by_a_provenance_that_is_written_comes_too_and_who_is_named_by_another_does_not() {
    let provenance = |id: &str, recorded: &str, target: &str, who: &str| {
        json!({"resourceType": "Provenance", "id": id, "recorded": recorded, "target": [reference(target)],
            "agent": [{"who": reference(&format!("Practitioner/{who}")), "onBehalfOf": reference(&format!("Organization/{who}"))}]})
    };
    let mut lines = vec![
        patient("a"),
        patient("b"),
        json!({"resourceType": "Group", "id": "g", "member": [{"entity": reference("Patient/a")}]}),
        json!({"resourceType": "Observation", "id": "o-a", "status": "final", "subject": reference("Patient/a")}),
        provenance("v-patient", "2024-01-01", "Patient/a", "one"),
        provenance("v-old", "2023-01-01", "Observation/o-a", "two"),
        provenance("v-new", "2024-01-01", "Observation/o-a", "three"),
        provenance("v-other", "2024-01-01", "Patient/b", "four"),
    ];
    for id in ["one", "two", "three", "four"] {
        lines.push(json!({"resourceType": "Practitioner", "id": format!("{id}"), "extension": [
            {"url": "urn:x", "valueReference": reference(&format!("Location/{id}"))}]}));
        lines.push(json!({"resourceType": "Organization", "id": id}));
        lines.push(json!({"resourceType": "Location", "id": id}));
    }
    let (_database, mut client) = loaded(&lines);
    run(&mut client, "SET fhir_bulk.export_extras = 'Practitioner,Organization'");
    let group = json!({"level": "group", "group": "g"});
    let all = "one three two a one three two".to_owned();
    assert_eq!(exported(&mut client, &group), (all, String::new()));
    let mut latest = group.clone();
    latest["includeAssociatedData"] = "LatestProvenanceResources".into();
    assert_eq!(exported(&mut client, &latest).0, "one three a one three");
    latest["_typeFilter"] = json!(["Provenance?agent=Practitioner/three"]);
    assert_eq!(exported(&mut client, &latest).0, "three a three");
    // With _type, only types that it names.
    let some = json!({"level": "group", "group": "g", "_type": "Observation,Organization",
        "includeAssociatedData": "RelevantProvenanceResources"});
    assert_eq!(exported(&mut client, &some).0, "three two");
}
