//! An import continues from its last commit after its worker or server has ended in any way.

use crate::job::{
    allowed, assert_patients, finish, hold, import, import_with, inputs, server, wait_for_status, wait_for_total,
    wait_for_workers_to_end, worker,
};
use crate::source::Stalling;
use crate::support::{count, patients, run, value};
use fhir_bulk_tests::{Client, Database, wait_for};
use serde_json::json;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

/// A server's stop may take this time, plus three times the time of a stop during a plain COPY. A wait for the stalled
/// source would take a minute.
const SOON: Duration = Duration::from_secs(1);
/// Imports are held before the last one: there need be no more than take some batches.
const NUMBER: usize = 40_000;

/// An import from a file that is in the middle, and cannot end before the session, or the server with it, does.
fn from_a_file(mode: &str) -> (Database, Client) {
    let database = server(&[]);
    let held = hold(&database, &format!("p-{NUMBER}"));
    let mut client = database.connect();
    run(&mut client, "SET fhir_bulk.import_commit_rows = 1000");
    let url = database.file("all", patients(1..=NUMBER));
    import_with(&mut client, "job", &[("Patient", &url)], json!({"mode": mode}));
    if mode == "bulk" {
        wait_for_total(&mut client, "job", 10_000);
    } else {
        wait_for_status(&mut client, "job", "some bytes", |status| {
            status["progress"]["bytesRead"].as_u64().unwrap() > 2 << 20
        });
    }
    (database, held)
}

/// How long a server takes to stop while a session copies a file into a table; it runs again then.
fn stop_under_copy(database: &Database, mode: &str) -> Duration {
    let url = database.file("copied", patients(1..=NUMBER));
    run(&mut database.connect(), "CREATE TABLE IF NOT EXISTS copied (line text)");
    let (path, mut session) = (url.trim_start_matches("file://").to_owned(), database.connect());
    let copy = format!("COPY copied FROM '{path}' WITH (FORMAT csv, QUOTE e'\\x01', DELIMITER e'\\x02')");
    let copying = std::thread::spawn(move || while session.batch_execute(&copy).is_ok() {});
    let mut client = database.connect();
    wait_for("some rows", || {
        count(&mut client, "SELECT count(*) FROM pg_stat_progress_copy WHERE tuples_processed > 0") > 0
    });
    drop(client);
    let taken = stop(database, mode);
    copying.join().unwrap();
    database.cluster().start_server();
    taken
}

fn stop(database: &Database, mode: &str) -> Duration {
    let start = Instant::now();
    database.cluster().stop_server(mode);
    start.elapsed()
}

#[track_caller]
fn assert_soon(taken: Duration, under_copy: Duration, mode: &str) {
    println!("{mode}: {taken:?}, under COPY {under_copy:?}");
    assert!(taken < under_copy * 3 + SOON, "{mode}: {taken:?}, and under a COPY {under_copy:?}");
}

/// Connects to the database again, after its server has ended all sessions.
pub fn reconnect(database: &Database) -> Client {
    let mut client = None;
    let dsn = database.cluster().dsn("postgres", database.name());
    wait_for("the server to take connections again", || {
        client = Client::connect(&dsn, postgres::NoTls).ok();
        client.is_some()
    });
    client.unwrap()
}

fn assert_whole(database: &Database) {
    let mut client = reconnect(database);
    let status = finish(&mut client, "job");
    assert_eq!(inputs(&status), [format!("finished {NUMBER}")], "{status}");
    assert_eq!(status["status"], "finished");
    assert_patients(&mut client, NUMBER);
    drop(client);
    database.cluster().stop_server("fast");
}

#[test]
fn a_killed_worker_loses_and_doubles_nothing() {
    for mode in ["bulk", "transaction"] {
        let (database, _held) = from_a_file(mode);
        let mut witness = database.connect();
        let worker = worker(&mut witness);
        database.cluster().kill_backend(worker);
        // The server ends all sessions before it recovers.
        wait_for("the other sessions to end", || witness.simple_query("SELECT 1").is_err());
        assert_whole(&database);
    }
}

#[test]
fn a_killed_server_loses_and_doubles_nothing() {
    for mode in ["bulk", "transaction"] {
        let (database, _held) = from_a_file(mode);
        database.cluster().kill_server();
        database.cluster().start_server();
        assert_whole(&database);
    }
}

#[test]
fn a_source_that_was_altered_in_place_while_the_server_was_down_is_not_imported_on() {
    let (database, _held) = from_a_file("bulk");
    database.cluster().kill_server();
    let path = database.path("all");
    // A digit of a line that is committed.
    let before = std::fs::read_to_string(&path).unwrap();
    let at = before.lines().take(5000).map(|line| line.len() + 1).sum::<usize>() - 2;
    let at = before[..at].rfind(|c: char| c.is_ascii_digit()).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_at(if &before[at..=at] == "7" { b"8" } else { b"7" }, at as u64).unwrap();
    database.cluster().start_server();
    let mut client = reconnect(&database);
    let status = finish(&mut client, "job");
    let total = status["inputs"][0]["total"].as_u64().unwrap() as usize;
    assert!((10_000..NUMBER).contains(&total) && total.is_multiple_of(1000), "{status}");
    assert_eq!(inputs(&status), [format!("failed {total}")]);
    let reason = format!("has changed since it was first read: its lines 1 to {total} were imported as they were then");
    assert!(status["inputs"][0]["error"].as_str().unwrap().contains(&reason), "{status}");
    assert_patients(&mut client, total);
    // As what it is now it can be imported.
    import(&mut client, "anew", &[("Patient", &format!("file://{}", path.display()))]);
    assert_eq!(inputs(&finish(&mut client, "anew")), [format!("finished {NUMBER}")]);
    drop(client);
    database.cluster().stop_server("fast");
}

#[test]
fn a_server_that_is_stopped_in_the_middle_stops_soon_and_the_import_goes_on_after_its_start() {
    for mode in ["fast", "immediate"] {
        let (database, _held) = from_a_file("bulk");
        let taken = stop(&database, mode);
        database.cluster().start_server();
        assert_soon(taken, stop_under_copy(&database, mode), mode);
        assert_whole(&database);
    }
}

#[test]
fn a_server_stops_soon_while_an_import_waits_for_its_source() {
    for mode in ["fast", "immediate"] {
        let database = server(&[]);
        let under_copy = stop_under_copy(&database, mode);
        let mut client = database.connect();
        run(&mut client, "SET fhir_bulk.import_commit_rows = 1000");
        let source = Stalling::new(patients(1..=4000), 0.6);
        import(&mut client, "stalled", &[("Patient", &source.url())]);
        wait_for_total(&mut client, "stalled", 2000);
        crate::job::wait_until_waiting(&mut client, "Extension");
        drop(client);
        assert_soon(stop(&database, mode), under_copy, mode);
        database.cluster().start_server();
        source.go_on();
        let mut client = reconnect(&database);
        assert_eq!(inputs(&finish(&mut client, "stalled")), ["finished 4000"]);
        assert_eq!(source.requests(), 2);
        assert_patients(&mut client, 4000);
        assert_eq!(count(&mut client, "SELECT count(DISTINCT txid) FROM patient"), 4);
        database.cluster().stop_server("fast");
    }
}

/// While one process of a server still runs, no new server can start.
#[test]
fn a_worker_ends_with_its_server_and_the_next_one_goes_on() {
    let database = server(&[]);
    let mut client = database.connect();
    // Rows take longer to be written than to be read, so that the worker waits for nothing.
    run(
        &mut client,
        "SELECT bulk_create_table('Patient'); CREATE INDEX ON patient USING gin (resource);
         SET fhir_bulk.import_commit_rows = 1000",
    );
    let _held = hold(&database, &format!("p-{NUMBER}"));
    let url = database.file("all", patients(1..=NUMBER));
    import(&mut client, "job", &[("Patient", &url)]);
    wait_for_total(&mut client, "job", 5000);
    drop(client);
    database.cluster().kill_postmaster();
    database.cluster().start_server();
    let mut client = database.connect();
    assert_eq!(
        value(&mut client, "SELECT status FROM fhir_bulk_internal.bulk_job_task"),
        "active",
        "the worker has gone on without a server"
    );
    assert_eq!(finish(&mut client, "job")["status"], "finished");
    run(&mut client, "DROP INDEX patient_resource_idx");
    assert_patients(&mut client, NUMBER);
    database.cluster().stop_server("fast");
}

#[test]
fn workers_leave_no_lock_behind_however_they_end() {
    let (database, mut client) = allowed();
    let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'object' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND classid = (SELECT oid FROM pg_extension WHERE extname = 'fhir_bulk')";
    // At the end of its work.
    let url = database.file("some", patients(1..=10));
    import(&mut client, "ended", &[("Patient", &url)]);
    finish(&mut client, "ended");
    wait_for_workers_to_end(&database);
    assert_eq!(count(&mut client, held), 0, "after an ordinary end");
    // While it waits for bytes within a transaction.
    let source = Stalling::new(patients(1..=10), 0.5);
    import(&mut client, "stalled", &[("Patient", &source.url())]);
    wait_for("bytes to be asked for", || source.requests() > 0);
    assert!(count(&mut client, held) > 0);
    let pid = worker(&mut client);
    run(&mut client, &format!("SELECT pg_terminate_backend({pid})"));
    wait_for_workers_to_end(&database);
    assert_eq!(count(&mut client, held), 0, "after an end within a transaction");
    run(&mut client, "SELECT bulk_import_cancel('stalled')");
    // While it waits outside of one, to begin a batch again.
    let refuse = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN RAISE EXCEPTION 'again' USING ERRCODE = 'serialization_failure'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON patient FOR EACH ROW EXECUTE FUNCTION refuse()";
    run(&mut client, refuse);
    import(&mut client, "again", &[("Patient", &database.file("new", patients(11..=20)))]);
    // Asked and ended in one statement: a moment later it may be at work again.
    let terminate = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NULL
        AND backend_type = 'fhir_bulk job worker' AND pg_terminate_backend(pid)";
    wait_for("a wait between two transactions", || {
        database.cluster().log().contains("\"again\", 1 of 1 begins again") && count(&mut client, terminate) == 1
    });
    wait_for_workers_to_end(&database);
    assert_eq!(count(&mut client, held), 0, "after an end outside of transactions");
    run(&mut client, "SELECT bulk_import_cancel('again')");
}
