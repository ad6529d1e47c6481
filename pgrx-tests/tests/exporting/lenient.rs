//! What is wrong with a request: what is refused, and what a lenient request goes on without. The table of errors of HL7's
//! kick-off request, at the level of SQL.

use crate::job::{done, download, export_sql, ids};
use crate::levels::{loaded, patient, reference};
use crate::support::{assert_error, fails, run};
use fhir_bulk_tests::{Client, Database};
use serde_json::{Value, json};

fn hospital() -> (Database, Client) {
    loaded(&[
        patient("a"),
        patient("b"),
        json!({"resourceType": "Observation", "id": "o-a", "status": "final", "subject": reference("Patient/a")}),
        json!({"resourceType": "Organization", "id": "org"}),
        json!({"resourceType": "Group", "id": "g", "member": [{"entity": reference("Patient/a")}]}),
    ])
}

/// The code, the expression and the text of each OperationOutcome of an export.
fn told(client: &mut Client, status: &Value) -> Vec<(String, String, String)> {
    let mut told = Vec::new();
    for file in status["error"].as_array().unwrap() {
        let text = String::from_utf8(download(client, &file["url"])).unwrap();
        for line in text.lines() {
            let outcome: Value = serde_json::from_str(line).unwrap();
            assert_eq!(outcome["resourceType"], "OperationOutcome");
            let issue = &outcome["issue"][0];
            assert_eq!(issue["severity"], "warning", "{line}");
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            told.push((text(&issue["code"]), text(&issue["expression"][0]), text(&issue["diagnostics"])));
        }
    }
    told
}

#[test]
fn what_is_not_supported_or_invalid_is_refused_and_a_lenient_request_goes_on_and_says_so() {
    let (_database, mut client) = hospital();
    let all = "a b g o-a org";
    for (request, state, code, parameter, piece, exported) in [
        // Unknown parameters.
        (json!({"_nothing": "x"}), "22023", "not-supported", "_nothing", "_nothing", all),
        (json!({"_nothing": {"valueQuantity": 1}}), "22023", "not-supported", "_nothing", "_nothing", all),
        // Values of a wrong type.
        (json!({"_type": 5}), "22023", "invalid", "_type", "_type", all),
        (json!({"_type": []}), "22023", "invalid", "_type", "no type", all),
        (json!({"_type": [{}]}), "22023", "invalid", "_type", "_type", all),
        (json!({"_since": "yesterday"}), "22007", "invalid", "_since", "yesterday", all),
        (json!({"_since": ["2024-01-01"]}), "22023", "invalid", "_since", "_since", all),
        (json!({"_until": true}), "22023", "invalid", "_until", "_until", all),
        (json!({"_elements": 1}), "22023", "invalid", "_elements", "_elements", all),
        (json!({"_outputFormat": 1}), "22023", "invalid", "_outputFormat", "_outputFormat", all),
        (json!({"_maximumFileSize": "1"}), "22023", "invalid", "_maximumFileSize", "_maximumFileSize", all),
        (json!({"_minimumFileSize": 0}), "22023", "invalid", "_minimumFileSize", "_minimumFileSize", all),
        (json!({"fileSizes": "yes"}), "22023", "invalid", "fileSizes", "fileSizes", all),
        (json!({"_typeFilter": 1}), "22023", "invalid", "_typeFilter", "_typeFilter", all),
        (
            json!({"includeAssociatedData": {}}),
            "22023",
            "invalid",
            "includeAssociatedData",
            "includeAssociatedData",
            all,
        ),
        (json!({"includeAssociatedData": "_x"}), "22023", "invalid", "includeAssociatedData", "_x", all),
        // Types that are unknown. Of others, the rest is exported; without a rest, nothing is, instead of everything.
        (json!({"_type": "Patient,Nobody"}), "42P01", "not-found", "_type", "Nobody", "a b"),
        (json!({"_type": "Nobody"}), "42P01", "not-found", "_type", "Nobody", ""),
        (json!({"_type": "Patient;DROP,Group"}), "42P01", "not-found", "_type", "Patient;DROP", "g"),
        // Queries.
        (json!({"_typeFilter": ["Patient"]}), "22023", "invalid", "_typeFilter", "Patient", all),
        (json!({"_typeFilter": ["Patient?_count=1"]}), "0A000", "not-supported", "_typeFilter", "_count", all),
        (json!({"_typeFilter": ["Patient?x=1"]}), "0A000", "not-supported", "_typeFilter", "x", all),
        (
            json!({"_type": "Patient", "_typeFilter": ["Group?type=person"]}),
            "22023",
            "invalid",
            "_typeFilter",
            "Group",
            "a b",
        ),
        // Types that belong to no patient.
        (json!({"level": "patient", "_type": "Organization"}), "0A000", "not-supported", "_type", "Organization", ""),
        (
            json!({"level": "group", "group": "g", "_type": "Organization"}),
            "0A000",
            "not-supported",
            "_type",
            "Organization",
            "",
        ),
    ] {
        let error = fails(&mut client, &export_sql(&request));
        assert_error(&error, state, &[piece]);
        let mut lenient = request.clone();
        lenient["lenient"] = true.into();
        let status = done(&mut client, &lenient);
        let types = ["Patient", "Group", "Observation", "Organization"];
        let found: Vec<String> = types.iter().flat_map(|name| ids(&mut client, &status, name)).collect();
        assert_eq!(found.join(" "), exported, "{request}");
        let told = told(&mut client, &status);
        let [(told_code, told_parameter, text)] = &told[..] else { panic!("{request}: {told:?}") };
        assert_eq!((told_code.as_str(), told_parameter.as_str()), (code, parameter), "{request}");
        assert!(text.contains(piece), "{text}");
    }
    // Each of several is told.
    let request =
        json!({"lenient": true, "_type": "Patient,No,Never,Organization", "level": "patient", "x": 1, "_since": 7});
    let status = done(&mut client, &request);
    let parameters: Vec<String> = told(&mut client, &status).into_iter().map(|(_, parameter, _)| parameter).collect();
    assert_eq!(parameters, ["_since", "x", "_type", "_type", "_type"]);
}

#[test]
fn leniency_does_not_reach_whose_resources_they_are_nor_rights() {
    let (database, mut client) = hospital();
    let role = database.role("nurse");
    run(&mut client, &format!("GRANT SELECT ON patient TO {role}; GRANT EXECUTE ON FUNCTION bulk_export TO {role}"));
    let group = |more: Value| {
        let mut request = json!({"level": "group", "group": "g"});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    for (request, state, piece) in [
        (json!({"level": "group", "group": "none"}), "P0002", "none"),
        (json!({"level": "planet"}), "22023", "planet"),
        (json!({"level": 1}), "22023", "level"),
        (json!({"level": "group", "group": ["g"]}), "22023", "group"),
        (json!({"level": "patient", "patient": ["nobody"]}), "22023", "nobody"),
        (group(json!({"patient": ["b"]})), "22023", "member"),
        (group(json!({"patient": [7]})), "22023", "patient"),
        (json!({"patient": ["a"]}), "22023", "patient"),
        (json!({"_outputFormat": "application/vnd.apache.parquet"}), "22023", "parquet"),
        (json!({"contentEncoding": "br"}), "22023", "br"),
        (json!({"lenient": "yes"}), "22023", "lenient"),
        (json!({"resourceTypes": ["Patient"]}), "22023", "lenient"),
    ] {
        let mut lenient = request;
        if lenient["lenient"].is_null() {
            lenient["lenient"] = true.into();
        }
        assert_error(&fails(&mut client, &export_sql(&lenient)), state, &[piece]);
    }
    run(&mut client, "UPDATE \"group\" SET status = 'deleted'");
    assert_error(&fails(&mut client, &export_sql(&group(json!({"lenient": true})))), "P0002", &["\"g\""]);
    let mut nurse = database.connect_as(&role);
    let denied = json!({"_type": "Patient,Observation", "lenient": true});
    assert_error(&fails(&mut nurse, &export_sql(&denied)), "42501", &["observation"]);
}

#[test]
fn a_lenient_request_cannot_fill_the_queue_with_what_it_asks_for_in_vain() {
    let (_database, mut client) = hospital();
    let unknown: serde_json::Map<String, Value> = (0..101).map(|n| (format!("x{n}"), 1.into())).collect();
    let mut request = Value::Object(unknown);
    request["lenient"] = true.into();
    assert_error(&fails(&mut client, &export_sql(&request)), "54000", &["101"]);
    let types: Vec<String> = (0..101).map(|n| format!("X{n}")).collect();
    let request = json!({"_type": types, "lenient": true});
    assert_error(&fails(&mut client, &export_sql(&request)), "54000", &["101"]);
    let long = "x".repeat(100_000);
    let status = done(&mut client, &json!({"lenient": true, &long: 1, "_type": ["Patient", &long]}));
    let told = told(&mut client, &status);
    assert!(told.len() == 2 && told.iter().all(|(_, parameter, text)| parameter.len() + text.len() < 800), "{told:?}");
}
