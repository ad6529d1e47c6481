//! A server that is down, or ends in the middle.

use super::importing::assert_patients;
use crate::exports::{export, files, finish as finish_export, with_location_on};
use crate::job::{finish, import, inputs, status, wait_for_total};
use crate::nodes::{database_on, distributed, start, wait_for_recovery};
use crate::support::{count, fails, load, load_fails, patients, run, value};
use fhir_bulk_tests::citus::Nodes;
use fhir_bulk_tests::{Client, Database, wait_for};
use serde_json::json;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Servers that one test at a time may end.
pub fn fragile() -> MutexGuard<'static, Nodes> {
    static FRAGILE: OnceLock<Mutex<Nodes>> = OnceLock::new();
    let nodes = FRAGILE.get_or_init(|| Mutex::new(start())).lock().unwrap_or_else(PoisonError::into_inner);
    // A test that failed may have left some of them down.
    for node in nodes.all() {
        if !node.is_running() {
            node.start_server();
        }
    }
    nodes
}

/// A database on them, with distributed patients and a folder for exports.
pub fn place(nodes: &Nodes) -> (Database, Client) {
    let database = database_on(nodes);
    let _ = distributed(&database, "Patient");
    with_location_on(database)
}

/// Whether the coordinator's log has a line with all of these.
fn logged(nodes: &Nodes, pieces: &[&str]) -> bool {
    nodes.coordinator.log().lines().any(|line| pieces.iter().all(|piece| line.contains(piece)))
}

#[test]
fn with_a_worker_that_is_down_every_statement_says_which_and_nothing_is_half_loaded() {
    let nodes = fragile();
    let (database, mut client) = place(&nodes);
    load(&mut client, &database.file("first", patients(1..=1000)), "'Patient'");
    let url = database.file("second", patients(501..=3000));
    let port = nodes.workers[1].port().to_string();
    nodes.workers[1].stop_server("immediate");
    // With the connection of before, and without.
    for mut session in [client, database.connect()] {
        for options in ["{}", r#"{"update": true}"#, r#"{"on_error": "skip"}"#] {
            let error = load_fails(&mut session, &url, &format!("'Patient', options => '{options}'"));
            assert!(error.code().code().starts_with("08"), "{error:?}");
            assert!(error.message().contains(&port), "{error:?}");
        }
        for query in [
            "SELECT bulk_dump('Patient')",
            "SELECT dump_sql('SELECT id FROM patient')",
            "SELECT bulk_create_table('Device')",
        ] {
            let error = fails(&mut session, query);
            assert!(error.code().code().starts_with("08") && error.message().contains(&port), "{query}: {error:?}");
        }
    }
    nodes.workers[1].start_server();
    let mut client = database.connect();
    wait_for_recovery(&nodes, &database);
    assert_patients(&mut client, 1000);
    assert_eq!(value(&mut client, "SELECT to_regclass('device') IS NULL"), "t");
    assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 2500}"#);
    assert_patients(&mut client, 3000);
}

#[test]
fn an_import_goes_on_when_a_worker_that_was_down_is_back() {
    let nodes = fragile();
    let (database, mut client) = place(&nodes);
    run(&mut client, "SET fhir_bulk.import_commit_rows = 1000");
    let url = database.file("all", patients(1..=30_000));
    let id = format!("of_{}", database.name());
    // It waits for this row, and so does not end before the worker does.
    let mut holder = database.connect();
    run(
        &mut holder,
        "BEGIN; INSERT INTO patient (id, txid, cts, ts, status, resource) VALUES ('p-30000', 1, now(), now(), 'created', '{}')",
    );
    import(&mut client, &id, &[("Patient", &url)]);
    wait_for_total(&mut client, &id, 2000);
    nodes.workers[0].kill_server();
    drop(holder);
    let port = nodes.workers[0].port().to_string();
    wait_for("the import to have met the failure", || {
        let shown = status(&mut client, &id);
        assert_eq!(shown["status"], "active", "{shown}");
        logged(&nodes, &["begins again", &id, &port])
    });
    nodes.workers[0].start_server();
    assert_eq!(inputs(&finish(&mut client, &id)), ["finished 30000"]);
    wait_for_recovery(&nodes, &database);
    assert_patients(&mut client, 30_000);
}

#[test]
fn an_import_goes_on_after_the_coordinator_was_killed() {
    let nodes = fragile();
    let (database, mut client) = place(&nodes);
    run(&mut client, "SET fhir_bulk.import_commit_rows = 1000");
    let url = database.file("all", patients(1..=30_000));
    import(&mut client, "job", &[("Patient", &url)]);
    wait_for_total(&mut client, "job", 2000);
    nodes.coordinator.kill_server();
    nodes.coordinator.start_server();
    let mut client = database.connect();
    assert_eq!(inputs(&finish(&mut client, "job")), ["finished 30000"]);
    wait_for_recovery(&nodes, &database);
    assert_patients(&mut client, 30_000);
}

#[test]
fn an_export_is_whole_or_not_there_when_a_worker_is_killed() {
    let nodes = fragile();
    let (database, mut client) = place(&nodes);
    load(&mut client, &database.file("all", patients(1..=5000)), "'Patient'");
    nodes.workers[0].stop_server("immediate");
    let id = export(&mut client, &json!({"_type": "Patient"}));
    wait_for("the export to have met the failure", || logged(&nodes, &["starts again", &id]));
    assert_eq!(files(&database), [""; 0]);
    nodes.workers[0].start_server();
    let status = finish_export(&mut client, &id);
    assert_eq!(status["status"], "completed", "{status}");
    assert_eq!(status["output"][0]["count"], 5000);
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 5000);
}
