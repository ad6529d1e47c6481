//! Several sessions at once.

use crate::support::{count, load, load_sql, patients, rows, run, value};
use fhir_bulk_tests::{Client, Database, wait_for};
use std::thread::ScopedJoinHandle;

/// The session waits for another's lock.
fn waits(client: &mut Client, pid: i64) -> bool {
    count(client, &format!("SELECT cardinality(pg_blocking_pids({pid}))")) > 0
}

/// Runs a statement in a session of its own; returns when it waits for a lock.
fn blocked<'scope, 'env>(
    scope: &'scope std::thread::Scope<'scope, 'env>,
    database: &'env Database,
    sql: &'env str,
) -> ScopedJoinHandle<'scope, Result<Vec<String>, String>> {
    let mut client = database.connect();
    let pid = count(&mut client, "SELECT pg_backend_pid()");
    let handle = scope.spawn(move || match client.query(sql, &[]) {
        Ok(rows) => Ok(rows.iter().map(|row| row.get(0)).collect()),
        Err(error) => Err(error.as_db_error().unwrap().code().code().to_owned()),
    });
    let mut watcher = database.connect();
    wait_for("the second session to wait for the first", || waits(&mut watcher, pid) || handle.is_finished());
    assert!(!handle.is_finished(), "it did not wait: {:?}", handle.join());
    handle
}

#[test]
fn a_load_waits_for_another_of_the_same_new_ids_and_then_updates_them() {
    let database = Database::new();
    let mut first = database.connect();
    run(&mut first, "SELECT bulk_create_table('Patient'); CREATE SEQUENCE IF NOT EXISTS transaction_id_seq");
    let one = database.file("one", patients(1..=3000).replace("Family", "One"));
    let two = database.file("two", patients(1501..=4500).replace("Family", "Two"));
    let sql = load_sql(&two, "'Patient'");
    for (end, expected) in [
        ("COMMIT", ["One|created|1500", "Two|created|1500", "Two|updated|1500"].as_slice()),
        ("ROLLBACK", ["Two|created|3000"].as_slice()),
    ] {
        run(&mut first, "TRUNCATE patient");
        run(&mut first, "BEGIN");
        load(&mut first, &one, "'Patient'");
        std::thread::scope(|scope| {
            let second = blocked(scope, &database, &sql);
            run(&mut first, end);
            assert_eq!(second.join().unwrap(), Ok(vec![r#"{"total": 3000}"#.to_owned()]), "{end}");
        });
        let state =
            "SELECT left(resource #>> '{name,0,family}', 3), status, count(*) FROM patient GROUP BY 1, 2 ORDER BY 1, 2";
        assert_eq!(rows(&mut first, state), expected, "{end}");
        assert_eq!(value(&mut first, "SELECT bt_index_check('patient_pkey', true)"), "");
    }
}

#[test]
fn loads_of_the_same_file_at_once_lose_and_double_nothing() {
    let database = Database::new();
    let url = database.file("patients", patients(1..=20_000));
    run(&mut database.connect(), "SELECT bulk_create_table('Patient')");
    let sql = load_sql(&url, "'Patient'");
    std::thread::scope(|scope| {
        let sessions: Vec<_> = (0..4)
            .map(|_| {
                let mut client = database.connect();
                let sql = &sql;
                scope.spawn(move || client.query_one(sql, &[]).map(|row| row.get::<_, String>(0)))
            })
            .collect();
        for session in sessions {
            assert_eq!(session.join().unwrap().unwrap(), r#"{"total": 20000}"#);
        }
    });
    let mut client = database.connect();
    assert_eq!(
        rows(&mut client, "SELECT count(*), count(DISTINCT txid), min(status) FROM patient"),
        ["20000|1|updated"]
    );
    assert_eq!(value(&mut client, "SELECT bt_index_check('patient_pkey', true)"), "");
    assert_eq!(count(&mut client, "SELECT count(*) FROM verify_heapam('patient')"), 0);
}

#[test]
fn loads_of_the_same_ids_in_opposite_orders_end_with_all_rows_or_postgresqls_deadlock() {
    let database = Database::new();
    run(&mut database.connect(), "SELECT bulk_create_table('Patient')");
    let lines: Vec<_> = patients(1..=10_000).lines().map(|line| format!("{line}\n")).collect();
    let forward = database.file("forward", lines.concat());
    let backward = database.file("backward", lines.iter().rev().cloned().collect::<String>());
    let sqls = [load_sql(&forward, "'Patient'"), load_sql(&backward, "'Patient'")];
    let results = std::thread::scope(|scope| {
        let sessions = sqls.each_ref().map(|sql| {
            let mut client = database.connect();
            scope.spawn(move || client.query_one(sql, &[]).map(|row| row.get::<_, String>(0)))
        });
        sessions.map(|session| session.join().unwrap())
    });
    let mut loaded = 0;
    for result in &results {
        match result {
            Ok(answer) => {
                assert_eq!(answer, r#"{"total": 10000}"#);
                loaded += 1;
            }
            Err(error) => assert_eq!(error.as_db_error().unwrap().code().code(), "40P01", "{error:?}"),
        }
    }
    assert!(loaded >= 1, "a deadlock ends one of them only");
    let mut client = database.connect();
    assert_eq!(rows(&mut client, "SELECT count(*), count(DISTINCT txid) FROM patient"), ["10000|1"]);
}

#[test]
fn two_first_loads_of_one_type_make_its_table_once() {
    let database = Database::new();
    let one = database.file("one", patients(1..=100));
    let two = database.file("two", patients(101..=200));
    let sql = load_sql(&two, "'Patient'");
    for (end, expected) in [("COMMIT", 200), ("ROLLBACK", 100)] {
        let mut first = database.connect();
        run(&mut first, "DROP TABLE IF EXISTS patient, patient_history; DROP TYPE IF EXISTS resource_status");
        run(&mut first, "CREATE SEQUENCE IF NOT EXISTS transaction_id_seq");
        run(&mut first, "BEGIN");
        load(&mut first, &one, "'Patient'");
        std::thread::scope(|scope| {
            let second = blocked(scope, &database, &sql);
            run(&mut first, end);
            assert_eq!(second.join().unwrap(), Ok(vec![r#"{"total": 100}"#.to_owned()]), "{end}");
        });
        assert_eq!(count(&mut first, "SELECT count(*) FROM patient"), expected, "{end}");
    }
}

#[test]
fn two_first_loads_of_different_types_into_an_empty_database_both_succeed() {
    for end in ["COMMIT", "ROLLBACK"] {
        let database = Database::new();
        let patients = database.file("patients", patients(1..=100));
        let groups = database.file("groups", "{\"id\":\"1\",\"resourceType\":\"Group\"}\n");
        let sql = load_sql(&groups, "'Group'");
        let mut first = database.connect();
        run(&mut first, "BEGIN");
        load(&mut first, &patients, "'Patient'");
        std::thread::scope(|scope| {
            let second = blocked(scope, &database, &sql);
            run(&mut first, end);
            assert_eq!(second.join().unwrap(), Ok(vec![r#"{"total": 1}"#.to_owned()]), "{end}");
        });
        assert_eq!(count(&mut first, "SELECT count(*) FROM \"group\""), 1, "{end}");
    }
}

#[test]
fn a_table_that_another_session_makes_by_hand_meanwhile_is_used_or_postgresqls_error() {
    let database = Database::new();
    let mut first = database.connect();
    run(&mut first, "SELECT bulk_create_table('Group')");
    let url = database.file("patients", patients(1..=100));
    let sql = load_sql(&url, "'Patient'");
    run(&mut first, "BEGIN; CREATE TABLE patient (LIKE \"group\" INCLUDING ALL)");
    std::thread::scope(|scope| {
        let second = blocked(scope, &database, &sql);
        run(&mut first, "COMMIT");
        match second.join().unwrap() {
            Ok(answer) => {
                assert_eq!(answer, [r#"{"total": 100}"#]);
                assert_eq!(count(&mut first, "SELECT count(*) FROM patient"), 100);
            }
            Err(state) => {
                assert!(["23505", "42P07"].contains(&state.as_str()), "{state}");
                assert_eq!(count(&mut first, "SELECT count(*) FROM patient"), 0);
                assert_eq!(load(&mut first, &url, "'Patient'"), r#"{"total": 100}"#);
            }
        }
    });
}

#[test]
fn a_dump_goes_on_while_others_load_and_a_table_in_use_is_not_dropped_under_it() {
    let database = Database::new();
    let mut reader = database.connect();
    let first = database.file("first", patients(1..=3000));
    let second = database.file("second", patients(1..=6000));
    load(&mut reader, &first, "'Patient'");
    run(&mut reader, "BEGIN; DECLARE dump CURSOR FOR SELECT bulk_dump('Patient')");
    assert_eq!(rows(&mut reader, "FETCH 10 FROM dump").len(), 10);
    let mut other = database.connect();
    assert_eq!(load(&mut other, &second, "'Patient'"), r#"{"total": 6000}"#);
    run(&mut other, "SET lock_timeout = 50");
    let error = crate::support::fails(&mut other, "DROP TABLE patient");
    assert_eq!(error.code().code(), "55P03");
    assert_eq!(rows(&mut reader, "FETCH ALL FROM dump").len(), 2990);
    run(&mut reader, "COMMIT");
    assert_eq!(rows(&mut reader, "SELECT bulk_dump('Patient')").len(), 6000);
}

#[test]
fn a_load_waits_for_a_change_of_its_table_and_holds_off_later_ones() {
    let database = Database::new();
    let mut first = database.connect();
    let url = database.file("patients", patients(1..=100));
    run(&mut first, "SELECT bulk_create_table('Patient')");
    run(&mut first, "BEGIN; ALTER TABLE patient ADD COLUMN tenant text NOT NULL DEFAULT 't'");
    let sql = load_sql(&url, "'Patient'");
    std::thread::scope(|scope| {
        let second = blocked(scope, &database, &sql);
        run(&mut first, "COMMIT");
        assert_eq!(second.join().unwrap(), Ok(vec![r#"{"total": 100}"#.to_owned()]));
    });
    assert_eq!(rows(&mut first, "SELECT DISTINCT tenant FROM patient"), ["t"]);
    // And one that drops the table and makes it anew meanwhile is not written into the void.
    run(&mut first, "BEGIN; ALTER TABLE patient RENAME TO old; CREATE TABLE patient (LIKE old INCLUDING ALL)");
    std::thread::scope(|scope| {
        let second = blocked(scope, &database, &sql);
        run(&mut first, "COMMIT");
        let answer = second.join().unwrap();
        assert_eq!(answer, Ok(vec![r#"{"total": 100}"#.to_owned()]));
    });
    assert_eq!(
        rows(&mut first, "SELECT (SELECT count(*) FROM patient), (SELECT max(status) FROM old)"),
        ["100|created"]
    );
}
