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
