//! Another session's insert of an id in the middle of a file, not committed when the load comes to it: the load
//! waits, and does what is right after a commit and after a rollback.

use crate::servers;
use crate::support::{count, load_sql, patients, rows, run, value};
use fhir_bulk_tests::{Client, Database, wait_for};
use std::thread;

/// Loads 3,000 lines while `p-1500` is another session's until it ends with `end`.
pub fn load_into(database: &Database, settings: &str, options: &str, end: &str) {
    let mut client = database.connect();
    run(&mut client, settings);
    let pid = value(&mut client, "SELECT pg_backend_pid()");
    let mut other = database.connect();
    run(&mut other, "BEGIN");
    run(
        &mut other,
        "INSERT INTO patient (id, txid, cts, ts, status, resource)
             VALUES ('p-1500', 0, '2001-01-01Z', '2001-01-01Z', 'created', '{\"theirs\": true}')",
    );
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

fn the_load_decides(database: &Database, settings: &str, all_options: &[&str]) {
    let mut client = database.connect();
    run(&mut client, "SELECT bulk_create_table('Patient'); CREATE SEQUENCE transaction_id_seq");
    for options in all_options {
        for end in ["COMMIT", "ROLLBACK"] {
            run(&mut client, "TRUNCATE patient, patient_history");
            load_into(database, settings, options, end);
            let context = format!("{settings} {options} {end}");
            assert_eq!(value(&mut client, "SELECT count(*), count(DISTINCT txid) FROM patient"), "3000|1", "{context}");
            let expected = if end == "COMMIT" { "updated|1500|t" } else { "created|1500|f" };
            assert_eq!(
                value(
                    &mut client,
                    "SELECT status, resource ->> 'multipleBirthInteger', cts = '2001-01-01Z' FROM patient WHERE id = 'p-1500'"
                ),
                expected,
                "{context}"
            );
            assert_eq!(
                count(&mut client, "SELECT count(*) FROM patient WHERE status = 'created'"),
                if end == "COMMIT" { 2999 } else { 3000 }
            );
            let kept = end == "COMMIT" && *options != "{}";
            let history = rows(&mut client, "SELECT id, txid, resource FROM patient_history");
            let expected = if kept { vec![r#"p-1500|0|{"theirs": true}"#] } else { Vec::new() };
            assert_eq!(history, expected, "{context}");
            sound(&mut client);
        }
    }
}

fn sound(client: &mut Client) {
    assert_eq!(value(client, "SELECT bt_index_check('patient_pkey', true)"), "");
    assert_eq!(rows(client, "SELECT * FROM verify_heapam('patient')"), [""; 0]);
}

#[test]
fn an_id_that_another_session_is_inserting_is_waited_for_on_the_direct_path() {
    the_load_decides(&Database::new(), "", OPTIONS);
}

#[test]
fn an_id_that_another_session_is_inserting_is_waited_for_under_logical_decoding() {
    the_load_decides(&servers::database_on(servers::decoded()), "", OPTIONS);
}

#[test]
fn an_id_that_another_session_is_inserting_is_waited_for_on_the_set_path() {
    the_load_decides(&Database::new(), "SET fhir_bulk.write_path = 'set'", OPTIONS);
}

#[test]
fn an_id_that_another_session_is_inserting_is_waited_for_on_the_staged_path() {
    // Without history: rows are copied there before they are replaced, so what comes between is not.
    the_load_decides(&Database::new(), "SET fhir_bulk.write_path = 'staged'", &OPTIONS[..1]);
}
