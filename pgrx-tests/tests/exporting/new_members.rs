//! Increments of Groups, and who became a member in between (`fhir_bulk.group_since_new_members`).

use crate::job::{done, export_sql, ids};
use crate::levels::{loaded, patient, reference};
use crate::support::{fails, run};
use fhir_bulk_tests::{Client, Database};
use serde_json::{Value, json};

const TYPES: [&str; 4] = ["Observation", "Patient", "Practitioner", "Provenance"];

/// Patients, each with an observation. Nothing was changed after 2020 but `o-late` and what the tests change.
fn hospital(groups: &[Value]) -> (Database, Client) {
    let mut lines = Vec::new();
    for id in ["a", "b", "c", "d"] {
        lines.push(patient(id));
        lines.push(json!({"resourceType": "Observation", "id": format!("o-{id}"), "status": "final",
            "subject": reference(&format!("Patient/{id}")), "performer": [reference(&format!("Practitioner/{id}"))]}));
        lines.push(json!({"resourceType": "Practitioner", "id": id}));
        lines.push(json!({"resourceType": "Provenance", "id": format!("v-{id}"), "recorded": "2020-01-01",
            "target": [reference(&format!("Observation/o-{id}"))]}));
    }
    lines.push(
        json!({"resourceType": "Observation", "id": "o-late", "status": "final", "subject": reference("Patient/a"),
        "performer": [reference("Patient/b")]}),
    );
    lines.extend_from_slice(groups);
    let (database, mut client) = loaded(&lines);
    for table in ["patient", "observation", "practitioner", "provenance"] {
        run(&mut client, &format!("UPDATE {table} SET ts = '2020-01-01Z'"));
    }
    run(&mut client, "UPDATE observation SET ts = '2024-06-01Z' WHERE id = 'o-late'");
    (database, client)
}

fn group(id: &str, members: &[(&str, Option<&str>)]) -> Value {
    let member = |(to, start): &(&str, Option<&str>)| match start {
        Some(start) => json!({"entity": reference(to), "period": {"start": start}}),
        None => json!({"entity": reference(to)}),
    };
    json!({"resourceType": "Group", "id": id, "type": "person", "actual": true,
        "member": members.iter().map(member).collect::<Vec<_>>()})
}

fn exported(client: &mut Client, request: &Value) -> String {
    let status = done(client, request);
    assert_eq!(status["error"], json!([]), "{status}");
    TYPES.iter().flat_map(|name| ids(client, &status, name)).collect::<Vec<_>>().join(" ")
}

fn since(group: &str, since: &str) -> Value {
    json!({"level": "group", "group": group, "_since": since, "_type": "Observation,Patient,Provenance"})
}

#[test]
fn who_became_a_member_since_then_comes_with_everything_if_the_setting_says_so() {
    let members = [
        ("Patient/a", None),
        ("Patient/b", Some("2024-05-02T00:00:00Z")),
        ("Patient/c", Some("2024-04-30")),
        // It covers the day, so it may be after the instant.
        ("Patient/d", Some("2024-05-01")),
    ];
    let (_database, mut client) = hospital(&[group("g", &members)]);
    let request = since("g", "2024-05-01T12:00:00Z");
    assert_eq!(exported(&mut client, &request), "o-late");
    run(&mut client, "SET fhir_bulk.group_since_new_members = on");
    // What was changed comes once, although it belongs to a new member, too.
    assert_eq!(exported(&mut client, &request), "o-b o-d o-late b d v-b v-d");
    let mut narrowed = request.clone();
    narrowed["patient"] = json!(["a", "b"]);
    assert_eq!(exported(&mut client, &narrowed), "o-b o-late b v-b");
    narrowed["patient"] = json!(["a", "c"]);
    assert_eq!(exported(&mut client, &narrowed), "o-late");
    let mut filtered = request.clone();
    filtered["_typeFilter"] = json!(["Observation?subject=Patient/d"]);
    assert_eq!(exported(&mut client, &filtered), "o-d b d v-b v-d");
    let mut until = request.clone();
    until["_until"] = "2024-05-20".into();
    assert_eq!(exported(&mut client, &until), "o-b o-d b d v-b v-d");
    let mut associated = request.clone();
    associated["_type"] = "Observation".into();
    associated["includeAssociatedData"] = "RelevantProvenanceResources".into();
    assert_eq!(exported(&mut client, &associated), "o-b o-d o-late v-b v-d");
    run(&mut client, "SET fhir_bulk.export_extras = 'Practitioner'");
    let mut extras = request.clone();
    extras["_type"] = "Observation,Practitioner".into();
    assert_eq!(exported(&mut client, &extras), "o-b o-d o-late b d");
    // All of them were members before.
    assert_eq!(exported(&mut client, &since("g", "2024-05-03")), "o-late");
    // Without a time, and at other levels, the setting changes nothing.
    let whole = json!({"level": "group", "group": "g", "_type": "Observation"});
    assert_eq!(exported(&mut client, &whole), "o-a o-b o-c o-d o-late");
    let patients = json!({"level": "patient", "_since": "2024-05-01T12:00:00Z", "_type": "Observation,Patient"});
    assert_eq!(exported(&mut client, &patients), "o-late");
}

#[test]
fn a_row_whose_time_nobody_knows_comes_with_a_new_member() {
    let (_database, mut client) = hospital(&[group("g", &[("Patient/b", Some("2024-05-02"))])]);
    run(&mut client, "UPDATE observation SET ts = NULL WHERE id = 'o-b'; SET fhir_bulk.group_since_new_members = on");
    assert_eq!(exported(&mut client, &since("g", "2024-05-01")), "o-b o-late b v-b");
}

#[test]
fn a_member_of_an_inner_group_is_new_if_every_way_to_it_is() {
    let (_database, mut client) = hospital(&[
        group("outer", &[("Group/joined", Some("2024-05-02")), ("Group/old", None), ("Group/outer", None)]),
        group("joined", &[("Patient/b", None), ("Patient/c", None), ("Group/deep", None)]),
        group("deep", &[("Patient/d", Some("2001"))]),
        group("old", &[("Patient/c", None), ("Patient/a", Some("2024-05-03"))]),
    ]);
    run(&mut client, "SET fhir_bulk.group_since_new_members = on");
    // c was a member by the old Group already.
    assert_eq!(exported(&mut client, &since("outer", "2024-05-01")), "o-a o-b o-d o-late a b d v-a v-b v-d");
    assert_eq!(exported(&mut client, &since("old", "2024-05-01")), "o-a o-late a v-a");
}

#[test]
fn the_setting_is_a_switch() {
    let (_database, mut client) = hospital(&[]);
    assert_eq!(fails(&mut client, "SET fhir_bulk.group_since_new_members = 'perhaps'").code().code(), "22023");
    assert_eq!(fails(&mut client, &export_sql(&since("none", "2024-05-01"))).code().code(), "P0002");
}
