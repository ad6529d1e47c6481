//! Exports of distributed tables, and what the next increment could miss.

use crate::exports::{done, download, ids, lines, with_location_on};
use crate::nodes::{database, distributed, shared};
use crate::support::{load, patients, run, value};
use fhir_bulk_tests::{Client, Database};
use serde_json::{Value, json};

/// A database with distributed patients and a folder for exports.
fn with_exports() -> (Database, Client) {
    let database = database();
    let _ = distributed(&database, "Patient");
    with_location_on(database)
}

fn warnings(client: &mut Client, status: &Value) -> Vec<String> {
    let files = status["error"].as_array().unwrap();
    let lines = files.iter().flat_map(|file| {
        let text = String::from_utf8(download(client, &file["url"])).unwrap();
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    });
    lines.map(|outcome| outcome["issue"][0]["diagnostics"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_export_has_what_a_dump_has() {
    let (database, mut client) = with_exports();
    let observations: String = (1..=4000)
        .map(|n| format!("{{\"resourceType\":\"Observation\",\"id\":\"o-{n}\",\"subject\":{{\"reference\":\"Patient/p-{}\"}}}}\n", n % 2000))
        .collect();
    let url = database.file("all", patients(1..=5000) + &observations);
    load(&mut client, &url, "null, fhir => true");
    run(
        &mut client,
        "UPDATE patient SET status = 'deleted', ts = now() WHERE id LIKE 'p-3%'; SET fhir_bulk.export_workers = 2",
    );
    for request in [json!({}), json!({"organizeOutputBy": "Patient"}), json!({"level": "patient"})] {
        let status = done(&mut client, &request);
        if request["organizeOutputBy"].is_null() {
            for name in ["Patient", "Observation"] {
                let (mut found, mut expected) =
                    (lines(&mut client, &status, name), crate::exports::dump(&mut client, name));
                // Observation/o-2000 refers to no patient.
                if request["level"] == "patient" {
                    expected.retain(|line| !line.contains("Patient/p-0"));
                    found.retain(|line| !line.contains("Patient/p-0"));
                }
                found.sort();
                expected.sort();
                assert!(found == expected, "{request} {name}: {} {}", found.len(), expected.len());
            }
        }
        assert_eq!(warnings(&mut client, &status), [""; 0], "{request}");
    }
    let filtered =
        done(&mut client, &json!({"_type": "Observation", "_typeFilter": ["Observation?subject=Patient/p-7"]}));
    assert_eq!(ids(&mut client, &filtered, "Observation"), ["o-2007", "o-7"]);
}

/// A transaction may write on a worker alone: Citus lets every server distribute statements.
#[test]
fn an_increment_has_what_a_transaction_on_a_worker_wrote_that_was_open_during_the_export_before() {
    let (database, mut client) = with_exports();
    load(&mut client, &database.file("known", patients(1..=100)), "'Patient'");
    for number in 0..2 {
        let mut worker = shared().on_worker(number, &database);
        let id = format!("late-{number}");
        run(
            &mut worker,
            &format!(
                "BEGIN; INSERT INTO patient (id, txid, cts, ts, status, resource)
                 VALUES ('{id}', 1, now(), now(), 'created', '{{}}')"
            ),
        );
        let began = value(&mut worker, "SELECT extract(epoch FROM now())");
        // What is begun later must not hide it.
        load(&mut client, &database.file("more", patients(101..=200)), "'Patient'");
        let status = done(&mut client, &json!({"_type": "Patient"}));
        assert_eq!(warnings(&mut client, &status), [""; 0]);
        assert!(!ids(&mut client, &status, "Patient").contains(&id));
        let time = status["transactionTime"].as_str().unwrap().to_owned();
        let is_before = format!("SELECT extract(epoch FROM '{time}'::timestamptz) <= {began}");
        assert_eq!(value(&mut client, &is_before), "t", "{time}, {began}");
        run(&mut worker, "COMMIT");
        let next = done(&mut client, &json!({"_type": "Patient", "_since": time}));
        assert!(ids(&mut client, &next, "Patient").contains(&id));
    }
}

#[test]
fn an_increment_has_what_a_transaction_on_the_coordinator_wrote_that_was_open_during_the_export_before() {
    let (database, mut client) = with_exports();
    load(&mut client, &database.file("known", patients(1..=100)), "'Patient'");
    let mut other = database.connect();
    run(&mut other, "BEGIN");
    load(&mut other, &database.file("late", patients(101..=300)), "'Patient'");
    let status = done(&mut client, &json!({"_type": "Patient"}));
    assert_eq!(ids(&mut client, &status, "Patient").len(), 100);
    run(&mut other, "COMMIT");
    let next = done(&mut client, &json!({"_type": "Patient", "_since": status["transactionTime"]}));
    let late = |id: &String| {
        id.strip_prefix("p-").and_then(|number| number.parse::<u32>().ok()).is_some_and(|number| number > 100)
    };
    assert_eq!(ids(&mut client, &next, "Patient").iter().filter(|id| late(id)).count(), 200);
}

#[test]
fn an_export_warns_of_a_transaction_that_is_prepared_on_a_worker() {
    let (database, mut client) = with_exports();
    let mut worker = shared().on_worker(1, &database);
    run(&mut worker, "BEGIN; CREATE TABLE own (a int); PREPARE TRANSACTION 'of test'");
    let status = done(&mut client, &json!({"_type": "Patient"}));
    let found = warnings(&mut client, &status);
    assert!(found.len() == 1 && found[0].contains("prepared for two-phase commit"), "{found:?}");
    run(&mut worker, "ROLLBACK PREPARED 'of test'");
    let status = done(&mut client, &json!({"_type": "Patient"}));
    assert_eq!(warnings(&mut client, &status), [""; 0]);
}

#[test]
fn names_in_a_workers_search_path_change_nothing() {
    let (database, mut client) = with_exports();
    for number in 0..2 {
        let mut worker = shared().on_worker(number, &database);
        run(
            &mut worker,
            &format!(
                "SET citus.enable_ddl_propagation = off; CREATE SCHEMA evil;
                 CREATE FUNCTION evil.bad(name, name) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE ''evil''; END';
                 CREATE OPERATOR evil.= (LEFTARG = name, RIGHTARG = name, FUNCTION = evil.bad);
                 CREATE FUNCTION evil.bad(numeric, integer) RETURNS numeric LANGUAGE plpgsql AS 'BEGIN RAISE ''evil''; END';
                 CREATE OPERATOR evil.- (LEFTARG = numeric, RIGHTARG = integer, FUNCTION = evil.bad);
                 CREATE OPERATOR evil.* (LEFTARG = numeric, RIGHTARG = integer, FUNCTION = evil.bad);
                 CREATE FUNCTION evil.bad(text, text) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE ''evil''; END';
                 CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.bad);
                 CREATE OPERATOR evil.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.bad);
                 CREATE FUNCTION evil.pg_backend_pid() RETURNS integer LANGUAGE plpgsql AS 'BEGIN RAISE ''evil''; END';
                 CREATE VIEW evil.pg_stat_activity AS SELECT 1 / 0 AS pid;
                 ALTER DATABASE {} SET search_path = evil, pg_catalog, public",
                database.name()
            ),
        );
    }
    let status = done(&mut client, &json!({"_type": "Patient"}));
    assert_eq!(warnings(&mut client, &status), [""; 0]);
}
