//! New versions of resources that the table has.

use crate::support::{count, load, patient, patients, rows, run, value};
use fhir_bulk_tests::{Client, Database};

const STATE: &str = "SELECT id, txid, cts = '2001-01-01T00:00:00Z', ts = now(), status, resource ->> 'multipleBirthInteger' FROM patient ORDER BY id";

/// A table with a patient of each status, created in 2001.
fn of_each_status() -> (Database, Client) {
    let database = Database::new();
    let mut client = database.connect();
    run(
        &mut client,
        "SELECT bulk_create_table('Patient');
         INSERT INTO patient (id, txid, cts, ts, status, resource)
         SELECT status::text, 1, '2001-01-01T00:00:00Z', '2002-01-01T00:00:00Z', status, '{\"old\": true}'
         FROM unnest(enum_range(NULL::resource_status)) AS status;
         SELECT setval('transaction_id_seq', 40)",
    );
    (database, client)
}

#[test]
fn a_known_id_becomes_updated_a_deleted_one_recreated_and_both_keep_cts() {
    let (database, mut client) = of_each_status();
    let ids = ["created", "updated", "deleted", "recreated", "new"];
    let lines: Vec<_> = ids.iter().enumerate().map(|(n, id)| patient(id, n)).collect();
    let url = database.file("patients", lines.join("\n"));
    run(&mut client, "BEGIN");
    assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 5}"#);
    assert_eq!(
        rows(&mut client, STATE),
        [
            "created|41|t|t|updated|0",
            "deleted|41|t|t|recreated|2",
            "new|41|f|t|created|4",
            "recreated|41|t|t|updated|3",
            "updated|41|t|t|updated|1"
        ]
    );
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient WHERE resource ? 'old'"), 0);
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient_history"), 0);
    run(&mut client, "COMMIT; BEGIN");
    load(&mut client, &url, "");
    assert_eq!(
        rows(&mut client, STATE),
        [
            "created|42|t|t|updated|0",
            "deleted|42|t|t|updated|2",
            "new|42|f|t|updated|4",
            "recreated|42|t|t|updated|3",
            "updated|42|t|t|updated|1"
        ]
    );
    run(&mut client, "COMMIT");
}

/// As where the tables were restored without their sequence, or moved to another schema.
#[test]
fn an_old_row_that_bears_the_loads_own_number_is_still_an_update() {
    let (database, mut client) = of_each_status();
    let url =
        database.file("patients", ["created", "updated", "deleted", "recreated"].map(|id| patient(id, 5)).join("\n"));
    run(&mut client, "UPDATE patient SET txid = 41; BEGIN");
    load(&mut client, &url, "'Patient'");
    assert_eq!(
        rows(&mut client, STATE),
        [
            "created|41|t|t|updated|5",
            "deleted|41|t|t|recreated|5",
            "recreated|41|t|t|updated|5",
            "updated|41|t|t|updated|5"
        ]
    );
    run(&mut client, "COMMIT");
}

#[test]
fn created_at_in_a_line_changes_cts_of_new_ids_only() {
    let (database, mut client) = of_each_status();
    let line = |id: &str| format!("{{\"id\":\"{id}\",\"meta\":{{\"createdAt\":\"2010-10-10T10:10:10Z\"}}}}\n");
    let url = database.file("patients", line("created") + &line("deleted") + &line("new"));
    load(&mut client, &url, "'Patient'");
    run(&mut client, "SET TimeZone = 'UTC'");
    assert_eq!(
        rows(&mut client, "SELECT id, cts, status FROM patient WHERE txid = 41 ORDER BY id"),
        [
            "created|2001-01-01 00:00:00+00|updated",
            "deleted|2001-01-01 00:00:00+00|recreated",
            "new|2010-10-10 10:10:10+00|created"
        ]
    );
}

#[test]
fn a_null_cts_of_a_known_row_stays_null() {
    let (database, mut client) = of_each_status();
    run(&mut client, "UPDATE patient SET cts = NULL");
    let url = database.file("patients", patient("created", 1) + "\n" + &patient("deleted", 2));
    load(&mut client, &url, "'Patient'");
    assert_eq!(
        rows(&mut client, "SELECT id FROM patient WHERE txid = 41 AND cts IS NULL ORDER BY 1"),
        ["created", "deleted"]
    );
}

/// The last line wins, near and far apart: within a batch, and across batches of thousands of rows.
#[test]
fn the_last_line_of_a_repeated_id_wins_and_a_new_id_stays_created() {
    for distance in [0, 1, 10, 999, 1000, 1001, 3500] {
        let (database, mut client) = of_each_status();
        let mut lines = patient("twice", 1) + "\n" + &patient("created", 1) + "\n" + &patient("deleted", 1) + "\n";
        lines += &patients(1..=distance);
        lines += &(patient("twice", 2) + "\n" + &patient("created", 2) + "\n" + &patient("deleted", 2) + "\n");
        lines += &patients(1..=distance / 2);
        lines += &(patient("twice", 3) + "\n" + &patient("created", 3) + "\n" + &patient("deleted", 3) + "\n");
        let url = database.file("patients", lines);
        run(&mut client, "BEGIN");
        assert_eq!(load(&mut client, &url, "'Patient'"), format!("{{\"total\": {}}}", 9 + distance + distance / 2));
        assert_eq!(
            rows(&mut client, &STATE.replace("ORDER", "WHERE id IN ('twice', 'created', 'deleted') ORDER")),
            ["created|41|t|t|updated|3", "deleted|41|t|t|recreated|3", "twice|41|f|t|created|3"],
            "{distance} lines between"
        );
        assert_eq!(
            count(&mut client, "SELECT count(*) FROM patient WHERE id ~ 'p-' AND status = 'created'"),
            distance as i64
        );
        assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 5 + distance as i64);
        run(&mut client, "COMMIT");
    }
}

#[test]
fn of_a_repeated_new_id_the_last_created_at_counts() {
    let (database, mut client) = of_each_status();
    let line = |id: &str, year: &str| match year {
        "" => format!("{{\"id\":\"{id}\"}}\n"),
        year => format!("{{\"id\":\"{id}\",\"meta\":{{\"createdAt\":\"{year}-01-01T00:00:00Z\"}}}}\n"),
    };
    for between in [0, 2000] {
        run(&mut client, "TRUNCATE patient; BEGIN");
        let lines = line("a", "2010")
            + &line("b", "")
            + &line("c", "2010")
            + &patients(1..=between)
            + &line("a", "2020")
            + &line("b", "2020")
            + &line("c", "");
        let url = database.file("patients", lines);
        load(&mut client, &url, "'Patient'");
        let created = rows(
            &mut client,
            "SELECT id, CASE WHEN cts = now() THEN 'now' ELSE to_char(cts AT TIME ZONE 'UTC', 'YYYY') END FROM patient WHERE id IN ('a', 'b', 'c') ORDER BY id",
        );
        assert_eq!(created, ["a|2020", "b|2020", "c|now"], "{between} lines between");
        run(&mut client, "COMMIT");
    }
}

#[test]
fn a_load_of_half_known_and_half_new_ids_is_right_for_each() {
    let database = Database::new();
    let mut client = database.connect();
    let first =
        database.file("first", (1..=6000).step_by(2).map(|n| patient(&format!("p-{n}"), 0) + "\n").collect::<String>());
    let second = database.file("second", patients(1..=6000));
    load(&mut client, &first, "'Patient'");
    load(&mut client, &second, "'Patient'");
    assert_eq!(
        rows(
            &mut client,
            "SELECT status, count(*), count(*) FILTER (WHERE 'p-' || (resource ->> 'multipleBirthInteger') = id) FROM patient GROUP BY 1 ORDER BY 1"
        ),
        ["created|3000|3000", "updated|3000|3000"]
    );
    // All known, in another order.
    let third =
        database.file("third", (1..=6000).rev().map(|n| patient(&format!("p-{n}"), n + 1) + "\n").collect::<String>());
    load(&mut client, &third, "'Patient'");
    assert_eq!(
        rows(
            &mut client,
            "SELECT status, count(*), count(DISTINCT txid), count(*) FILTER (WHERE 'p-' || ((resource ->> 'multipleBirthInteger')::int - 1) = id) FROM patient GROUP BY 1"
        ),
        ["updated|6000|1|6000"]
    );
    assert_eq!(value(&mut client, "SELECT bt_index_check('patient_pkey', true)"), "");
    assert_eq!(count(&mut client, "SELECT count(*) FROM verify_heapam('patient')"), 0);
}

#[test]
fn a_fhirbase_table_is_upserted_by_the_same_rules_without_cts() {
    let database = Database::new();
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE TYPE resource_status AS ENUM ('created', 'updated', 'deleted', 'recreated');
         CREATE SEQUENCE transaction_id_seq;
         CREATE TABLE patient (id text PRIMARY KEY, txid bigint NOT NULL, ts timestamptz DEFAULT current_timestamp,
           resource_type text DEFAULT 'Patient', status resource_status NOT NULL, resource jsonb NOT NULL);
         INSERT INTO patient VALUES ('known', 0, '2001-01-01', 'Patient', 'created', '{}'), ('gone', 0, '2001-01-01', 'Patient', 'deleted', '{}')",
    );
    let created = "{\"id\":\"dated\",\"meta\":{\"createdAt\":\"2010-10-10T10:10:10Z\",\"source\":\"s\"}}\n";
    let url = database
        .file("patients", patient("known", 1) + "\n" + created + &patient("gone", 2) + "\n" + &patient("known", 3));
    run(&mut client, "BEGIN");
    assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 4}"#);
    assert_eq!(
        rows(
            &mut client,
            "SELECT id, txid, ts = now(), status, resource ->> 'multipleBirthInteger' FROM patient ORDER BY id"
        ),
        ["dated|1|t|created|∅", "gone|1|t|recreated|2", "known|1|t|updated|3"]
    );
    assert_eq!(value(&mut client, "SELECT resource FROM patient WHERE id = 'dated'"), r#"{"meta": {"source": "s"}}"#);
    run(&mut client, "COMMIT");
}
