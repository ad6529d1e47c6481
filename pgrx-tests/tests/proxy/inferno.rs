//! What Inferno's test kit for Bulk Data asks of a server, at each level.

use fhir_bulk_tests::proxy::{Request, Response};
use serde_json::Value;

use crate::exports::{download, finished, path};
use crate::levels::hospital;
use crate::support::{Service, outcome};

/// The levels; the Group has two members.
const LEVELS: [&str; 3] = ["/fhir/$export", "/fhir/Patient/$export", "/fhir/Group/two/$export"];

fn service() -> Service {
    let service = hospital();
    let members: Vec<Value> =
        ["a", "b"].map(|id| serde_json::json!({"entity": {"reference": format!("Patient/{id}")}})).into();
    let group =
        serde_json::json!({"resourceType": "Group", "id": "two", "type": "person", "actual": true, "member": members});
    let loaded = service.send(Request::post("/fhir/$load", "application/ndjson", format!("{group}\n")));
    assert_eq!(loaded.status, 200, "{}", loaded.text());
    service
}

fn kick_off(service: &Service, path: &str) -> Response {
    let request = Request::get(path).header("Accept", "application/fhir+json").header("Prefer", "respond-async");
    service.send(request)
}

fn status_of(started: &Response) -> String {
    assert_eq!(started.status, 202, "{}", started.text());
    let location = started.header("content-location").expect("an absolute URL");
    assert!(location.starts_with("http://"), "{location}");
    path(location).to_owned()
}

#[test]
fn every_spelling_of_the_format_starts_an_export_that_can_be_deleted() {
    let service = service();
    for level in LEVELS {
        for format in ["application/fhir%2Bndjson", "application/fhir+ndjson", "application/ndjson", "ndjson"] {
            let status = status_of(&kick_off(&service, &format!("{level}?_outputFormat={format}")));
            assert_eq!(service.send(Request::new("DELETE", &status)).status, 202, "{level} {format}");
            outcome(&finished(&service, &status), 404);
        }
    }
}

#[test]
fn a_time_since_when_starts_an_export() {
    let service = service();
    for level in LEVELS {
        for since in ["2020-01-01T00:00:00.000Z", "2020-01-01T00:00:00%2B02:00", "2020-01-01"] {
            let status = status_of(&kick_off(&service, &format!("{level}?_since={since}")));
            let done = finished(&service, &status);
            assert_eq!(done.status, 200, "{}", done.text());
        }
    }
}

#[test]
fn nobody_starts_an_export_or_sees_its_status_without_a_token() {
    let service = service();
    for level in LEVELS {
        let request =
            || Request::get(level).header("Accept", "application/fhir+json").header("Prefer", "respond-async");
        outcome(&service.proxy.send(&request()), 401);
        outcome(&service.proxy.send(&request().header("Authorization", "Bearer this_is_invalid")), 401);
        let status = status_of(&service.send(request()));
        outcome(&service.proxy.send(&Request::get(&status)), 401);
        outcome(&service.proxy.send(&Request::new("DELETE", &status)), 401);
    }
}

#[test]
fn the_manifest_has_what_is_required_and_the_files_what_it_says() {
    let service = service();
    for (level, fewest) in LEVELS.into_iter().zip([5, 5, 2]) {
        let done = finished(&service, &status_of(&kick_off(&service, level)));
        assert_eq!((done.status, done.header("content-type")), (200, Some("application/json")), "{}", done.text());
        assert!(done.header("expires").is_some());
        let manifest = done.json();
        for member in ["transactionTime", "request", "requiresAccessToken", "output", "error"] {
            assert!(!manifest[member].is_null(), "{member}: {manifest}");
        }
        assert!(
            manifest["output"].is_array()
                && manifest["error"].is_array()
                && manifest["requiresAccessToken"].is_boolean()
        );
        let mut patients = 0;
        for file in manifest["output"].as_array().unwrap() {
            let (resource_type, url) = (file["type"].as_str().unwrap(), &file["url"]);
            assert!(url.as_str().unwrap().starts_with("http://"));
            let body = download(&service, url);
            assert_eq!(body.status, 200);
            assert!(body.header("content-type").unwrap().starts_with("application/fhir+ndjson"), "{body:?}");
            let text = body.text();
            for line in text.lines() {
                let resource: Value = serde_json::from_str(line).unwrap();
                assert_eq!(resource["resourceType"], resource_type, "{line}");
            }
            assert_eq!(file["count"], text.lines().count());
            patients += if resource_type == "Patient" { text.lines().count() } else { 0 };
        }
        assert!(patients >= 2 && patients == fewest, "{level}: {patients}");
    }
}

#[test]
fn a_deleted_export_is_gone_and_says_so() {
    let service = service();
    for level in LEVELS {
        let status = status_of(&kick_off(&service, level));
        finished(&service, &status);
        assert_eq!(service.send(Request::new("DELETE", &status)).status, 202);
        outcome(&finished(&service, &status), 404);
        outcome(&service.send(Request::new("DELETE", &status)), 404);
    }
}
