//! Rows that the table has, replaced where they stand: what stays, what goes, and what it costs.

use crate::support::{assert_error, count, fails, load, load_fails, patient, patients, rows, run, value};
use fhir_bulk_tests::{Client, Database};

fn with_patients(changes: &str, lines: &str) -> (Database, Client) {
    let database = Database::new();
    let mut client = database.connect();
    run(&mut client, "SELECT bulk_create_table('Patient')");
    run(&mut client, changes);
    load(&mut client, &database.file("first", lines), "'Patient'");
    (database, client)
}

fn sound(client: &mut Client) {
    assert_eq!(value(client, "SELECT bt_index_check('patient_pkey', true)"), "");
    assert_eq!(rows(client, "SELECT * FROM verify_heapam('patient')"), [""; 0]);
}

/// The places of all rows, who wrote and who locked them.
const PLACES: &str = "SELECT md5(string_agg(concat(ctid, xmin, xmax), ',' ORDER BY ctid)) FROM patient";
const SKIP: &str = "'Patient', options => '{\"skip_unchanged\": true}'";

#[test]
fn a_load_of_equal_resources_writes_nothing_into_the_table() {
    // One is compressed, and one is stored out of line.
    let noise: String = (0..9000).map(|n| format!("{:x}", n * 7919 % 65521)).collect();
    let lines = patients(1..=9000)
        + &patient("p-9001", 9001).replace("Family", &"Family ".repeat(1000))
        + "\n"
        + &patient("p-9002", 9002).replace("Family", &noise);
    let (database, mut client) = with_patients("", &lines);
    let url = database.file("same", &lines);
    run(&mut client, "VACUUM ANALYZE patient");
    let places = value(&mut client, PLACES);
    assert_eq!(load(&mut client, &url, SKIP), r#"{"total": 9002, "unchanged": 9002}"#);
    let explain = format!("EXPLAIN (ANALYZE, WAL, FORMAT json) {}", crate::support::load_sql(&url, SKIP));
    let plan: serde_json::Value = serde_json::from_str(&value(&mut client, &explain)).unwrap();
    // The sequence of versions is one of the records.
    let written = plan[0]["Plan"]["WAL Bytes"].as_u64().expect("a number");
    assert!(written < 1000, "{written} bytes of WAL");
    assert_eq!(value(&mut client, PLACES), places);
    run(&mut client, "SELECT pg_stat_force_next_flush()");
    let dead = "SELECT n_dead_tup, n_tup_upd FROM pg_stat_user_tables WHERE relname = 'patient'";
    assert_eq!(rows(&mut client, dead), ["0|0"]);
    sound(&mut client);
}

/// How often a session has asked the index on `id`.
const ASKED: &str = "SELECT idx_scan FROM pg_stat_xact_user_tables WHERE relname = 'patient'";

#[test]
fn rows_that_a_table_has_in_the_order_of_the_source_are_found_without_its_index() {
    let (database, _client) = with_patients("", &patients(1..=20_000));
    let turned: String = (1..=20_000).rev().map(|n| patient(&format!("p-{n}"), n) + "\n").collect();
    let (same, reversed) = (database.file("same", patients(1..=20_000)), database.file("reversed", turned));
    let all = r#"{"total": 20000, "unchanged": 20000}"#;
    let asked = |url: &str, counts: &str| {
        let mut client = database.connect();
        run(&mut client, "BEGIN");
        assert_eq!(load(&mut client, url, SKIP), counts);
        let asked = count(&mut client, ASKED);
        run(&mut client, "COMMIT");
        asked
    };
    // Once for each batch.
    let in_order = asked(&same, all);
    assert!(in_order < 20, "{in_order}");
    let backwards = asked(&reversed, all);
    assert!(backwards >= 20_000, "{backwards}");
    // New versions are elsewhere, and gaps are there.
    let mut other = database.connect();
    run(&mut other, "UPDATE patient SET ts = ts WHERE id LIKE '%77'; DELETE FROM patient WHERE id LIKE '%55'");
    run(&mut other, "VACUUM patient");
    let with_gaps = asked(&same, r#"{"total": 20000, "unchanged": 19800}"#);
    assert!((200..20_000).contains(&with_gaps), "{with_gaps}");
    asked(&reversed, all);
    assert_eq!(count(&mut other, "SELECT count(DISTINCT id) FROM patient"), 20_000);
    assert_eq!(count(&mut other, "SELECT count(*) FROM patient"), 20_000);
    sound(&mut other);
}

#[test]
fn no_trigger_fires_for_a_resource_that_stays_as_it_is() {
    let log = "CREATE TABLE log (what text); CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN INSERT INTO log VALUES (TG_WHEN || ' ' || TG_LEVEL); RETURN NEW; END $$";
    let (database, mut client) = with_patients(log, &patients(1..=100));
    for (when, level) in [("BEFORE", "ROW"), ("AFTER", "ROW"), ("BEFORE", "STATEMENT"), ("AFTER", "STATEMENT")] {
        let create = format!(
            "CREATE TRIGGER {when}_{level} {when} INSERT OR UPDATE ON patient FOR EACH {level} EXECUTE FUNCTION log()"
        );
        run(&mut client, &create);
    }
    let places = value(&mut client, PLACES);
    assert_eq!(
        load(&mut client, &database.file("same", patients(1..=100)), SKIP),
        r#"{"total": 100, "unchanged": 100}"#
    );
    assert_eq!((value(&mut client, PLACES), count(&mut client, "SELECT count(*) FROM log")), (places, 0));
    let other = database.file("other", patients(1..=99) + &patient("p-100", 0));
    assert_eq!(load(&mut client, &other, SKIP), r#"{"total": 100, "unchanged": 99}"#);
    assert_eq!(count(&mut client, "SELECT count(*) FROM log WHERE what = 'AFTER ROW'"), 1);
}

/// Whether a resource is equal tells what it is.
#[test]
fn a_role_that_may_not_read_rows_does_not_learn_whether_they_are_equal() {
    for setup in [
        "",
        "CREATE TRIGGER same BEFORE UPDATE ON patient FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    ] {
        let (database, mut client) = with_patients(setup, &patients(1..=10));
        let url = database.file("same", patients(1..=10));
        let role = database.role("writer");
        run(
            &mut client,
            &format!(
                "GRANT EXECUTE ON FUNCTION bulk_load TO {role}; GRANT pg_read_server_files TO {role};
                 GRANT INSERT, UPDATE, SELECT (id, txid, ts, status, cts) ON patient TO {role};
                 GRANT USAGE ON SEQUENCE transaction_id_seq TO {role}; SET ROLE {role}"
            ),
        );
        assert_error(&load_fails(&mut client, &url, SKIP), "42501", &["permission denied", "patient"]);
    }
}

/// In the middle of a load's batch another session inserts the same.
#[test]
fn an_equal_resource_of_another_session_is_waited_for_and_left_as_it_is() {
    let (database, mut client) = with_patients("", "");
    let url = database.file("same", patients(1..=10));
    let mut other = database.connect();
    run(&mut other, &format!("BEGIN; {}", crate::support::load_sql(&url, "'Patient'")));
    let loading = std::thread::spawn(move || load(&mut client, &url, SKIP));
    let mut looks = database.connect();
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    fhir_bulk_tests::wait_for("the load to wait", || count(&mut looks, waits) == 1);
    run(&mut other, "COMMIT");
    assert_eq!(loading.join().unwrap(), r#"{"total": 10, "unchanged": 10}"#);
    assert_eq!(rows(&mut looks, "SELECT DISTINCT status FROM patient"), ["created"]);
}

#[test]
fn columns_that_are_younger_than_a_row_keep_their_values() {
    let (database, mut client) = with_patients("ALTER TABLE patient ADD COLUMN gone int DEFAULT 1", &patients(1..=100));
    run(
        &mut client,
        "ALTER TABLE patient DROP COLUMN gone, ADD COLUMN word text NOT NULL DEFAULT 'old', ADD COLUMN none int;
         ALTER TABLE patient ALTER COLUMN word SET DEFAULT 'new'",
    );
    let url = database.file("second", patients(1..=101));
    for options in ["{}", r#"{"update": true}"#] {
        load(&mut client, &url, &format!("'Patient', options => '{options}'"));
        assert_eq!(
            rows(&mut client, "SELECT word, none, status, count(*) FROM patient GROUP BY 1, 2, 3 ORDER BY 4 LIMIT 1"),
            [if options == "{}" { "new|∅|created|1" } else { "new|∅|updated|1" }]
        );
        assert_eq!(count(&mut client, "SELECT count(*) FROM patient WHERE word = 'old' AND status = 'updated'"), 100);
        sound(&mut client);
    }
}

#[test]
fn what_is_stored_out_of_line_is_kept_or_goes_with_its_version() {
    // Random digits, which don't compress.
    let long = "SELECT string_agg(md5(n::text), '') FROM generate_series(1, 400) AS n";
    let (database, mut client) = with_patients("ALTER TABLE patient ADD COLUMN note text", &patient("p-1", 1));
    run(&mut client, &format!("UPDATE patient SET note = ({long})"));
    let noise = value(&mut client, long);
    let toast = value(&mut client, "SELECT reltoastrelid::regclass FROM pg_class WHERE oid = 'patient'::regclass");
    let chunks = format!("SELECT count(DISTINCT chunk_id) FROM {toast}");
    let large = |number: usize| patient("p-1", number).replace("Family", &format!("{number}{noise}"));
    for round in 1..4 {
        load(&mut client, &database.file("large", large(round)), "'Patient'");
        run(&mut client, "VACUUM patient");
        assert_eq!(count(&mut client, &chunks), 2, "the note and the last resource");
        assert_eq!(
            value(&mut client, &format!("SELECT note = ({long}), resource ->> 'multipleBirthInteger' FROM patient")),
            format!("t|{round}")
        );
        sound(&mut client);
    }
    load(&mut client, &database.file("small", patient("p-1", 9)), "'Patient'");
    run(&mut client, "VACUUM patient");
    assert_eq!(count(&mut client, &chunks), 1);
}

#[test]
fn replacing_rows_is_counted_as_updates_and_leaves_no_rows_behind_that_were_tried_in_vain() {
    let changes = "ALTER TABLE patient SET (fillfactor = 50)";
    let (database, _) = with_patients(changes, &patients(1..=5000));
    // Another session, which has nothing to its account yet.
    let mut client = database.connect();
    run(&mut client, "BEGIN");
    let url = database.file("second", patients(4001..=6000));
    assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 2000}"#);
    assert_eq!(
        value(
            &mut client,
            "SELECT pg_stat_get_xact_tuples_inserted(t), pg_stat_get_xact_tuples_updated(t),
                    pg_stat_get_xact_tuples_hot_updated(t) > 800 FROM (SELECT 'patient'::regclass) AS p(t)"
        ),
        "1000|1000|t"
    );
    run(&mut client, "COMMIT");
    sound(&mut client);
}

#[test]
fn a_table_that_is_published_without_an_identity_takes_new_rows_and_no_new_versions() {
    let database = crate::servers::database_on(crate::servers::decoded());
    let mut client = database.connect();
    run(
        &mut client,
        "SELECT bulk_create_table('Patient'); ALTER TABLE patient REPLICA IDENTITY NOTHING;
         CREATE PUBLICATION all_of_it FOR TABLE patient",
    );
    let url = database.file("patients", patients(1..=10));
    load(&mut client, &url, "'Patient'");
    let by_hand = fails(&mut client, "UPDATE patient SET txid = 1");
    assert_error(&by_hand, "55000", &["patient"]);
    let error = load_fails(&mut client, &url, "'Patient'");
    assert_error(&error, by_hand.code().code(), &[by_hand.message()]);
    assert_eq!(value(&mut client, "SELECT count(*), max(status) FROM patient"), "10|created");
}

#[test]
fn ids_without_order_in_the_source_are_replaced_however_many_versions_they_have() {
    let (database, mut client) = with_patients("", "");
    let shuffled = |round: usize| -> String {
        (0..9001).map(|n| patient(&format!("p-{}", n * 31 * round % 9001), n + round) + "\n").collect()
    };
    for round in 1..=4 {
        let url = database.file("round", shuffled(round));
        assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 9001}"#);
        assert_eq!(
            value(&mut client, "SELECT count(*), count(DISTINCT txid), count(DISTINCT resource) FROM patient"),
            "9001|1|9001"
        );
    }
    sound(&mut client);
}

#[test]
fn a_trigger_or_rule_that_comes_between_two_loads_of_a_session_is_obeyed() {
    let (database, mut client) = with_patients("", &patients(1..=10));
    run(
        &mut client,
        "CREATE TABLE log (id text);
         CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (OLD.id); RETURN NULL; END';
         CREATE TRIGGER log AFTER UPDATE ON patient FOR EACH ROW EXECUTE FUNCTION log()",
    );
    load(&mut client, &database.file("second", patients(1..=10)), "'Patient'");
    assert_eq!(count(&mut client, "SELECT count(*) FROM log"), 10);
}
