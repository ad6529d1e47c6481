//! Exports that are narrowed to some types, whatever their role may read.

use crate::job::{done, export_sql, ids};
use crate::levels::{loaded, patient, reference};
use crate::support::{assert_error, fails, run};
use serde_json::json;

#[test]
fn an_export_has_allowed_types_only_and_refuses_to_be_asked_for_others() {
    let doctor = json!([reference("Practitioner/d")]);
    let (_database, mut client) = loaded(&[
        json!({"resourceType": "Patient", "id": "a", "generalPractitioner": doctor, "managingOrganization": reference("Organization/o")}),
        patient("b"),
        json!({"resourceType": "Observation", "id": "o-a", "status": "final", "subject": reference("Patient/a")}),
        json!({"resourceType": "Provenance", "id": "p", "target": [reference("Patient/a")]}),
        json!({"resourceType": "Practitioner", "id": "d"}),
        json!({"resourceType": "Organization", "id": "o"}),
        json!({"resourceType": "Group", "id": "g", "member": [{"entity": reference("Patient/a")}]}),
    ]);
    run(&mut client, "SET fhir_bulk.export_extras = 'Practitioner, Organization'");
    let types = ["Group", "Observation", "Organization", "Patient", "Practitioner", "Provenance"];
    let mut exported = |mut request: serde_json::Value, allowed: &[&str]| {
        request["allowedTypes"] = json!(allowed);
        let status = done(&mut client, &request);
        types.iter().flat_map(|name| ids(&mut client, &status, name)).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(exported(json!({}), &types), "g o-a o a b d p");
    assert_eq!(exported(json!({}), &["patient", "OBSERVATION", "Nothing"]), "o-a a b");
    assert_eq!(exported(json!({}), &[]), "");
    assert_eq!(exported(json!({"_type": "Observation"}), &["Observation", "Patient"]), "o-a");
    let group = json!({"level": "group", "group": "g"});
    assert_eq!(exported(group.clone(), &types), "g o-a o a d p");
    assert_eq!(exported(group.clone(), &["Patient", "Practitioner"]), "a d");
    assert_eq!(exported(group, &["Provenance"]), "p");
    let associated = json!({"_type": "Patient", "includeAssociatedData": "RelevantProvenanceResources"});
    assert_eq!(exported(associated.clone(), &["Patient", "Provenance"]), "a b p");
    assert_eq!(exported(associated, &["Patient"]), "a b");
    let by_patient =
        json!({"_type": "Patient,Observation", "organizeOutputBy": "Patient", "allowedTypes": ["Patient"]});
    let mut refused = |request: serde_json::Value, state: &str, names: &str| {
        assert_error(&fails(&mut client, &export_sql(&request)), state, &[names]);
    };
    for (member, value, named) in [
        ("_type", json!("Patient,Observation"), "\"Observation\""),
        ("_type", json!("Nothing"), "\"Nothing\""),
        ("_typeFilter", json!(["Observation?status=final"]), "\"Observation\""),
    ] {
        for lenient in [false, true] {
            let mut request = json!({"allowedTypes": ["Patient"], "lenient": lenient});
            request[member] = value.clone();
            refused(request, "42501", named);
        }
    }
    refused(by_patient, "42501", "\"Observation\"");
    refused(json!({"allowedTypes": "Patient"}), "22023", "allowedTypes");
    refused(json!({"allowedTypes": "Patient", "lenient": true}), "22023", "allowedTypes");
    refused(json!({"allowedTypes": [1]}), "22023", "allowedTypes");
    refused(json!({"resourceTypes": ["Patient"], "allowedTypes": ["Patient"]}), "22023", "allowedTypes");
}
