//! `$bulk-submit` and `$bulk-submit-status`: from another server's export to resources here.

use fhir_bulk_tests::proxy::{Request, Response, base64};
use fhir_bulk_tests::{http, wait_for};
use serde_json::{Value, json};

use crate::exports::{finished, kick_off, path};
use crate::smart::{Signer, asking, line, token_of, with};
use crate::support::{PASSWORD, Service, exporting, file, outcome, role, value};

pub const SYSTEM: &str = "https://hub.example/orgs";
pub const BASE: &str = "https://payer.example/fhir";

/// A service that takes submissions of `payer-7` by its client, from these sources.
pub fn consumer(sources: &str) -> Service {
    let line = |role: &str| format!("- {{system: '{SYSTEM}', value: payer-7, role: {role}, sources: {sources}}}\n");
    let service = Service::with(|database| {
        let lines = line(&format!("{}_client", database.name()));
        vec!["--submitters-file".to_owned(), file(database, "submitters.yaml", &lines)]
    });
    let allow = "SET fhir_bulk.allowed_sources = '127.0.0.1'";
    let name = service.database.name();
    service.database.connect().batch_execute(&format!("ALTER DATABASE {name} {allow}")).unwrap();
    service
}

/// The Parameters of a request about the submission `id`.
fn parameters(id: &str, more: Value) -> String {
    let mut all = vec![
        json!({"name": "submitter", "valueIdentifier": {"system": SYSTEM, "value": "payer-7"}}),
        json!({"name": "submissionId", "valueString": id}),
    ];
    all.extend(more.as_array().unwrap().clone());
    json!({"resourceType": "Parameters", "parameter": all}).to_string()
}

pub fn manifest(url: &str) -> Vec<Value> {
    vec![json!({"name": "manifestUrl", "valueUrl": url}), json!({"name": "fhirBaseUrl", "valueUrl": BASE})]
}

pub fn status_code(code: &str) -> Value {
    json!([{"name": "submissionStatus", "valueCoding": {"system": "http://hl7.org/fhir/event-status", "code": code}}])
}

fn post(path: &str, body: &str) -> Request {
    Request::post(path, "application/fhir+json", body)
}

pub fn submit(service: &Service, id: &str, more: Value) -> Response {
    service.send(post("/fhir/$bulk-submit", &parameters(id, more)))
}

fn ask(service: &Service, id: &str) -> Request {
    service.signed(post("/fhir/$bulk-submit-status", &parameters(id, json!([])))).header("Prefer", "respond-async")
}

/// The address of a submission's status.
pub fn status_path(service: &Service, id: &str) -> String {
    let response = service.proxy.send(&ask(service, id));
    assert_eq!(response.status, 202, "{}", response.text());
    path(response.header("content-location").unwrap()).to_owned()
}

#[test]
fn what_another_server_exports_is_submitted_with_its_credentials_and_is_here_when_it_is_completed() {
    let provider = exporting();
    let service = consumer(&format!("['{}/']", provider.proxy.url()));
    let export = kick_off(&provider, "?_type=Patient,Appointment");
    let export = path(export.header("content-location").unwrap()).to_owned();
    assert_eq!(finished(&provider, &export).status, 200);
    let basic = base64(format!("{}:{PASSWORD}", provider.client).as_bytes(), true);
    let mut all = manifest(&format!("{}{export}", provider.proxy.url()));
    all.push(json!({"name": "fileRequestHeader", "part": [{"name": "headerName", "valueString": "Authorization"},
        {"name": "headerValue", "valueString": format!("Basic {basic}")}]}));
    let accepted = submit(&service, "2026-11", all.into());
    assert_eq!(accepted.status, 200, "{}", accepted.text());
    assert_eq!(accepted.header("content-type"), Some("application/fhir+json"));
    let said = accepted.json();
    assert_eq!(
        (&said["resourceType"], &said["issue"][0]["severity"]),
        (&json!("OperationOutcome"), &json!("information"))
    );
    let poll = status_path(&service, "2026-11");
    let waiting = service.send(Request::get(&poll));
    assert_eq!(waiting.status, 202, "{}", waiting.text());
    assert!(waiting.header("x-progress").unwrap().contains("of 1 manifests"), "{waiting:?}");
    assert_eq!(submit(&service, "2026-11", status_code("completed")).status, 200);
    let done = finished(&service, &poll);
    assert_eq!(done.status, 200, "{}", done.text());
    let status = done.json();
    let manifest_type = "http://hl7.org/fhir/uv/bulkdata/StructureDefinition/BulkSubmitStatusManifest";
    assert_eq!(status["transactionTime"].as_str().unwrap().len(), "2026-11-27T08:00:00.000000Z".len());
    let mut rest = status.clone();
    rest.as_object_mut().unwrap().remove("transactionTime");
    assert_eq!(
        rest,
        json!({"submissionId": "2026-11", "manifestType": manifest_type, "requiresAccessToken": true, "outcome": []})
    );
    let mut client = service.connect();
    assert_eq!(value(&mut client, "SELECT count(*) FROM patient"), "3");
    assert_eq!(value(&mut client, "SELECT count(*) FROM appointment"), "3");
    let again = submit(&service, "2026-11", status_code("stopped"));
    assert!(outcome(&again, 409).contains("is completed"));
    assert_eq!(again.json()["issue"][0]["code"], "conflict");
    // The log has no credentials.
    assert!(!service.proxy.log().contains(&basic));
    // Deleted, the status is gone, and can be asked for again.
    assert_eq!(service.send(Request::new("DELETE", &poll)).status, 202);
    outcome(&service.send(Request::get(&poll)), 404);
    outcome(&service.send(Request::new("DELETE", &poll)), 404);
    assert_eq!(finished(&service, &status_path(&service, "2026-11")).status, 200);
}

#[test]
fn outcomes_are_files_for_those_who_may_see_the_submission() {
    let server = http::Server::new(|request, stream| {
        use std::io::Write as _;
        let lines = "{\"resourceType\":\"Patient\",\"id\":\"a\"}\n{\"resourceType\":\"Patient\",\"id\":\"b\",}\n";
        let body = match request.path.as_str() {
            "/m" => json!({"transactionTime": "t", "output": [{"type": "Patient", "url": "p"}]}).to_string(),
            _ => lines.to_owned(),
        };
        let _ = stream.write_all(&http::ok(body));
    });
    let service = consumer(&format!("['{}']", server.url("/")));
    let mut all = manifest(&server.url("/m"));
    all.extend(status_code("completed").as_array().unwrap().clone());
    assert_eq!(submit(&service, "s", all.into()).status, 200);
    let asked = service.proxy.send(&ask(&service, "s").header("Prefer", "respond-async, separate-export-status"));
    assert_eq!(asked.header("preference-applied"), Some("respond-async, separate-export-status"));
    let poll = path(asked.header("content-location").unwrap()).to_owned();
    let mut last = None;
    wait_for("the submission to be applied", || {
        let response = service.send(Request::get(&poll));
        let is_over = response.status == 200 && response.header("x-export-status") == Some("200 OK");
        assert!([200, 429].contains(&response.status), "{}", response.text());
        last = Some(response);
        is_over
    });
    let found = last.unwrap().json()["outcome"].clone();
    assert_eq!(found[0]["manifestUrl"], server.url("/m"));
    assert_eq!(found[0]["countSeverity"], json!([{"code": "error", "count": 1}]));
    let url = path(found[0]["url"].as_str().unwrap());
    let lines = service.send(Request::get(url));
    assert_eq!((lines.status, lines.header("content-type")), (200, Some("application/fhir+ndjson")));
    let line: Value = serde_json::from_str(lines.text().lines().next().unwrap()).unwrap();
    assert_eq!(line["extension"][0]["valueReference"]["reference"], format!("{BASE}/Patient/b"));
    assert_eq!(lines.text().lines().count(), 1);
    assert_eq!(service.proxy.send(&Request::get(url)).status, 401);
    let other = role(&service.database, "other");
    let unseen = |request: Request| service.proxy.send(&request.basic(&other, PASSWORD));
    outcome(&unseen(Request::get(url)), 404);
    outcome(&unseen(Request::get(&poll)), 404);
}

#[test]
fn only_submitters_of_the_file_may_submit_as_their_role_and_from_their_sources() {
    let service = consumer("['https://payer.example/', 'http://127.0.0.1:9/in/']");
    let refused = |body: &str| outcome(&service.send(post("/fhir/$bulk-submit", body)), 403);
    let inside = parameters("s", json!(manifest("http://127.0.0.1:9/in/m")));
    assert!(refused(&inside.replace("payer-7", "payer-8")).contains("submitter"));
    assert!(refused(&inside.replace(SYSTEM, "https://other.example/orgs")).contains("submitter"));
    let plain = json!({"submitter": {"value": "payer-7"}, "submissionId": "s", "submissionStatus": "in-progress"});
    assert!(refused(&plain.to_string()).contains("submitter"));
    let other = role(&service.database, "other");
    let request = post("/fhir/$bulk-submit", &inside).basic(&other, PASSWORD);
    outcome(&service.proxy.send(&request), 403);
    for url in ["http://127.0.0.1:9/out/m", "http://127.0.0.1:9/in/..%2Fm", "https://other.example/m"] {
        let outside = parameters("s", json!(manifest(url)));
        assert!(refused(&outside).contains("permission denied"), "{url}");
        // Nor does the client say itself what it may read.
        let mut own: Value = serde_json::from_str(&outside).unwrap();
        own["allowedSources"] = json!(["http://127.0.0.1:9/"]);
        refused(&own.to_string());
    }
    assert_eq!(service.send(post("/fhir/$bulk-submit", &inside)).status, 200);
    // The file is read anew.
    file(&service.database, "submitters.yaml", "[]");
    service.proxy.reload();
    refused(&inside);
    file(&service.database, "submitters.yaml", "- {value: payer-7, role: r, sources: [127.0.0.1]}");
    service.proxy.reload();
    assert!(
        service.proxy.log().contains("\"127.0.0.1\\\" is not scheme://host")
            || service.proxy.log().contains("is not scheme://host")
    );
    refused(&inside);
    let without = Service::new();
    outcome(&without.send(post("/fhir/$bulk-submit", &inside)), 403);
}

#[test]
fn a_wrong_request_says_what_is_wrong() {
    let service = consumer("['https://payer.example/']");
    let url = "https://payer.example/m";
    let with = |more: Value| {
        let mut all = manifest(url);
        all.extend(more.as_array().unwrap().clone());
        Value::from(all)
    };
    let string = |name: &str| json!([{"name": name, "valueString": "https://payer.example/x"}]);
    let key = json!([{"name": "fileEncryptionKey", "part": [{"name": "value", "valueString": "k"}]}]);
    for (more, status, code, expression) in [
        (json!([]), 400, "invalid", None),
        (json!([manifest(url)[0]]), 400, "invalid", Some("fhirBaseUrl")),
        (with(key), 501, "not-supported", Some("fileEncryptionKey")),
        (
            with(json!([{"name": "oauthMetadataUrl", "valueUrl": "https://payer.example/x"}])),
            422,
            "not-supported",
            Some("oauthMetadataUrl"),
        ),
        (with(json!([{"name": "oauthMetadataUrl", "valueUrl": "x"}])), 400, "invalid", Some("oauthMetadataUrl")),
        (with(string("unknown")), 400, "not-supported", Some("unknown")),
        (with(string("outputFormat")), 400, "invalid", Some("outputFormat")),
        (status_code("completed"), 404, "not-found", None),
    ] {
        let response = submit(&service, "s", more.clone());
        outcome(&response, status);
        let issue = &response.json()["issue"][0];
        assert_eq!((issue["code"].as_str(), issue["expression"][0].as_str()), (Some(code), expression), "{more}");
    }
    let lenient =
        post("/fhir/$bulk-submit", &parameters("s", with(string("unknown")))).header("Prefer", "handling=lenient");
    let accepted = service.send(lenient);
    assert_eq!((accepted.status, &accepted.json()["issue"][1]["expression"]), (200, &json!(["unknown"])));
    let twice = submit(&service, "s", json!(manifest(url)));
    assert!(outcome(&twice, 409).contains("manifestUrl"));
    let begin = status_code("in-progress");
    for id in ["2", "3", "4"] {
        assert_eq!(submit(&service, id, begin.clone()).status, 200);
    }
    let many = submit(&service, "5", begin);
    outcome(&many, 429);
    assert!(many.header("retry-after").is_some(), "{many:?}");
    // Its status is asked for in the background, or not at all.
    outcome(&service.send(post("/fhir/$bulk-submit-status", &parameters("s", json!([])))), 400);
    outcome(&service.proxy.send(&ask(&service, "unknown")), 404);
    outcome(&service.send(Request::get("/fhir/$bulk-submit-status/x")), 404);
    outcome(&service.send(Request::get("/fhir/$bulk-submit-outcomes/x/y")), 404);
    let own = json!({"id": "x"}).to_string();
    let own = post("/fhir/$bulk-submit-status", &own).header("Prefer", "respond-async");
    outcome(&service.send(own), 400);
}

#[test]
fn a_submission_that_fails_is_an_error_of_the_server_and_stopped_ones_are_over() {
    let server = http::Server::new(|request, stream| {
        use std::io::Write as _;
        let body = match request.path.as_str() {
            "/m" => json!({"transactionTime": "t", "output": [{"type": "Patient", "url": "p"}]}).to_string(),
            _ => "{\"resourceType\":\"Patient\",\"id\":\"a\"}\n".to_owned(),
        };
        let _ = stream.write_all(&http::ok(body));
    });
    let service = consumer(&format!("['{}']", server.url("/")));
    let refuse = "SELECT bulk_create_table('Patient'); ALTER TABLE patient ADD CHECK (id <> 'a')";
    service.connect().batch_execute(refuse).unwrap();
    let mut all = manifest(&server.url("/m"));
    assert_eq!(submit(&service, "stopped", json!(all)).status, 200);
    assert_eq!(submit(&service, "stopped", status_code("stopped")).status, 200);
    let stopped = finished(&service, &status_path(&service, "stopped"));
    assert_eq!((stopped.status, &stopped.json()["outcome"]), (200, &json!([])));
    all.extend(status_code("completed").as_array().unwrap().clone());
    assert_eq!(submit(&service, "s", all.into()).status, 200);
    let failed = finished(&service, &status_path(&service, "s"));
    assert!(outcome(&failed, 500).contains("patient_id_check"), "{}", failed.text());
    assert_eq!(value(&mut service.connect(), "SELECT count(*) FROM patient"), "0");
}

#[test]
fn the_capability_statement_names_the_operations_if_anybody_may_use_them() {
    let named = |service: &Service| {
        let metadata = service.send(Request::get("/fhir/metadata")).json();
        let operations = metadata["rest"][0]["operation"].as_array().unwrap().clone();
        operations.iter().filter(|operation| operation["name"].as_str().unwrap().starts_with("bulk-submit")).count()
    };
    assert_eq!((named(&consumer("['https://payer.example/']")), named(&Service::new())), (2, 0));
}

#[test]
fn a_token_needs_the_scope_of_submissions() {
    let signer = Signer::elliptic();
    let service = crate::smart::service(
        |reader| line("submits", &signer.jwks("k"), reader, "system/bulk-submit system/*.cruds"),
        &[],
    );
    let open = |scopes: &str| {
        let token = token_of(&service.proxy.send(&asking(&signer.assertion("submits", "k"), scopes)));
        let begin = parameters("s", status_code("in-progress"));
        let response = service.proxy.send(&with(&token, post("/fhir/$bulk-submit", &begin)));
        outcome(&response, 403)
    };
    assert!(open("system/*.cruds").contains("it needs system/bulk-submit"));
    // With it the submitter itself is what is missing.
    assert!(open("system/bulk-submit").contains("this submitter is not known"));
}
