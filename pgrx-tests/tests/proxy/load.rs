//! `$load`, in its four forms.

use fhir_bulk_tests::gzip;
use fhir_bulk_tests::proxy::Request;
use serde_json::json;

use crate::support::{Service, outcome, value};

fn patients(count: usize) -> String {
    (1..=count)
        .map(|n| format!("{{\"resourceType\":\"Patient\",\"id\":\"p-{n}\",\"multipleBirthInteger\":{n}}}\n"))
        .collect()
}

#[test]
fn the_bodies_that_aidboxs_documentation_writes_load_what_it_says() {
    let service = Service::new();
    let source = service.database.file("Patient.ndjson.gz", gzip(patients(124).as_bytes()));
    let yaml = format!("source: '{source}'\n");
    for request in [
        Request::post("/fhir/Patient/$load", "text/yaml", &yaml),
        Request::json("/fhir/Patient/$load", &json!({"source": source}).to_string()),
        Request::post("/Patient/$load", "application/yaml", &yaml),
    ] {
        let response = service.send(request);
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.header("content-type"), Some("application/json"));
        assert_eq!(response.json(), json!({"total": 124}));
    }
    let mixed = format!(
        "{}{{\"resourceType\":\"CarePlan\",\"id\":\"c\",\"subject\":{{\"reference\":\"Patient/p-1\"}}}}\n",
        patients(3)
    );
    let source = service.database.file("all.ndjson", mixed);
    let response = service.send(Request::post("/fhir/$load", "text/yaml", format!("source: '{source}'")));
    assert_eq!(response.json(), json!({"CarePlan": 1, "Patient": 3}));
    let mut client = service.connect();
    assert_eq!(value(&mut client, "SELECT resource #>> '{subject,id}' FROM careplan"), "p-1");
    // Without /fhir, lines are stored as they are.
    assert_eq!(service.send(Request::json("/$load", &json!({"source": source}).to_string())).status, 200);
    assert_eq!(value(&mut client, "SELECT resource #>> '{subject,reference}' FROM careplan"), "Patient/p-1");
    assert_eq!(value(&mut client, "SELECT count(*) FROM patient"), "124");
}

#[test]
fn what_the_body_has_beside_the_source_are_the_loads_options() {
    let service = Service::new();
    let source = service.database.file("Patient.ndjson", "{\"id\":\"p\"}\nnonsense\n{\"id\":\"q\",\"a\":null}\n");
    let body = json!({"source": source, "on_error": "skip", "strip-nulls": true, "merge": {"tag": 1.10}});
    let response = service.send(Request::json("/Patient/$load", &body.to_string().replace("1.1}", "1.10}")));
    assert_eq!(response.json(), json!({"total": 2, "errors": 1}));
    assert_eq!(value(&mut service.connect(), "SELECT resource FROM patient WHERE id = 'q'"), r#"{"tag": 1.10}"#);
    let unknown = json!({"source": source, "frobnicate": true}).to_string();
    let text = outcome(&service.send(Request::json("/Patient/$load", &unknown)), 422);
    assert!(text.contains("frobnicate"), "{text}");
}

#[test]
fn a_load_that_fails_says_where_and_leaves_nothing() {
    let service = Service::new();
    let source = service.database.file("Patient.ndjson", patients(5) + "{\"id\":\n");
    let load = |path: &str, source: &str| service.send(Request::json(path, &json!({"source": source}).to_string()));
    let text = outcome(&load("/fhir/Patient/$load", &source), 422);
    assert!(text.contains("line 6") && text.contains("Patient.ndjson"), "{text}");
    assert_eq!(value(&mut service.connect(), "SELECT to_regclass('patient') IS NULL"), "true");
    for source in ["nowhere", "ftp://example.org/x", "file:///nowhere/at/all.ndjson"] {
        outcome(&load("/fhir/Patient/$load", source), 422);
    }
    // Not everybody may have the server fetch.
    let text = outcome(&load("/fhir/Patient/$load", "http://127.0.0.1:1/x"), 403);
    assert!(text.contains("permission denied"), "{text}");
}
