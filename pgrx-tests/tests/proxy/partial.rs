//! `allowPartialManifests` over HTTP: a manifest in pages, of which the first ones come while the export runs.

use fhir_bulk_tests::proxy::{Request, Response};
use fhir_bulk_tests::wait_for;
use serde_json::{Value, json};

use crate::exports::{download, ids, path};
use crate::support::{Service, exporting, outcome};

/// The key of the lock that observations wait for.
const GATE: i32 = 4711;

/// Four hundred patients, of 3 kB each, and observations that cannot be read while [`GATE`] is locked.
fn filled() -> Service {
    let service = exporting();
    let one = format!("ALTER DATABASE {} SET fhir_bulk.export_workers = 1", service.database.name());
    service.database.connect().batch_execute(&one).unwrap();
    let mut client = service.connect();
    client
        .batch_execute(&format!(
            "SELECT bulk_create_table('Observation');
             CREATE TYPE waiting AS (resource jsonb);
             CREATE FUNCTION opened(waiting) RETURNS jsonb LANGUAGE plpgsql AS
               $f$ BEGIN PERFORM pg_advisory_xact_lock_shared({GATE}); RETURN $1.resource; END $f$;
             CREATE CAST (waiting AS jsonb) WITH FUNCTION opened(waiting);
             ALTER TABLE observation ALTER COLUMN resource TYPE waiting USING ROW(resource)::waiting;
             INSERT INTO observation (id, txid, status, resource) VALUES ('o', 1, 'created', ROW('{{}}')::waiting);
             INSERT INTO patient (id, txid, cts, ts, status, resource) SELECT n, n, '2024-01-01Z', '2024-01-01Z', 'created',
               jsonb_build_object('text', repeat(md5(n::text), 100)) FROM generate_series(1, 400) n"
        ))
        .unwrap();
    service
}

fn kick_off(service: &Service, at: &str, prefer: &str) -> Response {
    let parameters = json!({"resourceType": "Parameters", "parameter": [
        {"name": "_type", "valueCode": "Patient"}, {"name": "_type", "valueCode": "Observation"},
        {"name": "allowPartialManifests", "valueBoolean": true}, {"name": "_maximumFileSize", "valueInteger": 65536}]});
    service.send(Request::post(at, "application/fhir+json", parameters.to_string()).header("Prefer", prefer))
}

/// The answer to a poll that is not one too many.
fn polled(service: &Service, at: &str) -> Response {
    let mut last = None;
    wait_for("a poll to be answered", || {
        let response = service.send(Request::get(at));
        let is_answered = response.status != 429;
        last = Some(response);
        is_answered
    });
    last.unwrap()
}

fn next(manifest: &Value) -> Option<String> {
    let link = manifest["link"].as_array()?;
    assert_eq!((link.len(), &link[0]["relation"]), (1, &json!("next")), "{manifest}");
    Some(path(link[0]["url"].as_str().unwrap()).to_owned())
}

/// A manifest without what may change: the signatures of URLs.
fn fixed(manifest: &Value) -> Value {
    let mut fixed = manifest.clone();
    for file in fixed["output"].as_array_mut().unwrap() {
        file["url"] = file["url"].as_str().unwrap().split('?').next().unwrap().into();
    }
    fixed
}

/// The manifest of a page that is shown while the export runs.
fn early(service: &Service, at: &str) -> Value {
    let mut last = Value::Null;
    wait_for("a page", || {
        let response = polled(service, at);
        assert_eq!(response.status, 202, "{}", response.text());
        assert!(response.header("x-progress").is_some() && response.header("retry-after").is_some(), "{response:?}");
        let has_body = !response.text().is_empty();
        if has_body {
            assert_eq!(response.header("content-type"), Some("application/json"));
            last = response.json();
        }
        has_body
    });
    last
}

#[test]
fn pages_of_a_manifest_come_while_the_export_runs_and_stay_as_they_are() {
    let service = filled();
    let mut gate = service.connect();
    gate.batch_execute(&format!("SELECT pg_advisory_lock({GATE})")).unwrap();
    let started = kick_off(&service, "/fhir/$export", "respond-async");
    assert_eq!(started.status, 202, "{}", started.text());
    let status = path(started.header("content-location").unwrap()).to_owned();
    let mut pages = vec![(status.clone(), early(&service, &status))];
    let mut at = next(&pages[0].1).unwrap();
    for files in [2, 4, 8] {
        let page = early(&service, &at);
        assert_eq!(page["output"].as_array().unwrap().len(), files);
        let following = next(&page).unwrap();
        pages.push((std::mem::replace(&mut at, following), page));
    }
    assert_eq!(pages[0].1["output"].as_array().unwrap().len(), 1);
    let mut read = Vec::new();
    for (_, page) in &pages {
        assert_eq!((&page["deleted"], &page["error"]), (&json!([]), &json!([])));
        assert_eq!(
            (&page["transactionTime"], &page["request"]),
            (&pages[0].1["transactionTime"], &pages[0].1["request"])
        );
        for file in page["output"].as_array().unwrap() {
            let response = download(&service, &file["url"]);
            assert_eq!((response.status, response.is_whole), (200, true), "{}", response.text());
            assert_eq!(response.text().lines().count() as u64, file["count"], "{file}");
            read.push(file["url"].clone());
        }
    }
    assert_eq!(read.len(), 15);
    // A page of which not all files are there has no body yet, and there is none beyond.
    wait_for("an answer without a body", || {
        let response = polled(&service, &format!("{status}?page=9"));
        (response.status, response.text().as_str()) == (202, "")
    });

    gate.batch_execute(&format!("SELECT pg_advisory_unlock({GATE})")).unwrap();
    wait_for("the export to end", || polled(&service, &status).status == 200);
    for (at, page) in &pages {
        let response = polled(&service, at);
        assert!(response.status == 200 && response.header("expires").is_some(), "{response:?}");
        assert_eq!(fixed(&response.json()), fixed(page), "{at}");
    }
    let mut all: Vec<Value> = pages.iter().flat_map(|(_, page)| page["output"].as_array().unwrap().clone()).collect();
    let mut last = pages.len();
    loop {
        let response = polled(&service, &at);
        assert_eq!(response.status, 200, "{}", response.text());
        let page = response.json();
        all.extend(page["output"].as_array().unwrap().clone());
        last += 1;
        let Some(following) = next(&page) else { break };
        at = following;
    }
    let manifest = json!({"output": all});
    assert_eq!((ids(&service, &manifest, "Patient").len(), ids(&service, &manifest, "Observation").len()), (403, 1));
    outcome(&polled(&service, &format!("{status}?page={}", last + 1)), 404);
    for nonsense in ["0", "-1", "x", "99999999999999999999"] {
        outcome(&polled(&service, &format!("{status}?page={nonsense}")), 400);
    }
    assert_eq!(service.send(Request::new("DELETE", &status)).status, 202);
    for (at, _) in &pages {
        outcome(&polled(&service, at), 404);
    }
}

#[test]
fn pages_keep_what_the_kick_off_asked_of_its_status_and_its_version() {
    let service = filled();
    let mut gate = service.connect();
    gate.batch_execute(&format!("SELECT pg_advisory_lock({GATE})")).unwrap();
    let started = kick_off(&service, "/fhir/$export-v4", "respond-async, separate-export-status");
    assert_eq!(started.status, 202, "{}", started.text());
    let mut at = path(started.header("content-location").unwrap()).to_owned();
    for files in [1, 2] {
        let mut page = Value::Null;
        wait_for("a page", || {
            let response = polled(&service, &at);
            assert_eq!(response.status, 200, "{}", response.text());
            assert_eq!(response.header("x-export-status"), Some("202 Accepted"));
            let has_body = !response.text().is_empty();
            if has_body {
                page = response.json();
            }
            has_body
        });
        assert!(page["manifestType"].is_string() && page["output"][0]["fileSize"].is_u64(), "{page}");
        assert_eq!(page["output"].as_array().unwrap().len(), files);
        at = next(&page).unwrap();
    }
    gate.batch_execute(&format!("SELECT pg_advisory_unlock({GATE})")).unwrap();
    wait_for("the export to end", || {
        let response = polled(&service, &at);
        response.header("x-export-status") == Some("200 OK")
    });
}
