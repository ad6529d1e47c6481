//! Exports of patients and Groups over HTTP, statuses apart from the polls', and reads of single resources.

use fhir_bulk_tests::proxy::{Request, Response};
use fhir_bulk_tests::wait_for;
use serde_json::{Value, json};

use crate::exports::{finished, ids, path};
use crate::support::{Service, exporting, outcome};

/// Two patients more, each with an observation, and Groups of them.
pub fn hospital() -> Service {
    let service = exporting();
    let reference = |to: &str| json!({"reference": to});
    let mut lines = Vec::new();
    for id in ["a", "b"] {
        lines.push(json!({"resourceType": "Patient", "id": id}));
        lines.push(json!({"resourceType": "Observation", "id": format!("o-{id}"), "status": "final",
            "subject": reference(&format!("Patient/{id}"))}));
    }
    lines.push(json!({"resourceType": "Organization", "id": "org"}));
    lines.push(json!({"resourceType": "Group", "id": "one", "member": [{"entity": reference("Patient/b")}]}));
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let loaded = service.send(Request::post("/fhir/$load", "application/ndjson", text));
    assert_eq!(loaded.status, 200, "{}", loaded.text());
    service
}

pub fn get(service: &Service, path: &str) -> Response {
    service.send(Request::get(path).header("Prefer", "respond-async"))
}

pub fn post(service: &Service, path: &str, parameters: &Value) -> Response {
    let body = json!({"resourceType": "Parameters", "parameter": parameters}).to_string();
    service.send(Request::post(path, "application/fhir+json", body).header("Prefer", "respond-async"))
}

pub fn manifest(service: &Service, started: &Response) -> Value {
    assert_eq!(started.status, 202, "{}", started.text());
    let done = finished(service, path(started.header("content-location").unwrap()));
    assert_eq!(done.status, 200, "{}", done.text());
    done.json()
}

/// The patients and observations of an export.
fn exported(service: &Service, started: &Response) -> String {
    let manifest = manifest(service, started);
    let types = ["Patient", "Observation"].into_iter();
    types.flat_map(|name| ids(service, &manifest, name)).collect::<Vec<_>>().join(" ")
}

#[test]
fn patients_and_groups_are_exported_from_their_addresses() {
    let service = hospital();
    let types = "?_type=Patient,Observation";
    let all = get(&service, &format!("/fhir/Patient/$export{types}"));
    assert_eq!(exported(&service, &all), "a b pt-1 pt-2 pt-3 o-a o-b");
    let group = get(&service, &format!("/fhir/Group/one/$export{types}"));
    let found = manifest(&service, &group);
    assert_eq!(found["request"], "http://fhir.example.org/fhir/Group/one/$export?_type=Patient,Observation");
    assert_eq!(ids(&service, &found, "Patient"), ["b"]);
    assert_eq!(ids(&service, &found, "Observation"), ["o-b"]);
    let patient = |id: &str| json!({"name": "patient", "valueReference": {"reference": format!("Patient/{id}")}});
    let named = post(&service, "/fhir/Patient/$export", &json!([patient("a"), patient("pt-1")]));
    assert_eq!(exported(&service, &named), "a pt-1 o-a");
    let member = post(&service, "/fhir/Group/one/$export", &json!([patient("b")]));
    assert_eq!(exported(&service, &member), "b o-b");

    outcome(&get(&service, "/fhir/Group/none/$export"), 404);
    outcome(&post(&service, "/fhir/Group/none/$export", &json!([])), 404);
    for (refused, parameter) in [
        (post(&service, "/fhir/Group/one/$export", &json!([patient("a")])), "patient"),
        (post(&service, "/fhir/Patient/$export", &json!([patient("none")])), "patient"),
        (post(&service, "/fhir/$export", &json!([patient("a")])), "patient"),
        (get(&service, "/fhir/Patient/$export?patient=Patient/a"), "patient"),
        (get(&service, "/fhir/Patient/$export?_type=Organization"), "organization"),
        (get(&service, "/fhir/Patient/$export?level=system"), "level"),
    ] {
        let text = outcome(&refused, 400);
        assert!(text.to_lowercase().contains(parameter), "{text}");
    }
    let without = service.proxy.send(&Request::get("/fhir/Group/one/$export").header("Prefer", "respond-async"));
    outcome(&without, 401);
    assert_eq!(service.send(Request::new("HEAD", "/fhir/Patient/$export")).status, 405);
    let metadata = service.send(Request::get("/fhir/metadata")).json();
    let resources = metadata["rest"][0]["resource"].as_array().unwrap();
    for (name, operation) in [("Patient", "patient-export"), ("Group", "group-export")] {
        let resource = resources.iter().find(|resource| resource["type"] == name).unwrap();
        let definition = format!("http://hl7.org/fhir/uv/bulkdata/OperationDefinition/{operation}");
        let of_v4 = format!("{definition}|4.0.0");
        let operations =
            json!([{"name": "export", "definition": definition}, {"name": "export-v4", "definition": of_v4}]);
        assert_eq!(resource["operation"], operations);
        assert_eq!(resource["interaction"], json!([{"code": "read"}]));
        let parameters = resource["searchParam"].as_array().unwrap();
        let updated = json!({"name": "_lastUpdated", "type": "date",
            "definition": "http://hl7.org/fhir/SearchParameter/Resource-lastUpdated"});
        assert!(parameters.contains(&updated), "{parameters:?}");
        assert!(!parameters.iter().any(|parameter| parameter["name"] == "_text"), "{parameters:?}");
    }
}

#[test]
fn a_client_that_prefers_it_gets_the_status_apart_from_its_polls() {
    let service = hospital();
    let prefer = "respond-async, separate-export-status";
    let start = |query: &str| service.send(Request::get(&format!("/fhir/$export{query}")).header("Prefer", prefer));
    let ended = |started: &Response| {
        assert_eq!(started.status, 202, "{}", started.text());
        assert_eq!(started.header("preference-applied"), Some(prefer));
        let status = path(started.header("content-location").unwrap()).to_owned();
        let mut last = None;
        wait_for("the export to end", || {
            let response = service.send(Request::get(&status));
            let is_over = response.status != 429 && response.header("x-export-status") != Some("202 Accepted");
            if response.status != 429 && !is_over {
                assert_eq!(response.status, 200, "{}", response.text());
                assert!(response.header("x-progress").is_some() && response.header("retry-after").is_some());
            }
            last = Some(response);
            is_over
        });
        (status, last.unwrap())
    };
    let (status, done) = ended(&start(""));
    assert_eq!((done.status, done.header("x-export-status")), (200, Some("200 OK")));
    assert!(done.json()["output"].as_array().is_some_and(|output| !output.is_empty()), "{}", done.text());
    assert_eq!(service.send(Request::new("DELETE", &status)).status, 202);
    outcome(&finished(&service, &status), 404);
    // A table that cannot be read.
    service
        .connect()
        .batch_execute("CREATE VIEW broken AS SELECT id, txid, cts, ts / (txid - txid) AS ts, resource_type, status, resource FROM (SELECT id, txid, cts, 1 AS ts, resource_type, status, resource FROM patient) p")
        .unwrap();
    let (_, failed) = ended(&start("?_type=Broken"));
    assert_eq!((failed.status, failed.header("x-export-status")), (200, Some("500 Internal Server Error")));
    assert_eq!(failed.header("content-type"), Some("application/fhir+json"));
    assert_eq!(failed.json()["resourceType"], "OperationOutcome", "{}", failed.text());
    // Without the preference everything is as it was.
    let plain = get(&service, "/fhir/$export");
    assert!(plain.header("preference-applied").is_none());
    assert!(finished(&service, path(plain.header("content-location").unwrap())).header("x-export-status").is_none());
}

#[test]
fn a_resource_is_read_and_one_that_is_absent_deleted_or_hidden_is_not_found() {
    let service = hospital();
    let found = service.send(Request::get("/fhir/Observation/o-a"));
    assert_eq!((found.status, found.header("content-type")), (200, Some("application/fhir+json")), "{}", found.text());
    let resource = found.json();
    assert_eq!((&resource["id"], &resource["resourceType"]), (&json!("o-a"), &json!("Observation")));
    let version = resource["meta"]["versionId"].as_str().expect("a text, as FHIR has it");
    assert_eq!(found.header("etag"), Some(format!("W/\"{version}\"").as_str()));
    let mut admin = service.connect();
    admin
        .batch_execute(&format!(
            "UPDATE observation SET status = 'deleted' WHERE id = 'o-a';
             ALTER TABLE observation ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
             CREATE POLICY p ON observation TO {} USING (id <> 'o-b')",
            service.client
        ))
        .unwrap();
    let answers: Vec<String> = ["o-a", "o-b", "o-none"]
        .into_iter()
        .map(|id| outcome(&service.send(Request::get(&format!("/fhir/Observation/{id}"))), 404))
        .collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    outcome(&service.send(Request::get("/fhir/Device/x")), 404);
    outcome(&service.send(Request::get("/fhir/Observation/o-b?_summary=true")), 400);
    outcome(&service.proxy.send(&Request::get("/fhir/Observation/o-b")), 401);
}

#[test]
fn files_by_patient_have_no_types_and_begin_with_a_header() {
    let service = hospital();
    let parameters = json!([{"name": "organizeOutputBy", "valueString": "Patient"}]);
    let got = get(&service, "/fhir/Group/one/$export?organizeOutputBy=Patient");
    for started in [got, post(&service, "/fhir/Group/one/$export", &parameters)] {
        let manifest = manifest(&service, &started);
        assert_eq!(manifest["outputOrganizedBy"], "Patient");
        let file = &manifest["output"][0];
        assert_eq!((file.get("type"), &file["count"]), (None, &json!(4)), "{manifest}");
        let lines = service.send(Request::get(path(file["url"].as_str().unwrap()))).text();
        let header = r#"{"resourceType":"Parameters","parameter":[{"name":"header","valueReference":{"reference":"Patient/b"}}]}"#;
        assert_eq!(lines.lines().next(), Some(header));
        let ids: Vec<Value> =
            lines.lines().skip(1).map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone()).collect();
        assert_eq!(ids, ["b", "one", "o-b"]);
    }
    // A client that would take less than a whole manifest gets the whole one.
    let whole = get(&service, "/fhir/$export?_type=Patient&allowPartialManifests=true");
    assert_eq!(manifest(&service, &whole)["output"].as_array().map(Vec::len), Some(1));
    assert!(outcome(&get(&service, "/fhir/$export?allowPartialManifests=2"), 400).contains("allowPartialManifests"));
    let refused = get(&service, "/fhir/$export?organizeOutputBy=Encounter");
    assert!(outcome(&refused, 400).contains("organizeOutputBy \"Encounter\" is not known"), "{}", refused.text());
    assert_eq!(refused.json()["issue"][0]["code"], "not-supported");
}

#[test]
fn a_binary_is_a_resource_or_its_content_as_the_caller_accepts_it() {
    let service = hospital();
    let lines = r#"{"resourceType": "Binary", "id": "page", "contentType": "text/html; charset=utf-8", "data": "PGI+SGk8L2I+"}"#;
    assert_eq!(service.send(Request::post("/fhir/Binary/$load", "application/ndjson", lines)).status, 200);
    let read = |accept: &str| service.send(Request::get("/fhir/Binary/page").header("Accept", accept));
    // Browsers accept everything, and must not get a page of this server.
    for accept in ["*/*", "application/fhir+json", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"] {
        let resource = read(accept);
        assert_eq!(resource.header("content-type"), Some("application/fhir+json"), "{accept}");
        assert_eq!(resource.json()["data"], "PGI+SGk8L2I+");
    }
    for accept in ["text/html", "text/*"] {
        let content = read(accept);
        assert_eq!((content.status, content.text().as_str()), (200, "<b>Hi</b>"), "{accept}");
        assert_eq!(content.header("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(content.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(content.header("content-security-policy"), Some("sandbox"));
        assert!(content.header("etag").is_some_and(|tag| tag.starts_with("W/\"")), "{content:?}");
    }
    outcome(&read("application/pdf"), 406);
    outcome(&service.send(Request::get("/fhir/Binary/none").header("Accept", "text/html")), 404);
    outcome(&service.send(Request::get("/fhir/Patient/a").header("Accept", "text/html")), 406);
    outcome(&service.proxy.send(&Request::get("/fhir/Binary/page").header("Accept", "text/html")), 401);
}
