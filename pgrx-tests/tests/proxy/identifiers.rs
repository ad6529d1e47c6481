//! `$bulk/export`: resources by their identifiers.

use std::process::Command;

use fhir_bulk_tests::proxy::Request;
use serde_json::{Value, json};

use crate::support::{PASSWORD, Service, outcome, role};

const SYSTEM: &str = "urn:gov:ph:psa:national-id";

fn service() -> Service {
    let service = Service::new();
    service
        .connect()
        .batch_execute(&format!(
            r#"SELECT bulk_create_table('Individual');
            INSERT INTO individual (id, txid, status, resource) VALUES ('i', 1, 'created', '{{
                "identifier": [{{"system": "{SYSTEM}", "value": "PH-123456789"}}],
                "name": {{"family": "SANTOS", "given": "Maria"}}, "birthDate": "1985-03-15"}}')"#
        ))
        .unwrap();
    service
}

fn request() -> Value {
    json!({
        "type": "Individual",
        "identifiers": [format!("{SYSTEM}|PH-123456789"), format!("{SYSTEM}|PH-555555555")],
        "_elements": "name,birthDate,gender"
    })
}

fn expected() -> Value {
    json!({
        "total": 2, "successful": 1, "failed": 1,
        "items": [
            {
                "identifier": format!("{SYSTEM}|PH-123456789"),
                "status": "success",
                "resource": {
                    "type": "Individual",
                    "identifier": [{"system": SYSTEM, "value": "PH-123456789"}],
                    "name": {"family": "SANTOS", "given": "Maria"},
                    "birthDate": "1985-03-15"
                }
            },
            {"identifier": format!("{SYSTEM}|PH-555555555"), "status": "not_found", "error": "Individual not found"}
        ]
    })
}

#[test]
fn the_documented_request_gets_the_documented_answer_in_both_places() {
    let service = service();
    for path in ["/$bulk/export", "/api/v2/spp/$bulk/export"] {
        let response = service.send(Request::json(path, &request().to_string()));
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.header("content-type"), Some("application/json"));
        assert_eq!(response.json(), expected());
    }
    let line = r#"curl -s -X POST $BASE/api/v2/spp/\$bulk/export -u "$CREDENTIALS" -H "Content-Type: application/json" -d "$BODY""#;
    let output = Command::new("bash")
        .args(["-c", line])
        .env("BASE", service.proxy.url())
        .env("CREDENTIALS", format!("{}:{PASSWORD}", service.client))
        .env("BODY", request().to_string())
        .output()
        .unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), expected());
}

#[test]
fn a_hundred_and_one_identifiers_or_a_role_without_the_right_are_refused() {
    let service = service();
    let mut many = request();
    many["identifiers"] = (0..101).map(|n| format!("{SYSTEM}|{n}")).collect();
    outcome(&service.send(Request::json("/$bulk/export", &many.to_string())), 400);
    let other = role(&service.database, "other");
    outcome(&service.proxy.send(&Request::json("/$bulk/export", &request().to_string()).basic(&other, PASSWORD)), 403);
}
