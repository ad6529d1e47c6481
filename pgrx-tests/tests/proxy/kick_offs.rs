//! What is wrong with a kick-off: the table of errors of HL7's Bulk Data Access over HTTP, for strict and lenient requests.

use fhir_bulk_tests::proxy::{Request, Response};
use serde_json::{Value, json};

use crate::exports::{download, ids};
use crate::levels::{hospital, manifest};
use crate::support::{Service, outcome};

const STRICT: &str = "respond-async";
const LENIENT: &str = "respond-async, handling=lenient";

fn get(service: &Service, path: &str, prefer: &str) -> Response {
    service.send(Request::get(path).header("Prefer", prefer))
}

fn post(service: &Service, path: &str, prefer: &str, parameters: &Value) -> Response {
    let body = json!({"resourceType": "Parameters", "parameter": parameters}).to_string();
    service.send(Request::post(path, "application/fhir+json", body).header("Prefer", prefer))
}

/// The code and the expression of an error.
#[track_caller]
fn issue(response: &Response, status: u16) -> (String, String) {
    outcome(response, status);
    let issue = &response.json()["issue"][0];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&issue["code"]), text(&issue["expression"][0]))
}

/// The codes and expressions in the files of `error`, all of them warnings.
fn told(service: &Service, found: &Value) -> Vec<(String, String)> {
    let mut told = Vec::new();
    for file in found["error"].as_array().unwrap() {
        assert_eq!(file["type"], "OperationOutcome");
        for line in download(service, &file["url"]).text().lines() {
            let issue = &serde_json::from_str::<Value>(line).unwrap()["issue"][0];
            assert_eq!(issue["severity"], "warning", "{line}");
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            told.push((text(&issue["code"]), text(&issue["expression"][0])));
        }
    }
    told
}

#[test]
fn what_is_not_supported_or_invalid_in_a_url_is_400_and_a_lenient_client_gets_the_rest_and_is_told() {
    let service = hospital();
    let all = "a b pt-1 pt-2 pt-3";
    for (path, code, parameter, patients) in [
        ("/fhir/$export?frobnicate=1", "not-supported", "frobnicate", all),
        ("/fhir/$export?frobnicate=1&frobnicate=2", "not-supported", "frobnicate", all),
        ("/fhir/$export?_since=yesterday", "invalid", "_since", all),
        ("/fhir/$export?_until=", "invalid", "_until", all),
        ("/fhir/$export?_since=2024-01-01&_since=2024-01-02", "invalid", "_since", all),
        ("/fhir/$export?_type=", "invalid", "_type", all),
        ("/fhir/$export?_type=Patient,Nobody", "not-found", "_type", all),
        ("/fhir/$export?_type=Nobody", "not-found", "_type", ""),
        ("/fhir/$export?_type=Patient&_typeFilter=Patient", "invalid", "_typeFilter", all),
        ("/fhir/$export?_type=Patient&_typeFilter=Patient?frobnicate=1", "not-supported", "_typeFilter", all),
        ("/fhir/$export?_type=Patient&_typeFilter=Patient?_sort=name", "not-supported", "_typeFilter", all),
        ("/fhir/$export?_type=Patient&_typeFilter=Observation?status=final", "invalid", "_typeFilter", all),
        ("/fhir/$export?includeAssociatedData=_custom", "invalid", "includeAssociatedData", all),
        ("/fhir/Patient/$export?_type=Organization", "not-supported", "_type", ""),
        ("/fhir/Group/one/$export?_type=Organization", "not-supported", "_type", ""),
    ] {
        let refused = get(&service, path, STRICT);
        assert_eq!(issue(&refused, 400), (code.to_owned(), parameter.to_owned()), "{path}: {}", refused.text());
        let found = manifest(&service, &get(&service, path, LENIENT));
        assert_eq!(told(&service, &found), [(code.to_owned(), parameter.to_owned())], "{path}");
        assert_eq!(ids(&service, &found, "Patient").join(" "), patients, "{path}");
    }
}

#[test]
fn what_is_not_supported_or_invalid_in_a_resource_is_400_and_a_lenient_client_gets_the_rest_and_is_told() {
    let service = hospital();
    for (part, code, parameter) in [
        (json!({"name": "frobnicate", "valueBoolean": true}), "not-supported", "frobnicate"),
        (json!({"name": "_since", "valueInteger": 7}), "invalid", "_since"),
        (json!({"name": "_since", "valueQuantity": {"value": 1}}), "invalid", "_since"),
        (json!({"name": "_since"}), "invalid", "_since"),
        (json!({"name": "_since", "valueString": "soon"}), "invalid", "_since"),
        (json!({"name": "_type", "valueBoolean": true}), "invalid", "_type"),
        (json!({"name": "_type", "valueString": "Nobody"}), "not-found", "_type"),
        (json!({"name": "_maximumFileSize", "valueString": "1"}), "invalid", "_maximumFileSize"),
        (json!({"name": "_typeFilter", "valueString": "Patient?frobnicate=1"}), "not-supported", "_typeFilter"),
        (json!({"name": "_typeFilter", "valueString": "Patient"}), "invalid", "_typeFilter"),
        (
            json!({"name": "includeAssociatedData", "valueCoding": {"code": "_custom"}}),
            "invalid",
            "includeAssociatedData",
        ),
    ] {
        let refused = post(&service, "/fhir/$export", STRICT, &json!([part]));
        assert_eq!(issue(&refused, 400), (code.to_owned(), parameter.to_owned()), "{part}: {}", refused.text());
        let found = manifest(&service, &post(&service, "/fhir/$export", LENIENT, &json!([part])));
        assert_eq!(told(&service, &found), [(code.to_owned(), parameter.to_owned())], "{part}");
    }
}

#[test]
fn whose_resources_and_whose_rights_a_lenient_client_cannot_have_ignored() {
    let service = hospital();
    let patient = |id: &str| json!([{"name": "patient", "valueReference": {"reference": format!("Patient/{id}")}}]);
    service
        .connect()
        .batch_execute("UPDATE \"group\" SET status = 'deleted' WHERE id = 'one'; INSERT INTO \"group\" SELECT 'two', txid, cts, ts, resource_type, 'created', resource FROM \"group\"")
        .unwrap();
    for prefer in [STRICT, LENIENT] {
        for path in ["/fhir/Group/none/$export", "/fhir/Group/one/$export"] {
            assert_eq!(issue(&get(&service, path, prefer), 404).0, "not-found", "{path}");
            assert_eq!(issue(&post(&service, path, prefer, &json!([])), 404).0, "not-found", "{path}");
        }
        for (path, id, code) in [
            ("/fhir/Patient/$export", "nobody", "not-found"),
            ("/fhir/Group/two/$export", "a", "not-found"),
            ("/fhir/$export", "a", "invalid"),
        ] {
            let refused = issue(&post(&service, path, prefer, &patient(id)), 400);
            assert_eq!(refused, (code.to_owned(), "patient".to_owned()), "{path}");
        }
        let refused = issue(&get(&service, "/fhir/Patient/$export?patient=Patient/a", prefer), 400);
        assert_eq!(refused, ("invalid".to_owned(), "patient".to_owned()));
        // The key's role may read patients only.
        let denied = Request::get("/fhir/$export?_type=Observation").header("x-api-key", "clk_live_abc123");
        let denied = service.proxy.send(&denied.header("Prefer", prefer));
        assert_eq!(issue(&denied, 403).0, "forbidden");
        // No client may set what the address and the headers say, nor ask for another kind of export.
        for name in ["level", "group", "request", "lenient", "resourceTypes", "since"] {
            let path = format!("/fhir/$export?{name}=x");
            assert_eq!(issue(&get(&service, &path, prefer), 400).1, name);
            let part = json!([{"name": name, "valueString": "x"}]);
            assert_eq!(issue(&post(&service, "/fhir/$export", prefer, &part), 400).1, name);
        }
        let format = get(&service, "/fhir/$export?_outputFormat=application/parquet", prefer);
        assert_eq!(issue(&format, 400), ("invalid".to_owned(), "_outputFormat".to_owned()));
    }
}

#[test]
fn provenance_comes_as_associated_data_however_a_client_asks_for_it() {
    let service = hospital();
    let lines: String = (1..=3)
        .map(|n| {
            let target = json!([{"reference": "Observation/o-b"}]);
            format!("{}\n", json!({"resourceType": "Provenance", "id": format!("v-{n}"), "recorded": format!("2024-01-0{n}"), "target": target}))
        })
        .collect();
    let loaded = service.send(Request::post("/fhir/$load", "application/ndjson", lines));
    assert_eq!(loaded.status, 200, "{}", loaded.text());
    let found = |started: Response| ids(&service, &manifest(&service, &started), "Provenance").join(" ");
    let (latest, relevant) = ("LatestProvenanceResources", "RelevantProvenanceResources");
    let query = |query: &str| get(&service, &format!("/fhir/Group/one/$export?_type=Observation&{query}"), STRICT);
    assert_eq!(found(query("")), "");
    assert_eq!(found(query(&format!("includeAssociatedData={latest}"))), "v-3");
    assert_eq!(found(query(&format!("includeAssociatedData={latest},{relevant}"))), "v-1 v-2 v-3");
    let repeated = format!("includeAssociatedData={relevant}&includeAssociatedData={latest}");
    assert_eq!(found(query(&repeated)), "v-1 v-2 v-3");
    let system = "http://hl7.org/fhir/uv/bulkdata/CodeSystem/include-associated-data";
    for value in [
        json!({"name": "includeAssociatedData", "valueCoding": {"system": system, "code": latest}}),
        json!({"name": "includeAssociatedData", "valueCode": latest}),
        json!({"name": "includeAssociatedData", "valueString": latest}),
    ] {
        let parts = |more: &[Value]| {
            let mut parts = vec![json!({"name": "_type", "valueString": "Observation"}), value.clone()];
            parts.extend_from_slice(more);
            post(&service, "/fhir/Group/one/$export", STRICT, &parts.into())
        };
        assert_eq!(found(parts(&[])), "v-3", "{value}");
        let more = json!({"name": "includeAssociatedData", "valueCode": relevant});
        assert_eq!(found(parts(&[more])), "v-1 v-2 v-3", "{value}");
    }
}
