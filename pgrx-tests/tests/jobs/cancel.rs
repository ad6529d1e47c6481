//! A cancelled import ends at any point, and commits nothing more.

use crate::job::{
    allowed, finish, hold, import, import_with, inputs, one_worker, status, wait_for_total, wait_for_workers_to_end,
    wait_until_waiting, worker,
};
use crate::source::Stalling;
use crate::support::{count, patients, rows, run, value};
use fhir_bulk_tests::{Client, wait_for};
use serde_json::json;

#[track_caller]
fn cancel(client: &mut Client, id: &str) {
    assert_eq!(value(client, &format!("SELECT bulk_import_cancel('{id}')")), "t");
    assert_eq!(status(client, id)["status"], "cancelled");
    assert_eq!(value(client, &format!("SELECT bulk_import_cancel('{id}')")), "f", "it has been");
}

#[test]
fn a_cancel_ends_a_wait_for_the_network_and_keeps_what_is_committed() {
    for (mode, kept) in [("bulk", 2000), ("transaction", 0)] {
        let (database, mut client) = one_worker();
        let source = Stalling::new(patients(1..=4000), 0.6);
        run(&mut client, "SET fhir_bulk.import_commit_rows = 1000");
        let waiting = Stalling::silent();
        let urls = [source.url(), waiting.url(), waiting.url()];
        let three = [("Patient", &urls[0][..]), ("Person", &urls[1]), ("Person", &urls[2])];
        import_with(&mut client, "stalled", &three, json!({"mode": mode}));
        wait_for_total(&mut client, "stalled", kept);
        wait_until_waiting(&mut client, "Extension");
        cancel(&mut client, "stalled");
        // The sources never went on.
        wait_for_workers_to_end(&database);
        let status = status(&mut client, "stalled");
        assert_eq!(inputs(&status), [&format!("cancelled {kept}"), "cancelled 0", "cancelled 0"], "{status}");
        assert!(status["time"]["end"].is_string());
        let stored = rows(&mut client, "SELECT count(*) FROM pg_class WHERE relname = 'patient'");
        let patients = if stored == ["1"] { count(&mut client, "SELECT count(*) FROM patient") } else { 0 };
        assert_eq!(patients, kept as i64);
        assert_eq!(rows(&mut client, "SELECT id, status FROM bulk_jobs"), ["stalled|cancelled"]);
    }
}

#[test]
fn a_cancel_ends_a_wait_for_a_lock() {
    let (database, mut client) = allowed();
    let url = database.file("one", patients(1..=10));
    run(&mut client, "SELECT bulk_create_table('Patient')");
    let mut holder = database.connect();
    run(&mut holder, "BEGIN; LOCK TABLE patient");
    import(&mut client, "blocked", &[("Patient", &url)]);
    wait_until_waiting(&mut client, "Lock");
    cancel(&mut client, "blocked");
    wait_for_workers_to_end(&database);
    run(&mut holder, "COMMIT");
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 0);
}

#[test]
fn a_cancel_that_is_rolled_back_or_is_of_another_job_stops_nothing() {
    let (_database, mut client) = one_worker();
    let source = Stalling::new(patients(1..=100), 0.5);
    let other = Stalling::new(patients(1..=100), 0.5);
    import(&mut client, "kept", &[("Patient", &source.url())]);
    import(&mut client, "next", &[("Patient", &other.url())]);
    wait_until_waiting(&mut client, "Extension");
    run(&mut client, "BEGIN; SELECT bulk_import_cancel('kept'); ROLLBACK");
    cancel(&mut client, "next");
    source.go_on();
    assert_eq!(inputs(&finish(&mut client, "kept")), ["finished 100"]);
    assert_eq!((source.requests(), other.requests()), (1, 0));
}

/// An interrupt that was not meant for the job: the batch is tried again, and no resource is counted twice.
#[test]
fn pg_cancel_backend_has_a_batch_begun_again() {
    let (_database, mut client) = allowed();
    run(&mut client, "SET fhir_bulk.import_commit_rows = 1000");
    let source = Stalling::new(patients(1..=4000), 0.6);
    import(&mut client, "interrupted", &[("Patient", &source.url())]);
    wait_for_total(&mut client, "interrupted", 2000);
    wait_until_waiting(&mut client, "Extension");
    let before = worker(&mut client);
    assert_eq!(value(&mut client, &format!("SELECT pg_cancel_backend({before})")), "t");
    wait_for("the source to be read again", || source.requests() == 2);
    assert_eq!(worker(&mut client), before, "the process goes on");
    source.go_on();
    let status = finish(&mut client, "interrupted");
    assert_eq!(inputs(&status), ["finished 4000"], "{status}");
    crate::job::assert_patients(&mut client, 4000);
}

/// A cancel that reaches a worker between two tries or two inputs must not end it: jobs would be left without a worker.
#[test]
fn a_worker_survives_any_number_of_cancels() {
    let (database, mut client) = allowed();
    run(&mut client, "SET fhir_bulk.import_commit_rows = 100");
    let url = database.file("many", patients(1..=10_000));
    let mut held = Some(hold(&database, "p-10000"));
    import(&mut client, "hit", &[("Patient", &url)]);
    let process = worker(&mut client);
    let mut other = database.connect();
    let mut committed = 0;
    wait_for("the end", || {
        let status = crate::job::status(&mut client, "hit");
        let total = status["inputs"][0]["total"].as_u64().unwrap();
        // Without progress in between the input would fail in the end.
        if total > committed {
            committed = total;
            run(&mut other, &format!("SELECT pg_cancel_backend({process})"));
        }
        // All but the last batch is committed: it has been hit.
        if total == 9900 {
            held = None;
        }
        status["status"] != "active"
    });
    let status = status(&mut client, "hit");
    assert!(held.is_none(), "the import did not wait: {status}");
    assert_eq!(inputs(&status), ["finished 10000"], "{status}");
    assert!(!database.cluster().log().contains(&format!("[{process}]  FATAL")), "the process ended");
    crate::job::assert_patients(&mut client, 10_000);
}
