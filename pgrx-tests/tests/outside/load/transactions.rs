//! Loads inside transactions of the caller.

use crate::support::{
    assert_error, count, fails, load, load_fails, load_sql, patient, patients, relations, rows, run, value,
};
use fhir_bulk_tests::Database;

#[test]
fn rollback_takes_back_rows_tables_and_sequence_of_a_load() {
    let database = Database::new();
    let mut client = database.connect();
    let url = database.file("patients", patients(1..=2500));
    let before = relations(&mut client);
    run(&mut client, "BEGIN");
    assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 2500}"#);
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 2500);
    run(&mut client, "ROLLBACK");
    assert_eq!(relations(&mut client), before);
    assert_eq!(value(&mut client, "SELECT to_regtype('resource_status') IS NULL"), "t");
    load(&mut client, &url, "'Patient'");
    let updated = database.file("updated", patients(1..=2500).replace("Family", "Other"));
    run(&mut client, "BEGIN");
    load(&mut client, &updated, "'Patient'");
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient WHERE status = 'updated'"), 2500);
    run(&mut client, "ROLLBACK");
    assert_eq!(
        rows(&mut client, "SELECT count(*), min(status), max(status) FROM patient WHERE resource::text ~ 'Family'"),
        ["2500|created|created"]
    );
}

#[test]
fn a_failed_load_within_a_savepoint_leaves_the_rest_of_the_transaction() {
    let database = Database::new();
    let mut client = database.connect();
    let good = database.file("good", patients(1..=1200));
    let bad = database.file("bad", patients(1000..=3000) + "{broken\n");
    run(&mut client, "BEGIN");
    load(&mut client, &good, "'Patient'");
    run(&mut client, "SAVEPOINT s");
    assert_error(&load_fails(&mut client, &bad, "'Patient'"), "22P02", &["line 2002"]);
    assert_error(&fails(&mut client, "SELECT 1"), "25P02", &[]);
    run(&mut client, "ROLLBACK TO s");
    assert_eq!(rows(&mut client, "SELECT count(*), min(status) FROM patient"), ["1200|created"]);
    assert_eq!(load(&mut client, &good, "'Patient'"), r#"{"total": 1200}"#);
    run(&mut client, "COMMIT");
    assert_eq!(rows(&mut client, "SELECT count(*), max(status) FROM patient"), ["1200|updated"]);
    assert_eq!(value(&mut client, "SELECT bt_index_check('patient_pkey', true)"), "");
    assert_eq!(count(&mut client, "SELECT count(*) FROM verify_heapam('patient')"), 0);
}

#[test]
fn loads_in_one_transaction_follow_each_other_and_share_its_time() {
    let database = Database::new();
    let mut client = database.connect();
    let first = database.file("first", patients(1..=1500));
    let second = database.file("second", patients(1001..=2000).replace("Family", "Second"));
    run(&mut client, "BEGIN");
    load(&mut client, &first, "'Patient'");
    run(
        &mut client,
        "DELETE FROM patient WHERE id = 'p-1500'; UPDATE patient SET status = 'deleted' WHERE id = 'p-1001'",
    );
    load(&mut client, &second, "'Patient'");
    assert_eq!(
        rows(
            &mut client,
            "SELECT status, count(*), count(DISTINCT txid), bool_and(ts = now()) FROM patient GROUP BY 1 ORDER BY 1"
        ),
        ["created|1501|2|t", "updated|498|1|t", "recreated|1|1|t"]
    );
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient WHERE resource::text ~ 'Second'"), 1000);
    run(&mut client, "COMMIT");
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 2000);
}

#[test]
fn functions_and_do_blocks_can_load_and_catch_the_error_of_a_bad_file() {
    let database = Database::new();
    let mut client = database.connect();
    let good = database.file("good", patients(1..=1500));
    let bad = database.file("bad", patients(1501..=4000) + "[]\n");
    run(
        &mut client,
        &format!(
            "CREATE FUNCTION nightly() RETURNS text LANGUAGE plpgsql AS $$
             DECLARE answer jsonb; seen text := '';
             BEGIN
               answer := bulk_load('{good}', 'Patient');
               BEGIN
                 PERFORM bulk_load('{bad}', 'Patient');
               EXCEPTION WHEN data_exception THEN seen := SQLERRM;
               END;
               PERFORM bulk_load('{good}', 'Patient');
               RETURN answer::text || ' ' || seen;
             END $$"
        ),
    );
    let answer = value(&mut client, "SELECT nightly()");
    assert!(
        answer.starts_with("{\"total\": 1500} ") && answer.contains("line 2501") && answer.contains(&bad),
        "{answer}"
    );
    assert_eq!(rows(&mut client, "SELECT count(*), min(status), max(status) FROM patient"), ["1500|updated|updated"]);
    run(&mut client, &format!("DO $$ BEGIN PERFORM bulk_load('{good}', 'Patient'); END $$"));
}

#[test]
fn a_load_called_for_several_sources_in_one_statement_loads_them_all() {
    let database = Database::new();
    let mut client = database.connect();
    let urls: Vec<_> =
        (0..5).map(|n| database.file(&format!("part-{n}"), patients(n * 500 + 1..=n * 500 + 600))).collect();
    let list = urls.iter().map(|url| format!("'{url}'")).collect::<Vec<_>>().join(", ");
    let answers = rows(&mut client, &format!("SELECT bulk_load(url, 'Patient') FROM unnest(ARRAY[{list}]) AS url"));
    assert_eq!(answers, vec![r#"{"total": 600}"#; 5]);
    assert_eq!(rows(&mut client, "SELECT count(*), count(DISTINCT txid) FROM patient"), ["2600|5"]);
}

#[test]
fn a_dump_after_a_load_in_the_same_transaction_sees_it() {
    let database = Database::new();
    let mut client = database.connect();
    let url = database.file("patients", patients(1..=1500));
    run(&mut client, "BEGIN");
    load(&mut client, &url, "'Patient'");
    assert_eq!(rows(&mut client, "SELECT bulk_dump('Patient')").len(), 1500);
    run(&mut client, "COMMIT");
}

#[test]
fn a_repeatable_read_load_over_rows_that_changed_meanwhile_is_a_serialization_failure() {
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let database = Database::new();
        let mut client = database.connect();
        let url = database.file("patients", patients(1..=1500));
        load(&mut client, &url, "'Patient'");
        run(&mut client, &format!("BEGIN ISOLATION LEVEL {level}; SELECT 1 FROM patient"));
        run(&mut database.connect(), "UPDATE patient SET resource = '{\"theirs\": true}' WHERE id = 'p-700'");
        assert_error(&load_fails(&mut client, &url, "'Patient'"), "40001", &[]);
        run(&mut client, "ROLLBACK");
        assert_eq!(value(&mut client, "SELECT resource FROM patient WHERE id = 'p-700'"), "{\"theirs\": true}");
        // And over an id that another session has made meanwhile, which this one cannot see.
        run(&mut client, &format!("BEGIN ISOLATION LEVEL {level}; SELECT 1 FROM patient"));
        run(
            &mut database.connect(),
            "INSERT INTO patient (id, txid, status, resource) VALUES ('unseen', 1, 'created', '{}')",
        );
        let unseen = database.file("unseen", patient("unseen", 1));
        assert_error(&load_fails(&mut client, &unseen, "'Patient'"), "40001", &[]);
        run(&mut client, "ROLLBACK");
        assert_eq!(load(&mut client, &unseen, "'Patient'"), r#"{"total": 1}"#);
    }
}

#[test]
fn a_load_is_usable_from_sql_as_any_function() {
    let database = Database::new();
    let mut client = database.connect();
    let url = database.file("patients", patients(1..=5));
    run(&mut client, &format!("CREATE TABLE log AS {}", load_sql(&url, "'Patient'")));
    assert_eq!(rows(&mut client, "SELECT * FROM log"), [r#"{"total": 5}"#]);
    run(&mut client, "PREPARE again(text, text) AS SELECT bulk_load($1, $2)");
    for _ in 0..7 {
        assert_eq!(rows(&mut client, &format!("EXECUTE again('{url}', 'Patient')")), [r#"{"total": 5}"#]);
    }
}
