//! Options: which resources, and how many rows.

use super::{lines, store, view};
use crate::support::run;
use fhir_bulk_tests::Database;
use serde_json::json;

#[test]
fn patients_groups_and_since_choose_resources_and_limit_rows() {
    let database = Database::new();
    let mut client = database.connect();
    let observation = |id: &str, patient: &str| {
        json!({"resourceType": "Observation", "id": id, "status": "final", "code": {"text": "t"},
            "subject": {"reference": format!("Patient/{patient}")}})
    };
    store(
        &mut client,
        &database,
        &[
            json!({"resourceType": "Patient", "id": "p1"}),
            json!({"resourceType": "Patient", "id": "p2"}),
            json!({"resourceType": "Patient", "id": "p3"}),
            json!({"resourceType": "Group", "id": "g", "type": "person", "actual": true,
                "member": [{"entity": {"reference": "Patient/p2"}}, {"entity": {"reference": "Patient/p3"}}]}),
            observation("o1", "p1"),
            observation("o2", "p2"),
            observation("o3", "p3"),
            json!({"resourceType": "Organization", "id": "x"}),
        ],
    );
    run(
        &mut client,
        "UPDATE observation SET ts = '2020-01-01Z' WHERE id = 'o1'; UPDATE observation SET ts = '2021-01-01Z' WHERE id = 'o2'",
    );
    let of = |resource: &str| view(resource, &[("id", "id")]);
    for (resource, options, expected) in [
        ("Observation", "{}", &["o1", "o2", "o3"][..]),
        ("Observation", r#"{"patient": ["p1"]}"#, &["o1"]),
        ("Observation", r#"{"patient": ["Patient/p1", "p3"]}"#, &["o1", "o3"]),
        ("Observation", r#"{"group": ["g"]}"#, &["o2", "o3"]),
        ("Observation", r#"{"group": ["Group/g"], "patient": ["p1", "p2"]}"#, &["o2"]),
        ("Patient", r#"{"group": ["g"]}"#, &["p2", "p3"]),
        ("Organization", r#"{"group": ["g"]}"#, &[]),
        ("Observation", r#"{"since": "2021-01-01T00:00:00Z"}"#, &["o2", "o3"]),
        ("Observation", r#"{"limit": 0}"#, &[]),
        ("Organization", r#"{"limit": 10}"#, &["x"]),
        (
            "Observation",
            r#"{"resources": [{"resourceType": "Observation", "id": "given"}, {"resourceType": "Patient", "id": "x"}]}"#,
            &["given"],
        ),
        (
            "Observation",
            r#"{"resources": [{"resourceType": "Observation", "id": "a", "subject": {"reference": "Patient/p1"}},
            {"resourceType": "Observation", "id": "b", "subject": {"reference": "Patient/p2"}}], "patient": ["p2"]}"#,
            &["b"],
        ),
        (
            "Observation",
            r#"{"resources": [{"resourceType": "Observation", "id": "a", "meta": {"lastUpdated": "2020-01-01T00:00:00Z"}},
            {"resourceType": "Observation", "id": "b", "meta": {"lastUpdated": "2022-01-01T00:00:00Z"}}], "since": "2021-01-01T00:00:00Z"}"#,
            &["b"],
        ),
        ("Individual", r#"{"resources": [{"resourceType": "Individual", "id": "i"}]}"#, &["i"]),
    ] {
        let mut found = lines(&mut client, &of(resource), "csv", options);
        found.sort();
        assert_eq!(found, expected, "{resource} {options}");
    }
    // A limit counts rows, also within a resource, and ends the last line.
    for limit in 1..=3 {
        let options = format!("{{\"limit\": {limit}}}");
        assert_eq!(lines(&mut client, &of("Observation"), "csv", &options).len(), limit);
        let array = lines(&mut client, &of("Observation"), "json", &options).concat();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&array).unwrap().as_array().unwrap().len(), limit);
    }
    let members =
        json!({"resource": "Group", "select": [{"forEach": "member", "column": [{"name": "n", "path": "%rowIndex"}]}]});
    assert_eq!(lines(&mut client, &members.to_string(), "csv", r#"{"limit": 1}"#), ["0"]);
}
