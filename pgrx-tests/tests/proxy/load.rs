//! `$load`, in its four forms.

use std::io::Write as _;

use fhir_bulk_tests::proxy::Request;
use fhir_bulk_tests::{gzip, wait_for};
use serde_json::json;

use crate::support::{Service, anonymous_kb, outcome, value};

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
    let text = outcome(&service.send(Request::json("/Patient/$load", &unknown)), 400);
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
    for (source, status) in [("nowhere", 400), ("ftp://example.org/x", 400), ("file:///nowhere/at/all.ndjson", 422)] {
        outcome(&load("/fhir/Patient/$load", source), status);
    }
    // Not everybody may have the server fetch.
    let text = outcome(&load("/fhir/Patient/$load", "http://127.0.0.1:1/x"), 403);
    assert!(text.contains("permission denied"), "{text}");
}

#[test]
fn resources_in_the_body_itself_load_plain_and_gzipped_on_all_four_routes() {
    let service = Service::new();
    let lines = patients(50);
    for (path, expected) in [
        ("/fhir/Patient/$load", json!({"total": 50})),
        ("/Patient/$load", json!({"total": 50})),
        ("/fhir/$load", json!({"Patient": 50})),
        ("/$load", json!({"Patient": 50})),
    ] {
        for request in [
            Request::post(path, "application/ndjson", &lines),
            Request::post(path, "application/x-ndjson", &lines),
            Request::post(path, "application/fhir+ndjson; charset=utf-8", &lines),
            Request::post(path, "application/gzip", gzip(lines.as_bytes())),
            Request::post(path, "application/ndjson", gzip(lines.as_bytes())).header("Content-Encoding", "gzip"),
        ] {
            let response = service.send(request);
            assert_eq!(response.status, 200, "{}", response.text());
            assert_eq!(response.json(), expected);
        }
    }
    assert_eq!(service.send(Request::post("/Patient/$load", "application/ndjson", "")).json(), json!({"total": 0}));
    let body = "{\"id\":\"x\",\"a\":null}\nnonsense\n";
    let path = "/Patient/$load?on_error=skip&max_errors=1&strip-nulls=true&update=true";
    let response = service.send(Request::post(path, "application/ndjson", body));
    assert_eq!(response.json(), json!({"total": 1, "errors": 1}));
}

#[test]
fn a_large_body_goes_through_without_staying_in_memory() {
    let service = Service::new();
    let line = format!("{{\"id\":\"p\",\"text\":\"{}\"}}\n", "x".repeat(100_000));
    let before = anonymous_kb(service.proxy.pid());
    // Sent in chunks as it is made: nobody knows how long it will be.
    let request = service.signed(Request::new("POST", "/Patient/$load")).header("Content-Type", "application/ndjson");
    let mut exchange = service.proxy.open(&request.header("Transfer-Encoding", "chunked"));
    let mut most = 0;
    for at in 0..3000 {
        let stream = exchange.reader().get_mut();
        stream.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes()).unwrap();
        if at % 100 == 0 {
            most = most.max(anonymous_kb(service.proxy.pid()));
        }
    }
    exchange.reader().get_mut().write_all(b"0\r\n\r\n").unwrap();
    assert_eq!(exchange.read().json(), json!({"total": 3000}));
    assert!(most < 50 << 10, "the proxy had {most} kB, and {before} kB before");
}

#[test]
fn a_body_that_is_coded_for_the_way_is_not_taken_for_what_it_is_not() {
    let service = Service::new();
    for (coding, status) in [("gzip, chunked", 501), ("chunked", 200), ("Chunked", 200)] {
        let request =
            service.signed(Request::new("POST", "/Patient/$load")).header("Content-Type", "application/ndjson");
        let mut exchange = service.proxy.open(&request.header("Transfer-Encoding", coding));
        let lines = patients(2);
        exchange.reader().get_mut().write_all(format!("{:x}\r\n{lines}\r\n0\r\n\r\n", lines.len()).as_bytes()).unwrap();
        let response = exchange.read();
        assert_eq!(response.status, status, "{coding}: {}", response.text());
    }
}

#[test]
fn a_body_that_is_bad_breaks_off_or_is_too_large_leaves_nothing() {
    let service = Service::with(|_| ["--max-upload", "1MB"].map(str::to_owned).to_vec());
    let mut client = service.connect();
    let post = |body: &[u8]| service.send(Request::post("/Patient/$load", "application/ndjson", body));
    let text = outcome(&post((patients(5) + "{\"id\":\n").as_bytes()), 422);
    assert!(text.contains("line 6"), "{text}");
    outcome(&post(&[b'\n'; (1 << 20) + 1]), 413);
    let chunked = service.signed(Request::new("POST", "/Patient/$load")).header("Content-Type", "application/ndjson");
    let chunked = chunked.header("Transfer-Encoding", "chunked");
    let mut exchange = service.proxy.open(&chunked);
    let lines = patients(1000).repeat(50);
    let _ = exchange.reader().get_mut().write_all(format!("{:x}\r\n{lines}\r\n0\r\n\r\n", lines.len()).as_bytes());
    assert_eq!(exchange.head().status, 413);
    // A client that is cut off in the middle of a line that is whole so far.
    let mut exchange = service.proxy.open(&chunked);
    let lines = patients(1000);
    exchange.reader().get_mut().write_all(format!("{:x}\r\n{lines}", lines.len() + 100).as_bytes()).unwrap();
    drop(exchange);
    wait_for("the broken body to be given up", || {
        service.proxy.log().lines().any(|line| {
            line.contains("the body is incomplete")
                || line.contains("the client went away")
                || line.contains("status=400")
        })
    });
    assert_eq!(value(&mut client, "SELECT to_regclass('patient') IS NULL"), "true");
    let encoded = Request::post("/Patient/$load", "application/ndjson", "x").header("Content-Encoding", "br");
    outcome(&service.send(encoded), 415);
    // Not everybody may load.
    let other = crate::support::role(&service.database, "other");
    let request =
        Request::post("/Patient/$load", "application/ndjson", patients(5)).basic(&other, crate::support::PASSWORD);
    outcome(&service.proxy.send(&request), 403);
}

#[test]
fn yaml_and_json_bodies_change_no_value_of_what_they_merge() {
    let service = Service::new();
    let source = service.database.file("Patient.ndjson", "{\"id\":\"p\"}\n");
    let yaml = "price: 1.10\n  many: 12345678901234567890123\n  country: NO\n  state: on\n  answer: Yes\n  zip: 01234\n  \
                grouped: 1_000\n  hex: 0x1F\n  power: 1e2\n  null: 'N'\n  nothing: ~\n  good: true";
    let body = format!("source: '{source}'\nmerge:\n  {yaml}\n");
    let response = service.send(Request::post("/Patient/$load", "text/yaml", &body));
    assert_eq!(response.status, 200, "{}", response.text());
    let mut client = service.connect();
    let merged = r#"{"price": 1.10, "many": 12345678901234567890123, "country": "NO", "state": "on", "answer": "Yes",
        "zip": "01234", "grouped": "1_000", "hex": "0x1F", "power": 1e2, "null": "N", "nothing": null, "good": true}"#;
    let expected = value(&mut client, &format!("SELECT '{merged}'::jsonb"));
    assert_eq!(value(&mut client, "SELECT resource FROM patient"), expected);
    // An object is no text, whatever its key is called.
    let magic = r#"{"query": "select 1", "format": "csv", "null": {"$serde_json::private::Number": "1"}}"#;
    outcome(&service.send(Request::json("/$dump-sql", magic)), 400);
}

#[test]
fn codings_are_known_in_any_case_and_identity_is_none() {
    let service = Service::new();
    let post = |coding: &str, body: &[u8]| {
        let request = Request::post("/Patient/$load", "application/ndjson", body).header("Content-Encoding", coding);
        service.send(request).status
    };
    assert_eq!(post("GZIP", &gzip(patients(5).as_bytes())), 200);
    assert_eq!(post("Identity", patients(5).as_bytes()), 200);
    let query = Request::json("/$dump-sql", r#"{"query": "select id from patient limit 1"}"#);
    assert_eq!(service.send(query.clone().header("Content-Encoding", "identity")).status, 200);
    outcome(&service.send(query.header("Content-Encoding", "gzip")), 415);
}
