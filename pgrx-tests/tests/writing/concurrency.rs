//! Many sessions at once: each id is stored once, with the content of the last session that committed it.

use crate::support::{aidbox_tables, count, load, load_sql, patient, patients, rows, run, value};
use fhir_bulk_tests::{Client, Database};
use std::sync::{Arc, Barrier};
use std::thread;

/// Deadlocks are looked for after a second unless told otherwise.
const SOON: &str = "SET deadlock_timeout = '50ms'";

/// Runs a statement until it works; a deadlock is the one error that may come between. Who met one tries again when
/// no other such session does, so that they don't meet in it for ever.
fn run_at_last(client: &mut Client, statement: &str) {
    for round in 0..100 {
        if round > 0 {
            run(client, "SELECT pg_advisory_lock(1)");
        }
        let result = client.simple_query(statement);
        if round > 0 {
            run(client, "SELECT pg_advisory_unlock(1)");
        }
        match result {
            Ok(_) => return,
            Err(error) => assert_eq!(error.code().map(|code| code.code()), Some("40P01"), "{error:?}"),
        }
    }
    panic!("deadlocks only: {statement}");
}

/// Runs the statement of each session at the same time.
fn all_at_once(database: &Database, settings: &str, statements: Vec<String>) {
    let start = Arc::new(Barrier::new(statements.len()));
    let sessions = statements.into_iter().map(|statement| {
        let (mut client, start) = (database.connect(), start.clone());
        run(&mut client, SOON);
        run(&mut client, settings);
        thread::spawn(move || {
            start.wait();
            run_at_last(&mut client, &statement);
        })
    });
    for session in sessions.collect::<Vec<_>>() {
        session.join().unwrap();
    }
}

fn sound(client: &mut Client) {
    for index in rows(client, "SELECT indexrelid::regclass FROM pg_index WHERE indrelid = 'patient'::regclass") {
        assert_eq!(value(client, &format!("SELECT bt_index_check('{index}', true)")), "");
    }
    assert_eq!(rows(client, "SELECT * FROM verify_heapam('patient')"), [""; 0]);
}

/// Lines in an order of their own for each session, and saying which session's they are.
fn shuffled(session: usize, numbers: std::ops::RangeInclusive<usize>) -> String {
    let all: Vec<usize> = numbers.collect();
    // A step that has no divisor in common with the count visits all.
    let step = [1, 7, 11, 13, 17, 19, 23, 29][session % 8];
    let line = |at: usize| patient(&format!("p-{}", all[(at * step) % all.len()]), session) + "\n";
    assert!(!all.len().is_multiple_of(step) || step == 1);
    (0..all.len()).map(line).collect()
}

const LINES: usize = 3001;

fn overlapping(sessions: usize, settings: &str, options: &str, known: bool) {
    let database = Database::new();
    let mut client = database.connect();
    run(&mut client, "SELECT bulk_create_table('Patient')");
    if known {
        load(&mut client, &database.file("known", patients(1..=LINES)), "'Patient'");
    }
    let statements = (0..sessions)
        .map(|session| {
            let url = database.file(&format!("lines-{session}"), shuffled(session, 1..=LINES));
            load_sql(&url, &format!("'Patient', options => '{options}'"))
        })
        .collect();
    all_at_once(&database, settings, statements);
    assert_eq!(value(&mut client, "SELECT count(*), count(DISTINCT id) FROM patient"), format!("{LINES}|{LINES}"));
    // Each load is all or nothing and touched every row: the last one that committed left all of them.
    let last = rows(&mut client, "SELECT DISTINCT txid, resource ->> 'multipleBirthInteger' FROM patient");
    assert_eq!(last.len(), 1, "{last:?}");
    let statuses = rows(&mut client, "SELECT DISTINCT status FROM patient");
    assert_eq!(statuses, ["updated"]);
    if options.contains("update") {
        // Every version but the last is kept, once.
        let versions = LINES * (sessions - 1 + usize::from(known));
        assert_eq!(
            value(&mut client, "SELECT count(*), count(DISTINCT (id, txid)) FROM patient_history"),
            format!("{versions}|{versions}")
        );
    }
    sound(&mut client);
}

#[test]
fn two_sessions_loading_the_same_new_ids_lose_and_double_nothing() {
    overlapping(2, "", "{}", false);
}

#[test]
fn eight_sessions_loading_the_same_new_ids_lose_and_double_nothing() {
    overlapping(8, "", "{}", false);
}

#[test]
fn eight_sessions_loading_known_ids_lose_and_double_nothing() {
    overlapping(8, "", "{}", true);
}

#[test]
fn sessions_that_keep_versions_keep_each_of_them_once() {
    overlapping(4, "", r#"{"update": true}"#, true);
    overlapping(4, "", r#"{"update": true}"#, false);
}

#[test]
fn sessions_on_the_set_path_lose_and_double_nothing() {
    overlapping(4, "SET fhir_bulk.write_path = 'set'", "{}", false);
    overlapping(3, "SET fhir_bulk.write_path = 'set'", r#"{"update": true}"#, true);
}

#[test]
fn sessions_on_the_staged_path_lose_and_double_nothing() {
    overlapping(4, "SET fhir_bulk.write_path = 'staged'", "{}", false);
    overlapping(3, "SET fhir_bulk.write_path = 'staged'", "{}", true);
}

#[test]
fn sessions_that_need_the_same_new_tables_make_them_once() {
    let database = Database::new();
    let types = ["Patient", "Group", "Observation", "Condition", "Device"];
    let statements = (0..6)
        .map(|session| {
            let line =
                |at: usize| format!("{{\"id\":\"{session}\",\"resourceType\":\"{}\"}}\n", types[(at + session) % 5]);
            load_sql(&database.file(&format!("types-{session}"), (0..5).map(line).collect::<String>()), "")
        })
        .collect();
    all_at_once(&database, "", statements);
    let mut client = database.connect();
    for table in ["patient", "\"group\"", "observation", "condition", "device"] {
        assert_eq!(count(&mut client, &format!("SELECT count(*) FROM {table}")), 6, "{table}");
    }
}

/// Loads over and over while another session does what `meanwhile` says; then the loads' last content is there.
fn load_against(
    meanwhile: impl FnOnce(&Database, &mut Client) + Send + 'static,
    errors: &'static [&'static str],
) -> (Arc<Database>, Client) {
    let database = Arc::new(Database::new());
    let mut client = database.connect();
    aidbox_tables(&mut client, &["Patient"]);
    run(&mut client, SOON);
    let first = database.file("first", patients(1..=LINES));
    load(&mut client, &first, "'Patient'");
    let second = database.file("second", patients(500..=LINES + 1000).replace("Family", "Other"));
    let other = {
        let (database, mut client) = (database.clone(), database.connect());
        run(&mut client, SOON);
        thread::spawn(move || meanwhile(&database, &mut client))
    };
    let statements = [load_sql(&first, "'Patient'"), load_sql(&second, "'Patient', options => '{\"update\": true}'")];
    for round in 0.. {
        for statement in &statements {
            if let Err(error) = client.simple_query(statement) {
                let code = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
                assert!(code == "40P01" || errors.contains(&code.as_str()), "{error:?}");
            }
        }
        if other.is_finished() && round > 0 {
            break;
        }
    }
    other.join().unwrap();
    (database, client)
}

/// After it all a load has every line of its source.
fn all_there(database: &Database, client: &mut Client) {
    let last = database.file("last", patients(1..=LINES + 1000).replace("Family", "Last"));
    assert_eq!(load(client, &last, "'Patient'"), format!("{{\"total\": {}}}", LINES + 1000));
    assert_eq!(
        value(client, "SELECT count(DISTINCT id) FROM patient WHERE resource::text ~ 'Last'"),
        (LINES + 1000).to_string()
    );
    assert_eq!(value(client, "SELECT count(*) = count(DISTINCT id) FROM patient"), "t");
    sound(client);
}

#[test]
fn deletes_during_loads_lose_no_line_of_a_later_load() {
    let (database, mut client) = load_against(
        |_, client| {
            for round in 0..60 {
                run_at_last(client, &format!("DELETE FROM patient WHERE hashtext(id) % 20 = {}", round % 20));
            }
        },
        &[],
    );
    all_there(&database, &mut client);
}

#[test]
fn updates_during_loads_are_kept_or_replaced_as_a_whole() {
    let (database, mut client) = load_against(
        |_, client| {
            run(client, "INSERT INTO patient (id, txid, status, resource) VALUES ('mine', 0, 'created', '{\"n\": 0}')");
            for _ in 0..50 {
                let statement =
                    "UPDATE patient SET resource = resource || '{\"touched\": true}' WHERE hashtext(id) % 50 = 7";
                run_at_last(client, statement);
                run(
                    client,
                    "UPDATE patient SET resource = jsonb_set(resource, '{n}', ((resource ->> 'n')::int + 1)::text::jsonb) WHERE id = 'mine'",
                );
            }
        },
        &[],
    );
    assert_eq!(value(&mut client, "SELECT resource ->> 'n' FROM patient WHERE id = 'mine'"), "50");
    all_there(&database, &mut client);
}

#[test]
fn maintenance_during_loads_disturbs_neither() {
    let (database, mut client) = load_against(
        |_, client| {
            for _ in 0..3 {
                for statement in [
                    "VACUUM patient",
                    "VACUUM FULL patient",
                    "CREATE INDEX CONCURRENTLY meanwhile ON patient ((resource #>> '{name,0,family}'))",
                    "REINDEX TABLE CONCURRENTLY patient",
                    "ANALYZE patient",
                    "CLUSTER patient USING patient_pkey",
                    "DROP INDEX meanwhile",
                    "ALTER TABLE patient ADD COLUMN more text DEFAULT 'more'",
                    "ALTER TABLE patient DROP COLUMN more",
                ] {
                    // A concurrent build that met a deadlock leaves an index behind that is not valid.
                    if client.batch_execute(statement).is_err() {
                        run(client, "DROP INDEX IF EXISTS meanwhile");
                    }
                }
            }
        },
        &[],
    );
    all_there(&database, &mut client);
}

#[test]
fn an_index_built_during_loads_has_all_their_rows() {
    let (_database, mut client) = load_against(
        |_, client| run(client, "CREATE UNIQUE INDEX CONCURRENTLY meanwhile ON patient ((id || '!')) INCLUDE (status)"),
        &[],
    );
    assert_eq!(value(&mut client, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'meanwhile'::regclass"), "t");
    sound(&mut client);
    run(&mut client, "SET enable_seqscan = off");
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient WHERE id || '!' > ''"), (LINES + 1000) as i64);
}

#[test]
fn truncate_and_drop_during_loads_end_in_a_table_with_the_last_load() {
    let (database, mut client) = load_against(
        |_, client| {
            for _ in 0..10 {
                let _ = client.batch_execute("TRUNCATE patient");
                let _ = client.batch_execute("DROP TABLE patient, patient_history");
            }
        },
        // A table that was there when it was looked up; one that another session makes.
        &["42P01", "42P07", "23505", "XX000"],
    );
    run(&mut client, "SELECT bulk_create_table('Patient')");
    all_there(&database, &mut client);
}
