//! A dump that waits for a table returns the rows after the wait, like a SELECT.

use crate::support::{aidbox_tables, load_sql, patients, rows, run, value};
use fhir_bulk_tests::{Client, Database, wait_for};

/// Reads, each with its result for a number of patients.
const READS: [&str; 7] = [
    "SELECT count(*) FROM patient",
    "SELECT count(*) FROM (SELECT bulk_dump('Patient')) t",
    "SELECT count(*) FROM (SELECT bulk_dump('Patient', '1999-01-01')) t",
    "SELECT sum(length(c)) FROM (SELECT bulk_dump_chunks('Patient', fhir => true) c) t",
    "SELECT count(*) - 1 FROM (SELECT dump_csv('Patient')) t",
    "SELECT count(*) FROM (SELECT dump_sql('SELECT id FROM patient')) t",
    "SELECT count(*) FROM (SELECT dump_sql_chunks('SELECT id FROM seen_patient', 'ndjson', chunk_bytes => 1024)) t",
];

/// Changes to the table in another transaction, for which a read must wait.
fn changes(database: &Database) -> [String; 5] {
    let load = load_sql(&database.file("more", patients(1..=300)), "'Patient'");
    let one_more = "INSERT INTO patient (id, txid, status, resource)
        SELECT 'more-' || count(*), 1, 'created', '{}' FROM patient";
    [
        // The table stays where it is.
        format!("LOCK TABLE patient; DELETE FROM patient; {load}; {one_more}; {one_more}"),
        format!("ALTER TABLE patient ADD COLUMN IF NOT EXISTS seen boolean; {one_more}"),
        format!("TRUNCATE patient; {load}"),
        "ALTER TABLE patient ALTER COLUMN txid TYPE numeric".to_owned(),
        "ALTER TABLE patient ALTER COLUMN txid TYPE bigint".to_owned(),
    ]
}

fn waits(admin: &mut Client, pid: &str) -> bool {
    value(admin, &format!("SELECT EXISTS (SELECT FROM pg_locks WHERE pid = {pid} AND NOT granted)")) == "t"
}

/// Runs a statement that must wait for `other`, which is then committed. Returns the statement's result.
fn after_waiting(mut reader: Client, statement: &str, other: &mut Client, admin: &mut Client) -> Vec<String> {
    let pid = value(&mut reader, "SELECT pg_backend_pid()");
    let statement = statement.to_owned();
    let reading = std::thread::spawn(move || rows(&mut reader, &statement));
    wait_for("the read to wait", || waits(admin, &pid));
    run(other, "COMMIT");
    reading.join().unwrap()
}

#[test]
fn a_read_that_waited_for_a_truncate_or_a_rewrite_or_a_lock_shows_what_is_there_then() {
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
                let found = after_waiting(reader, read, &mut other, &mut admin).remove(0);
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
    let asked = r#"SELECT bulk_export_identifiers('{"type": "Patient", "identifiers": ["s|v"]}') ->> 'successful'"#;
    assert_eq!(after_waiting(database.connect(), asked, &mut other, &mut admin), ["1"]);
    // Neither a new table nor a new file of it.
    run(&mut other, "DELETE FROM patient");
    run(&mut other, &format!("BEGIN; LOCK TABLE patient; {load}"));
    assert_eq!(after_waiting(database.connect(), asked, &mut other, &mut admin), ["1"]);
}

/// A cursor of a plain query has its table locked from the beginning.
#[test]
fn a_cursor_whose_table_was_loaded_anew_before_its_first_row_is_not_empty() {
    let database = Database::new();
    let (mut admin, mut other) = (database.connect(), database.connect());
    aidbox_tables(&mut admin, &["Patient"]);
    let load = load_sql(&database.file("patients", patients(1..=3)), "'Patient'");
    run(&mut admin, &load);
    for read in ["bulk_dump('Patient')", "dump_sql('SELECT id FROM patient')"] {
        for is_own in [true, false] {
            run(&mut admin, &format!("BEGIN; DECLARE mine CURSOR FOR SELECT {read}"));
            let writer = if is_own { &mut admin } else { &mut other };
            let (begin, end) = if is_own { ("SAVEPOINT s", "RELEASE s") } else { ("BEGIN", "COMMIT") };
            run(writer, &format!("{begin}; TRUNCATE patient; {load}; {end}"));
            assert_eq!(rows(&mut admin, "FETCH ALL FROM mine").len(), 3, "{read}, {is_own}");
            run(&mut admin, "COMMIT");
        }
    }
}

/// With no row before the wait, an old snapshot would return nothing.
#[test]
fn a_read_that_waited_for_the_first_load_is_not_empty() {
    let database = Database::new();
    let (mut admin, mut other) = (database.connect(), database.connect());
    aidbox_tables(&mut admin, &["Patient"]);
    let load = load_sql(&database.file("patients", patients(1..=3)), "'Patient'");
    run(&mut other, &format!("BEGIN; LOCK TABLE patient; {load}"));
    let read = "SELECT bulk_dump('Patient')";
    assert_eq!(after_waiting(database.connect(), read, &mut other, &mut admin).len(), 3);
}

#[test]
fn a_statement_that_waited_and_writes_what_it_reads_ends() {
    let database = Database::new();
    let (mut admin, mut other) = (database.connect(), database.connect());
    aidbox_tables(&mut admin, &["Patient"]);
    run(&mut admin, &load_sql(&database.file("patients", patients(1..=2000)), "'Patient'"));
    // What the trigger does makes visible what comes after it to later reads of the same statement.
    run(
        &mut admin,
        "CREATE TABLE noted (); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN INSERT INTO noted DEFAULT VALUES; RETURN NULL; END $$;
         CREATE TRIGGER note BEFORE INSERT ON patient FOR EACH STATEMENT EXECUTE FUNCTION note()",
    );
    run(&mut other, "BEGIN; LOCK TABLE patient; DELETE FROM patient WHERE id = 'p-1'");
    let copy = "WITH copied AS (INSERT INTO patient (id, txid, status, resource)
            SELECT 'copy-' || (line ->> 'id'), 1, 'created', line - 'id' - 'meta'
            FROM (SELECT bulk_dump('Patient')::jsonb AS line) AS d RETURNING 1)
        SELECT count(*) FROM copied";
    assert_eq!(after_waiting(database.connect(), copy, &mut other, &mut admin), ["1999"]);
}

/// A session that locks the catalogue does not block reads of tables.
#[test]
fn a_dump_needs_no_right_but_that_on_its_table() {
    let database = Database::new();
    let mut admin = database.connect();
    let role = database.role("reader");
    aidbox_tables(&mut admin, &["Patient"]);
    run(&mut admin, &load_sql(&database.file("patients", patients(1..=3)), "'Patient'"));
    run(&mut admin, &format!("REVOKE SELECT ON pg_class FROM PUBLIC; GRANT SELECT ON patient TO {role}"));
    let mut client = database.connect_as(&role);
    for read in ["SELECT bulk_dump('Patient')", "SELECT dump_sql('SELECT id FROM patient')"] {
        assert_eq!(rows(&mut client, read).len(), 3, "{read}");
    }
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
