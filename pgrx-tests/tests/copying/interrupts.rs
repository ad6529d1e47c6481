//! Cancels, timeouts and lost clients take effect while the client sends nothing, and leave nothing behind.

use crate::from::{copy, session};
use crate::support::{assert_error, count, patients, rows, run};
use fhir_bulk_tests::{Client, Database, error, wait_for};
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

/// Whether a process of the server waits for its client inside of a COPY.
fn waits_in_copy(watcher: &mut Client, pid: i64) -> bool {
    let query = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND state = 'active' AND wait_event = 'Extension'"
    );
    count(watcher, &query) == 1
}

#[test]
fn a_cancel_takes_effect_while_the_client_sends_nothing_and_the_session_goes_on() {
    let database = Database::new();
    let mut client = session(&database);
    let mut watcher = database.connect();
    let pid = count(&mut client, "SELECT pg_backend_pid()");
    for sent in ["".to_owned(), patients(1..=1000), "{\"id\": \"half".to_owned()] {
        let mut writer = client.copy_in("COPY bulk_resource FROM STDIN (FORMAT fhir)").unwrap();
        writer.write_all(sent.as_bytes()).unwrap();
        writer.flush().unwrap();
        wait_for("the COPY to wait for its client", || waits_in_copy(&mut watcher, pid));
        run(&mut watcher, &format!("SELECT pg_cancel_backend({pid})"));
        // Without a word from the client.
        wait_for("the cancel to take effect", || {
            count(
                &mut watcher,
                &format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND xact_start IS NOT NULL"),
            ) == 0
        });
        assert_error(&error(writer.finish()), "57014", &["canceling statement due to user request"]);
    }
    assert_eq!(rows(&mut client, "SELECT to_regclass('patient')"), ["∅"]);
    assert_eq!(copy(&mut client, "COPY bulk_resource FROM STDIN (FORMAT fhir)", patients(1..=3)), 3);
}

#[test]
fn a_statement_timeout_takes_effect_while_the_client_sends_nothing() {
    let database = Database::new();
    let mut client = session(&database);
    run(&mut client, "SET statement_timeout = 300");
    let mut watcher = database.connect();
    let pid = count(
        &mut watcher,
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
    );
    let writer = client.copy_in("COPY bulk_resource FROM STDIN (FORMAT fhir)").unwrap();
    wait_for("the timeout to take effect", || {
        count(
            &mut watcher,
            &format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND xact_start IS NOT NULL"),
        ) == 0
    });
    assert_error(&error(writer.finish()), "57014", &["statement timeout"]);
}

#[test]
fn a_client_that_gives_up_or_goes_away_leaves_nothing() {
    let database = Database::new();
    let mut client = session(&database);
    let mut watcher = database.connect();
    let mut writer = client.copy_in("COPY bulk_resource FROM STDIN (FORMAT fhir)").unwrap();
    writer.write_all(patients(1..=50_000).as_bytes()).unwrap();
    drop(writer); // CopyFail
    assert_eq!(rows(&mut client, "SELECT to_regclass('patient')"), ["∅"]);
    let psql = |command: &str| {
        Command::new(fhir_bulk_tests::bin("psql"))
            .args([
                "-X",
                "-d",
                &database.cluster().dsn("postgres", database.name()),
                "-c",
                "SELECT bulk_load_result()",
                "-c",
                command,
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let copying = |watcher: &mut Client| {
        count(
            watcher,
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY%' AND state = 'active' AND pid <> pg_backend_pid()",
        )
    };
    let mut client = psql("COPY bulk_resource FROM STDIN (FORMAT fhir)");
    client.stdin.as_mut().unwrap().write_all(patients(1..=50_000).as_bytes()).unwrap();
    wait_for("the COPY to begin", || copying(&mut watcher) == 1);
    client.kill().unwrap();
    client.wait().unwrap();
    wait_for("the COPY of the lost client to end", || copying(&mut watcher) == 0);
    assert_eq!(rows(&mut watcher, "SELECT to_regclass('patient')"), ["∅"]);
    // One that is gone while it reads.
    let mut client = session(&database);
    copy(&mut client, "COPY bulk_resource FROM STDIN (FORMAT fhir)", patients(1..=50_000));
    let mut reader = psql("COPY patient TO STDOUT (FORMAT fhir)");
    reader.stdout.as_mut().unwrap().read_exact(&mut [0; 1000]).unwrap();
    wait_for("the COPY to begin", || copying(&mut watcher) == 1);
    reader.kill().unwrap();
    reader.wait().unwrap();
    wait_for("the COPY of the lost reader to end", || copying(&mut watcher) == 0);
}

#[test]
fn a_client_that_does_not_read_can_be_terminated_also_after_a_cancel_or_a_timeout() {
    let database = Database::new();
    let mut client = session(&database);
    copy(&mut client, "COPY bulk_resource FROM STDIN (FORMAT fhir)", patients(1..=50_000));
    let mut watcher = database.connect();
    for before in ["", "SET statement_timeout = 3000", "cancel"] {
        let settings = if before == "cancel" { "" } else { before };
        let mut stalled = Command::new(fhir_bulk_tests::bin("psql"))
            .args(["-X", "-d", &database.cluster().dsn("postgres", database.name()), "-c", "SELECT bulk_load_result()"])
            .args(["-c", settings, "-c", "COPY patient TO STDOUT (FORMAT fhir)"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let copying = |more: &str| {
            format!(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY patient TO%'
                 AND state = 'active' AND pid <> pg_backend_pid() {more}"
            )
        };
        wait_for("the COPY to stall", || rows(&mut watcher, &copying("AND wait_event = 'Extension'")).len() == 1);
        if before == "cancel" {
            run(&mut watcher, &format!("SELECT pg_cancel_backend(pid) FROM ({}) o", copying("")));
        }
        if !before.is_empty() {
            // Until well after the request, which ends the COPY at once only if the connection takes the report of the error.
            let within = "AND query_start > clock_timestamp() - interval '3500 ms'";
            wait_for("the request to be there", || rows(&mut watcher, &copying(within)).is_empty());
        }
        run(&mut watcher, &format!("SELECT pg_terminate_backend(pid) FROM ({}) o", copying("")));
        wait_for("the COPY to end", || rows(&mut watcher, &copying("")).is_empty());
        stalled.kill().unwrap();
        stalled.wait().unwrap();
    }
}

#[test]
fn a_program_that_hangs_can_be_cancelled() {
    let database = Database::new();
    let mut client = session(&database);
    copy(&mut client, "COPY bulk_resource FROM STDIN (FORMAT fhir)", patients(1..=50_000));
    let pid = count(&mut client, "SELECT pg_backend_pid()");
    let mut watcher = database.connect();
    for statement in
        ["COPY patient FROM PROGRAM 'sleep 1000' (FORMAT fhir)", "COPY patient TO PROGRAM 'sleep 1000' (FORMAT fhir)"]
    {
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| client.simple_query(statement).map(drop));
            wait_for("the program to hang", || waits_in_copy(&mut watcher, pid));
            run(&mut watcher, &format!("SELECT pg_cancel_backend({pid})"));
            assert_error(&error(waits.join().unwrap()), "57014", &["user request"]);
        });
    }
    // Neither child is left, alive or dead.
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    assert_eq!(children.trim(), "");
}
