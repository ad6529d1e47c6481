//! Provenance that comes with what it is of, because a request asks for associated data.

use crate::job::{done, download, export_sql, finish, ids};
use crate::levels::{loaded, patient, reference};
use crate::support::{assert_error_with_hint, fails, run, value};
use fhir_bulk_tests::{Client, Database};
use serde_json::{Value, json};

fn provenance(id: &str, recorded: &str, targets: &[&str]) -> Value {
    let targets: Vec<Value> = targets.iter().map(|to| reference(to)).collect();
    json!({"resourceType": "Provenance", "id": id, "target": targets, "recorded": recorded})
}

fn observation(id: &str, patient: &str, status: &str) -> Value {
    json!({"resourceType": "Observation", "id": id, "status": status, "subject": reference(&format!("Patient/{patient}"))})
}

fn hospital() -> (Database, Client) {
    loaded(&[
        patient("a"),
        patient("b"),
        json!({"resourceType": "Group", "id": "g", "member": [{"entity": reference("Patient/a")}]}),
        observation("o-a", "a", "final"),
        observation("o-b", "b", "amended"),
        json!({"resourceType": "Organization", "id": "org"}),
        // The offset makes it older than the next one, whose text is smaller.
        provenance("v-a1", "2024-01-02T01:00:00+09:00", &["Observation/o-a"]),
        provenance("v-a2", "2024-01-01T23:00:00Z", &["Observation/o-a", "Patient/a"]),
        provenance("v-both", "2023-01-01T00:00:00Z", &["Observation/o-a", "Observation/o-b"]),
        provenance("v-b", "2022-01-01T00:00:00Z", &["Observation/o-b"]),
        provenance("v-org", "2024-01-01T00:00:00Z", &["Organization/org"]),
        provenance("v-none", "2024-01-01T00:00:00Z", &["Observation/none", "Thing/x", "Observation/o-a/_history/1"]),
        json!({"resourceType": "Provenance", "id": "v-undated", "target": [reference("Organization/org")]}),
        json!({"resourceType": "Provenance", "id": "v-bad", "recorded": "soon", "target": [reference("Organization/org")]}),
    ])
}

fn exported(client: &mut Client, request: &Value) -> String {
    let status = done(client, request);
    assert_eq!(status["error"], json!([]), "{status}");
    ids(client, &status, "Provenance").join(" ")
}

const LATEST: &str = "LatestProvenanceResources";
const RELEVANT: &str = "RelevantProvenanceResources";

#[test]
fn a_resource_brings_its_newest_provenance_or_all_of_it_and_nothing_elses() {
    let (_database, mut client) = hospital();
    let mut with = |mut request: Value, associated: &[&str]| {
        request["includeAssociatedData"] = json!(associated);
        exported(&mut client, &request)
    };
    let system = json!({});
    assert_eq!(with(system.clone(), &[RELEVANT]), "v-a1 v-a2 v-b v-bad v-both v-org v-undated");
    assert_eq!(with(system.clone(), &[LATEST]), "v-a2 v-both v-org");
    // Whatever the order: of several the one counts that exports most.
    assert_eq!(with(system, &[LATEST, RELEVANT, LATEST]), "v-a1 v-a2 v-b v-bad v-both v-org v-undated");
    // Only that of what is exported, also if _type does not name Provenance.
    assert_eq!(with(json!({"_type": "Observation"}), &[RELEVANT]), "v-a1 v-a2 v-b v-both");
    assert_eq!(with(json!({"_type": "Patient"}), &[RELEVANT]), "v-a2");
    assert_eq!(with(json!({"_type": "Group"}), &[RELEVANT]), "");
    assert_eq!(with(json!({"_type": "Observation", "level": "group", "group": "g"}), &[RELEVANT]), "v-a1 v-a2 v-both");
    assert_eq!(with(json!({"_type": "Observation", "level": "group", "group": "g"}), &[LATEST]), "v-a2");
    assert_eq!(with(json!({"level": "patient", "patient": ["b"]}), &[LATEST]), "v-both");
    assert_eq!(with(json!({"_type": "Provenance"}), &[RELEVANT]), "");
    let amended = json!({"_type": "Observation", "_typeFilter": ["Observation?status=amended"]});
    assert_eq!(with(amended, &[RELEVANT]), "v-b v-both");
    // Queries for Provenance count, too: what does not match is not exported, although it is the newest.
    let queried = json!({"_type": "Observation,Provenance", "_typeFilter": ["Provenance?target=Observation/o-b"]});
    assert_eq!(with(queried.clone(), &[RELEVANT]), "v-b v-both");
    assert_eq!(with(queried, &[LATEST]), "v-both");
}

#[test]
fn the_newest_is_told_by_when_it_was_recorded_then_by_when_it_was_stored() {
    let (_database, mut client) = loaded(&[
        patient("a"),
        provenance("old", "2024-01-01", &["Patient/a"]),
        provenance("stored-first", "2024-05-01", &["Patient/a"]),
        provenance("stored-last", "2024-05-01T00:00:00Z", &["Patient/a"]),
    ]);
    run(
        &mut client,
        "UPDATE provenance SET ts = '2030-01-01Z' WHERE id = 'old'; UPDATE provenance SET ts = '2029-01-01Z' WHERE id = 'stored-last'",
    );
    let request = json!({"_type": "Patient", "includeAssociatedData": LATEST});
    assert_eq!(exported(&mut client, &request), "stored-last");
    // Two that nothing tells apart: one of them, and the same one however often.
    run(&mut client, "UPDATE provenance SET ts = '2029-01-01Z' WHERE id = 'stored-first'");
    assert!(exported(&mut client, &request).starts_with("stored-"));
}

#[test]
fn an_increment_has_the_provenance_of_what_was_changed() {
    let (_database, mut client) = hospital();
    run(
        &mut client,
        "UPDATE observation SET ts = '2020-01-01Z' WHERE id = 'o-a'; UPDATE provenance SET ts = '2020-01-01Z' WHERE id = 'v-b'",
    );
    let request = |since: &str| json!({"_type": "Observation", "_since": since, "includeAssociatedData": RELEVANT});
    assert_eq!(exported(&mut client, &request("2021-01-01")), "v-b v-both");
    assert_eq!(exported(&mut client, &request("9000-01-01")), "");
}

#[test]
fn an_unknown_kind_of_associated_data_is_refused_and_a_lenient_request_goes_on_without_it() {
    let (_database, mut client) = hospital();
    for value in [json!("_history"), json!([LATEST, "Everything"]), json!(["latestprovenanceresources"])] {
        let error = fails(&mut client, &export_sql(&json!({"includeAssociatedData": value})));
        let name = value.as_str().or(value[value.as_array().map_or(0, |all| all.len() - 1)].as_str()).unwrap();
        assert_error_with_hint(&error, "22023", &[name, "includeAssociatedData"]);
    }
    for value in [json!([]), json!(""), json!(7), json!([7]), json!({"code": LATEST})] {
        let error = fails(&mut client, &export_sql(&json!({"includeAssociatedData": value})));
        assert_eq!(error.code().code(), "22023", "{error:?}");
        assert!(error.message().contains("includeAssociatedData"), "{error:?}");
    }
    let associated = json!(["_custom", LATEST]);
    let status =
        done(&mut client, &json!({"_type": "Observation", "lenient": true, "includeAssociatedData": associated}));
    assert_eq!(ids(&mut client, &status, "Provenance"), ["v-a2", "v-both"]);
    let line = String::from_utf8(download(&mut client, &status["error"][0]["url"])).unwrap();
    let issue = &serde_json::from_str::<Value>(&line).unwrap()["issue"][0];
    assert_eq!((&issue["severity"], &issue["expression"]), (&json!("warning"), &json!(["includeAssociatedData"])));
    assert!(issue["diagnostics"].as_str().unwrap().contains("\"_custom\""), "{line}");
    // Without anything left, the export has what it has without the parameter.
    let nothing = json!({"_type": "Observation", "lenient": true, "includeAssociatedData": "_custom"});
    let status = done(&mut client, &nothing);
    assert_eq!(ids(&mut client, &status, "Provenance"), [""; 0]);
}

#[test]
fn associated_data_that_the_role_may_not_read_or_does_not_trust_is_left_out_and_it_is_said() {
    let (database, mut client) = hospital();
    let (role, evil) = (database.role("nurse"), database.role("evil"));
    run(
        &mut client,
        &format!(
            "GRANT SELECT ON observation TO {role}; GRANT EXECUTE ON FUNCTION bulk_export, bulk_export_file TO {role}"
        ),
    );
    let mut nurse = database.connect_as(&role);
    let request = json!({"_type": "Observation", "includeAssociatedData": RELEVANT});
    let said = |client: &mut Client, status: &Value, piece: &str| {
        assert_eq!(ids(client, status, "Provenance"), [""; 0]);
        assert_eq!(ids(client, status, "Observation"), ["o-a", "o-b"]);
        let text = String::from_utf8(download(client, &status["error"][0]["url"])).unwrap();
        assert!(text.contains(piece) && text.contains("Provenance is left out"), "{text}");
    };
    let status = done(&mut nurse, &request);
    said(&mut nurse, &status, "may not read");
    // A policy of another role would run with the caller's rights.
    run(
        &mut client,
        &format!(
            "GRANT SELECT ON provenance TO {role}; ALTER TABLE provenance OWNER TO {evil};
             ALTER TABLE provenance ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON provenance USING (true)"
        ),
    );
    let status = done(&mut nurse, &request);
    said(&mut nurse, &status, "run code of another role");
    let mut named = request.clone();
    named["_type"] = json!("Observation,Provenance");
    assert_eq!(exported(&mut nurse, &named), "v-a1 v-a2 v-b v-both");
    run(&mut client, "DROP TABLE provenance");
    assert_eq!(exported(&mut nurse, &request), "");
}

#[test]
fn what_is_hidden_brings_no_provenance_and_deleted_provenance_is_told() {
    let (database, mut client) = hospital();
    let role = database.role("nurse");
    run(
        &mut client,
        &format!(
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}; GRANT EXECUTE ON FUNCTION bulk_export, bulk_export_file TO {role};
             ALTER TABLE observation ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON observation USING (id <> 'o-b');
             UPDATE provenance SET status = 'deleted', ts = now() WHERE id = 'v-a2'"
        ),
    );
    let mut nurse = database.connect_as(&role);
    let request = json!({"_type": "Observation", "_since": "2000-01-01", "includeAssociatedData": RELEVANT});
    let id = value(&mut nurse, &export_sql(&request));
    let status = finish(&mut nurse, &id);
    assert_eq!(ids(&mut nurse, &status, "Provenance"), ["v-a1", "v-both"]);
    let deleted = String::from_utf8(download(&mut nurse, &status["deleted"][0]["url"])).unwrap();
    assert!(deleted.contains("Provenance/v-a2"), "{deleted}");
}
