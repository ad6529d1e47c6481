//! Whatever ends a worker or the server: nothing of a submission is lost, doubled, or visible in part.

use super::{BASE, Source, assert_patients, complete, has_patients, kept, status, stu3, submit, wait_until};
use crate::job::{hold, server, wait_until_waiting, worker};
use crate::source::Stalling;
use crate::support::{count, patients};
use crate::survival::reconnect;
use fhir_bulk_tests::{Client, Database, wait_for};
use serde_json::json;

const NUMBER: usize = 20_000;

/// How a worker is ended.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// It alone is killed: the server restarts itself.
    Worker,
    /// All processes are killed.
    Server,
}

/// Ends the only worker. Returns a new session.
fn end(database: &Database, mut client: Client, end: End) -> Client {
    match end {
        End::Worker => {
            let worker = worker(&mut client);
            database.cluster().kill_backend(worker);
            // The server ends all sessions before it recovers.
            wait_for("the other sessions to end", || client.simple_query("SELECT 1").is_err());
        }
        End::Server => {
            database.cluster().kill_server();
            database.cluster().start_server();
        }
    }
    reconnect(database)
}

fn assert_whole(database: &Database, mut client: Client) {
    wait_until(&mut client, "s", "is applied", |status| status["status"] == "completed");
    assert_patients(&mut client, NUMBER);
    assert_eq!(count(&mut client, "SELECT count(DISTINCT txid) FROM patient"), 1);
    assert_eq!(kept(&mut client), [0, 0, 0]);
    drop(client);
    database.cluster().stop_server("fast");
}

#[test]
fn a_kill_while_files_are_fetched_loses_and_doubles_nothing() {
    for how in [End::Worker, End::Server] {
        let database = server(&["fhir_bulk.import_workers = 1"]);
        let mut client = database.connect();
        let source = Source::new();
        let first = source.file("/first", format!("x\n{}", patients(1..=NUMBER / 2)));
        let stalling = Stalling::new(patients(NUMBER / 2 + 1..=NUMBER), 0.5);
        let url = source.manifest("/m", &stu3(&[("Patient", &first), ("Patient", &stalling.url())]));
        let header = json!([{"headerName": "x-key", "headerValue": "k"}]);
        submit(&mut client, "s", json!({"manifestUrl": url, "fhirBaseUrl": BASE, "fileRequestHeader": header}));
        wait_for("the second file to be begun", || stalling.requests() == 1);
        assert_eq!(status(&mut client, "s")["status"], "in-progress");
        let mut client = end(&database, client, how);
        wait_for("it to be begun again", || {
            status(&mut client, "s");
            stalling.requests() == 2
        });
        stalling.go_on();
        let fetched = super::fetched(&mut client, "s");
        // What was fetched before is not fetched again, and its outcomes are there once.
        assert_eq!(source.seen("/first").len() + source.seen("/m").len(), 2);
        assert_eq!(fetched["outcome"][0]["countSeverity"][0]["count"], 1, "{fetched}");
        assert!(!has_patients(&mut client));
        complete(&mut client, "s");
        wait_until(&mut client, "s", "is applied", |status| status["status"] == "completed");
        assert_patients(&mut client, NUMBER);
        drop(client);
        database.cluster().stop_server("fast");
    }
}

#[test]
fn a_kill_while_it_is_applied_leaves_nothing_in_part() {
    for how in [End::Worker, End::Server] {
        let database = server(&["fhir_bulk.import_workers = 1"]);
        let mut client = database.connect();
        let source = Source::new();
        let url = source.patients("m", &patients(1..=NUMBER));
        super::add(&mut client, "s", &url);
        super::fetched(&mut client, "s");
        // All but the last batch is written, and the worker waits for its last row.
        let _held = hold(&database, &format!("p-{NUMBER}"));
        complete(&mut client, "s");
        wait_until_waiting(&mut client, "Lock");
        assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 0);
        let mut client = end(&database, client, how);
        let seen = count(&mut client, "SELECT count(*) FROM patient");
        assert!(seen == 0 || seen == NUMBER as i64, "{seen}");
        assert_whole(&database, client);
    }
}

#[test]
fn a_kill_right_after_it_was_completed_changes_nothing() {
    let database = server(&[]);
    let mut client = database.connect();
    let source = Source::new();
    let url = source.patients("m", &patients(1..=NUMBER));
    // Fetched and applied are still to come.
    submit(&mut client, "s", json!({"manifestUrl": url, "fhirBaseUrl": BASE, "submissionStatus": "completed"}));
    database.cluster().kill_server();
    database.cluster().start_server();
    assert_whole(&database, reconnect(&database));
}
