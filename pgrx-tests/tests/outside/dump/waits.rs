//! A dump that waits for a table answers with what is there after the wait, as a SELECT does.

use crate::support::{aidbox_tables, load_sql, patients, rows, run, value};
use fhir_bulk_tests::{Client, Database, wait_for};

/// Reads, each with what it answers for a number of patients.
const READS: [&str; 6] = [
    "SELECT count(*) FROM patient",
    "SELECT count(*) FROM (SELECT bulk_dump('Patient')) t",
    "SELECT count(*) FROM (SELECT bulk_dump('Patient', '1999-01-01')) t",
    "SELECT sum(length(c)) FROM (SELECT bulk_dump_chunks('Patient', fhir => true) c) t",
    "SELECT count(*) FROM (SELECT dump_sql('SELECT id FROM patient')) t",
    "SELECT count(*) FROM (SELECT dump_sql_chunks('SELECT id FROM seen_patient', 'ndjson', chunk_bytes => 1024)) t",
];

/// What others do with the table in a transaction that a read has to wait for.
fn changes(database: &Database) -> [String; 3] {
    let load = load_sql(&database.file("more", patients(1..=300)), "'Patient'");
    [
        format!("TRUNCATE patient; {load}"),
        "ALTER TABLE patient ALTER COLUMN txid TYPE numeric".to_owned(),
        "ALTER TABLE patient ALTER COLUMN txid TYPE bigint".to_owned(),
    ]
}

fn waits(admin: &mut Client, pid: &str) -> bool {
    value(admin, &format!("SELECT EXISTS (SELECT FROM pg_locks WHERE pid = {pid} AND NOT granted)")) == "t"
}

#[test]
fn a_read_that_waited_for_a_truncate_or_a_rewrite_shows_what_is_there_then() {
    let database = Database::new();
    let mut admin = database.connect();
    aidbox_tables(&mut admin, &["Patient"]);
    run(&mut admin, &load_sql(&database.file("patients", patients(1..=200)), "'Patient'"));
    run(&mut admin, "CREATE VIEW seen_patient AS SELECT id FROM patient");
    let mut other = database.connect();
    for change in changes(&database) {
        for begin in ["", "BEGIN; SELECT 1"] {
            for read in READS {
                run(&mut other, &format!("BEGIN; {change}"));
                let mut reader = database.connect();
                run(&mut reader, begin);
                let pid = value(&mut reader, "SELECT pg_backend_pid()");
                let read_it = read.to_owned();
                let reading = std::thread::spawn(move || value(&mut reader, &read_it));
                wait_for("the read to wait", || waits(&mut admin, &pid));
                run(&mut other, "COMMIT");
                let found = reading.join().unwrap();
                assert_eq!(found, value(&mut admin, read), "{read} after {change}");
                assert!(found.parse::<u64>().unwrap() > 0, "{read} after {change}");
            }
        }
    }
}

#[test]
fn identifiers_are_found_in_a_table_that_was_loaded_anew_during_the_wait() {
    let database = Database::new();
    let mut admin = database.connect();
    aidbox_tables(&mut admin, &["Patient"]);
    let line = r#"{"id":"1","resourceType":"Patient","identifier":[{"system":"s","value":"v"}]}"#;
    let load = load_sql(&database.file("one", line), "'Patient', fhir => true");
    run(&mut admin, &load);
    let mut other = database.connect();
    run(&mut other, &format!("BEGIN; TRUNCATE patient; {load}"));
    let mut reader = database.connect();
    let pid = value(&mut reader, "SELECT pg_backend_pid()");
    let asked = r#"SELECT bulk_export_identifiers('{"type": "Patient", "identifiers": ["s|v"]}') ->> 'successful'"#;
    let reading = std::thread::spawn(move || value(&mut reader, asked));
    wait_for("the read to wait", || waits(&mut admin, &pid));
    run(&mut other, "COMMIT");
    assert_eq!(reading.join().unwrap(), "1");
}

#[test]
fn a_transaction_with_one_snapshot_keeps_it_and_own_changes_are_seen() {
    let database = Database::new();
    let (mut admin, mut other) = (database.connect(), database.connect());
    aidbox_tables(&mut admin, &["Patient"]);
    let insert = "INSERT INTO patient (id, txid, status, resource) VALUES";
    run(&mut admin, &format!("{insert} ('1', 1, 'created', '{{}}')"));
    run(&mut admin, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM patient");
    run(&mut other, &format!("{insert} ('2', 1, 'created', '{{}}')"));
    run(&mut admin, &format!("{insert} ('3', 1, 'created', '{{}}')"));
    assert_eq!(rows(&mut admin, "SELECT bulk_dump('Patient')").len(), 2);
    assert_eq!(rows(&mut admin, "SELECT dump_sql('SELECT id FROM patient ORDER BY 1')"), ["1", "3"]);
    run(&mut admin, "COMMIT");
    // What a statement itself writes, its reads do not show.
    let copy = format!(
        "{insert} ('4', 1, 'created', '{{}}') RETURNING (SELECT count(*) FROM (SELECT bulk_dump('Patient')) t)"
    );
    assert_eq!(rows(&mut admin, &copy), ["3"]);
}
