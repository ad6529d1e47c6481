//! Another session's change of an id in the middle of a file, not committed when the load comes to it: the load waits,
//! and does what is right after a commit and after a rollback.

use crate::servers;
use crate::support::{count, load_sql, patients, rows, run, value};
use fhir_bulk_tests::{Client, Database, wait_for};
use std::thread;

/// What the other session does to `p-1500`.
pub const INSERT: &str = "INSERT INTO patient (id, txid, cts, ts, status, resource)
    VALUES ('p-1500', 7, '2001-01-01Z', '2001-01-01Z', 'created', '{\"theirs\": true}')";
const UPDATE: &str = "UPDATE patient SET txid = 7, resource = '{\"theirs\": true}' WHERE id = 'p-1500'";
const DELETE: &str = "DELETE FROM patient WHERE id = 'p-1500'";
const MARK_DELETED: &str = "UPDATE patient SET txid = 7, status = 'deleted' WHERE id = 'p-1500'";
const LOCK: &str = "SELECT FROM patient WHERE id = 'p-1500' FOR UPDATE";

/// Loads 3,000 lines while `p-1500` is another session's until it ends with `end`.
pub fn load_into(database: &Database, settings: &str, options: &str, change: &str, end: &str) {
    let mut client = database.connect();
    run(&mut client, settings);
    let pid = value(&mut client, "SELECT pg_backend_pid()");
    let mut other = database.connect();
    run(&mut other, "BEGIN");
    run(&mut other, change);
    let url = database.file("race", patients(1..=3000));
    let statement = load_sql(&url, &format!("'Patient', options => '{options}'"));
    let load = thread::spawn(move || value(&mut client, &statement));
    let waiting = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event_type = 'Lock'");
    let mut watcher = database.connect();
    wait_for("the load to wait for the other session", || count(&mut watcher, &waiting) == 1);
    run(&mut other, end);
    assert_eq!(load.join().unwrap(), r#"{"total": 3000}"#, "{settings} {options} {end}");
}

const OPTIONS: &[&str] = &["{}", r#"{"update": true}"#];
const STATE: &str =
    "SELECT status, resource ->> 'multipleBirthInteger', cts = '2001-01-01Z' FROM patient WHERE id = 'p-1500'";

/// An id that is new to the load, and to everybody if the other session rolls back.
fn the_load_decides(database: &Database, settings: &str) {
    let mut client = database.connect();
    run(&mut client, "SELECT bulk_create_table('Patient')");
    for options in OPTIONS {
        for end in ["COMMIT", "ROLLBACK"] {
            run(&mut client, "TRUNCATE patient, patient_history");
            load_into(database, settings, options, INSERT, end);
            let context = format!("{settings} {options} {end}");
            assert_eq!(value(&mut client, "SELECT count(*), count(DISTINCT txid) FROM patient"), "3000|1", "{context}");
            let expected = if end == "COMMIT" { "updated|1500|t" } else { "created|1500|f" };
            assert_eq!(value(&mut client, STATE), expected, "{context}");
            assert_eq!(
                count(&mut client, "SELECT count(*) FROM patient WHERE status = 'created'"),
                if end == "COMMIT" { 2999 } else { 3000 }
            );
            let kept = end == "COMMIT" && *options != "{}";
            let history = rows(&mut client, "SELECT id, txid, resource FROM patient_history");
            let expected = if kept { vec![r#"p-1500|7|{"theirs": true}"#] } else { Vec::new() };
            assert_eq!(history, expected, "{context}");
            sound(&mut client);
        }
    }
}

/// An id that the table has. The version that the load replaces is the last one committed, and that one is kept.
fn the_load_replaces_the_last_version(database: &Database, settings: &str) {
    let mut client = database.connect();
    run(&mut client, "SELECT bulk_create_table('Patient')");
    for options in OPTIONS {
        // What the load makes of it, and the version before, after a commit.
        for (change, state, before) in [
            (UPDATE, "updated|1500|t", Some(r#"p-1500|7|created|{"theirs": true}"#)),
            (MARK_DELETED, "recreated|1500|t", Some(r#"p-1500|7|deleted|{"old": true}"#)),
            (DELETE, "created|1500|f", None),
            (LOCK, "updated|1500|t", Some(r#"p-1500|0|created|{"old": true}"#)),
        ] {
            for end in ["COMMIT", "ROLLBACK"] {
                run(&mut client, "TRUNCATE patient, patient_history");
                run(
                    &mut client,
                    "INSERT INTO patient (id, txid, cts, ts, status, resource) SELECT 'p-' || n, 0, '2001-01-01Z',
                     '2001-01-01Z', 'created', '{\"old\": true}' FROM generate_series(1499, 1501) AS n",
                );
                load_into(database, settings, options, change, end);
                let context = format!("{settings} {options} {change} {end}");
                let (state, before) = match end {
                    "COMMIT" => (state, before),
                    _ => ("updated|1500|t", Some(r#"p-1500|0|created|{"old": true}"#)),
                };
                assert_eq!(value(&mut client, STATE), state, "{context}");
                assert_eq!(
                    value(
                        &mut client,
                        "SELECT count(*), count(DISTINCT txid), count(*) FILTER (WHERE cts = '2001-01-01Z' AND id <> 'p-1500') FROM patient"
                    ),
                    "3000|1|2",
                    "{context}"
                );
                let history = rows(&mut client, "SELECT id, txid, status, resource FROM patient_history ORDER BY id");
                let mut expected = Vec::new();
                if *options != "{}" {
                    expected.push(r#"p-1499|0|created|{"old": true}"#);
                    expected.extend(before);
                    expected.push(r#"p-1501|0|created|{"old": true}"#);
                }
                assert_eq!(history, expected, "{context}");
                sound(&mut client);
            }
        }
    }
}

fn sound(client: &mut Client) {
    assert_eq!(value(client, "SELECT bt_index_check('patient_pkey', true)"), "");
    assert_eq!(rows(client, "SELECT * FROM verify_heapam('patient')"), [""; 0]);
}

const SET: &str = "SET fhir_bulk.write_path = 'set'";
const STAGED: &str = "SET fhir_bulk.write_path = 'staged'";

#[test]
fn an_id_that_another_session_is_inserting_is_waited_for_on_the_direct_path() {
    the_load_decides(&Database::new(), "");
}

#[test]
fn an_id_that_another_session_is_inserting_is_waited_for_under_logical_decoding() {
    the_load_decides(&servers::database_on(servers::decoded()), "");
}

#[test]
fn an_id_that_another_session_is_inserting_is_waited_for_on_the_set_path() {
    the_load_decides(&Database::new(), SET);
}

#[test]
fn an_id_that_another_session_is_inserting_is_waited_for_on_the_staged_path() {
    the_load_decides(&Database::new(), STAGED);
}

#[test]
fn a_row_that_another_session_is_changing_is_waited_for_on_the_direct_path() {
    the_load_replaces_the_last_version(&Database::new(), "");
}

#[test]
fn a_row_that_another_session_is_changing_is_waited_for_under_logical_decoding() {
    the_load_replaces_the_last_version(&servers::database_on(servers::decoded()), "");
}

#[test]
fn a_row_that_another_session_is_changing_is_waited_for_on_the_set_path() {
    the_load_replaces_the_last_version(&Database::new(), SET);
}

#[test]
fn a_row_that_another_session_is_changing_is_waited_for_on_the_staged_path() {
    the_load_replaces_the_last_version(&Database::new(), STAGED);
}
