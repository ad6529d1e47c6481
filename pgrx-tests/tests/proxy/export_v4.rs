//! `$export-v4`: exports in the shape of version 4's ballot.

use fhir_bulk_tests::proxy::{Request, Response};
use serde_json::{Value, json};

use crate::exports::{download, finished, ids, path};
use crate::levels::hospital;
use crate::support::{Service, outcome};

const PATHS: [&str; 3] = ["/fhir/$export-v4", "/fhir/Patient/$export-v4", "/fhir/Group/one/$export-v4"];

fn post(service: &Service, path: &str, prefer: &str, parameters: &Value) -> Response {
    let body = json!({"resourceType": "Parameters", "parameter": parameters}).to_string();
    service.send(Request::post(path, "application/fhir+json", body).header("Prefer", prefer))
}

fn manifest(service: &Service, started: &Response) -> Value {
    assert_eq!(started.status, 202, "{}", started.text());
    let done = finished(service, path(started.header("content-location").unwrap()));
    assert_eq!((done.status, done.header("content-type")), (200, Some("application/json")), "{}", done.text());
    done.json()
}

fn string(name: &str, value: &str) -> Value {
    json!({"name": name, "valueString": value})
}

#[test]
fn the_same_job_is_told_in_the_shape_of_version_4() {
    let service = hospital();
    let parameters = json!([
        string("_type", "Patient"),
        string("_type", "Observation"),
        {"name": "_since", "valueInstant": "2000-01-01T00:00:00Z"},
        {"name": "patient", "valueReference": {"reference": "Patient/b"}},
        {"name": "frobnicate", "valueBoolean": true},
    ]);
    service.connect().batch_execute("UPDATE observation SET status = 'deleted' WHERE id = 'o-b'").unwrap();
    let started = post(&service, PATHS[2], "respond-async, handling=lenient", &parameters);
    let status = path(started.header("content-location").unwrap()).to_owned();
    let found = manifest(&service, &started);
    let members: Vec<&str> = found.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected =
        ["manifestType", "transactionTime", "requiresAccessToken", "outputFormat", "output", "deleted", "outcome"];
    expected.sort_unstable();
    assert_eq!(members, expected);
    assert_eq!(found["manifestType"], "http://hl7.org/fhir/uv/bulkdata/StructureDefinition/BulkDataManifest");
    assert_eq!(
        (&found["outputFormat"], &found["requiresAccessToken"]),
        (&json!("application/fhir+ndjson"), &json!(false))
    );
    assert_eq!(ids(&service, &found, "Patient"), ["b"]);
    for (list, has_type) in [("output", true), ("deleted", false), ("outcome", false)] {
        let [file] = &found[list].as_array().unwrap()[..] else { panic!("{found}") };
        assert_eq!(file["fileSize"], download(&service, &file["url"]).body.len(), "{file}");
        assert_eq!((&file["count"], file["type"].is_null()), (&json!(1), !has_type), "{file}");
        let severity = if list == "outcome" { json!([{"code": "warning", "count": 1}]) } else { Value::Null };
        assert_eq!(file["countSeverity"], severity, "{file}");
    }
    // The address of the status says the shape: without that, it is the one of STU3.
    let (bare, _) = status.split_once('?').unwrap();
    let stu3 = finished(&service, bare).json();
    assert!(stu3["request"].as_str().unwrap().ends_with(PATHS[2]), "{stu3}");
    assert_eq!((&stu3["output"][0]["fileSize"], stu3["error"].as_array().unwrap().len()), (&Value::Null, 1), "{stu3}");
    outcome(&service.send(Request::get(&format!("{bare}?manifest=v9"))), 400);
    assert_eq!(service.send(Request::new("DELETE", &status)).status, 202);
    outcome(&finished(&service, &status), 404);
}

#[test]
fn a_status_apart_from_the_polls_goes_with_the_shape() {
    let service = hospital();
    let prefer = "respond-async, separate-export-status";
    let started = post(&service, PATHS[1], prefer, &json!([]));
    assert_eq!((started.status, started.header("preference-applied")), (202, Some(prefer)));
    let location = path(started.header("content-location").unwrap()).to_owned();
    assert!(location.ends_with("?manifest=v4&separate-export-status=true"), "{location}");
    let mut last = Value::Null;
    fhir_bulk_tests::wait_for("the export to end", || {
        let response = service.send(Request::get(&location));
        let is_over = response.header("x-export-status") == Some("200 OK");
        last = if is_over { response.json() } else { Value::Null };
        is_over
    });
    assert_eq!((&last["deleted"], &last["outcome"]), (&json!([]), &json!([])), "{last}");
    assert!(last["outputFormat"].is_string());
}

#[test]
fn version_4_takes_post_only_and_lists_only_repeated() {
    let service = hospital();
    for path in PATHS {
        for method in ["GET", "HEAD", "DELETE"] {
            let refused = service.send(Request::new(method, path).header("Prefer", "respond-async"));
            assert_eq!(refused.status, 405, "{method} {path}: {}", refused.text());
            assert_eq!(refused.header("allow"), Some("POST"), "{method} {path}");
        }
        for (name, values) in
            [("_type", "Patient,Observation"), ("_elements", "id,name"), ("includeAssociatedData", "a,b")]
        {
            let refused = post(&service, path, "respond-async, handling=lenient", &json!([string(name, values)]));
            outcome(&refused, 400);
            assert_eq!(refused.json()["issue"][0]["expression"], json!([name]), "{}", refused.text());
        }
        outcome(&service.send(Request::json(path, "{}").header("Prefer", "respond-async")), 400);
        outcome(&post(&service, path, "return=minimal", &json!([])), 400);
        let query = service.send(
            Request::json(&format!("{path}?_type=Patient"), r#"{"resourceType": "Parameters"}"#)
                .header("Prefer", "respond-async"),
        );
        outcome(&query, 400);
    }
    let elements = json!([string("_type", "Patient"), string("_elements", "id"), string("_elements", "name")]);
    let found = manifest(&service, &post(&service, PATHS[0], "respond-async", &elements));
    assert_eq!(ids(&service, &found, "Patient").len(), 5);
    let nobody = post(&service, "/fhir/Group/none/$export-v4", "respond-async", &json!([]));
    outcome(&nobody, 404);
    let without = Request::json(PATHS[0], r#"{"resourceType": "Parameters"}"#).header("Prefer", "respond-async");
    outcome(&service.proxy.send(&without), 401);
    let metadata = service.send(Request::get("/fhir/metadata")).json();
    let operations = metadata["rest"][0]["operation"].as_array().unwrap();
    let definition = "http://hl7.org/fhir/uv/bulkdata/OperationDefinition/export";
    assert!(operations.contains(&json!({"name": "export", "definition": definition})), "{operations:?}");
    let of_v4 = json!({"name": "export-v4", "definition": format!("{definition}|4.0.0")});
    assert!(operations.contains(&of_v4), "{operations:?}");
}
