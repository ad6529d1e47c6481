//! Deletions in fhirbase's tables, which have no rows of status `deleted`.

use crate::job::{done, download, with_location};
use crate::levels::deletions;
use crate::support::{run, value};
use fhir_bulk_tests::{Client, Database, wait_for};
use serde_json::{Value, json};

/// fhirbase's tables of two types, and what its functions do to them: a delete moves the row into the history, and adds one
/// that says when, with the status that the row had.
fn fhirbase() -> (Database, Client) {
    let (database, mut client) = with_location();
    run(&mut client, "CREATE TYPE resource_status AS ENUM ('created', 'updated', 'deleted', 'recreated')");
    for table in ["patient", "observation"] {
        let columns = "txid bigint NOT NULL, ts timestamptz DEFAULT current_timestamp, resource_type text DEFAULT initcap('TABLE'),
             status resource_status NOT NULL, resource jsonb NOT NULL".replace("TABLE", table);
        run(
            &mut client,
            &format!(
                "CREATE TABLE {table} (id text PRIMARY KEY, {columns});
                 CREATE TABLE {table}_history (id text, {columns}, PRIMARY KEY (id, txid))"
            ),
        );
    }
    run(
        &mut client,
        "CREATE SEQUENCE ids;
         CREATE PROCEDURE made(t text, i text, at timestamptz, r jsonb) LANGUAGE plpgsql AS $$ BEGIN
             EXECUTE format('INSERT INTO %I (id, txid, ts, status, resource) VALUES ($1, nextval(''ids''), $2, ''created'', $3)', t) USING i, at, r; END $$;
         CREATE PROCEDURE changed(t text, i text, at timestamptz) LANGUAGE plpgsql AS $$ BEGIN
             EXECUTE format('INSERT INTO %I SELECT * FROM %I WHERE id = $1', t || '_history', t) USING i;
             EXECUTE format('UPDATE %I SET txid = nextval(''ids''), ts = $2, status = ''updated'' WHERE id = $1', t) USING i, at; END $$;
         CREATE PROCEDURE removed(t text, i text, at timestamptz) LANGUAGE plpgsql AS $$ BEGIN
             EXECUTE format('INSERT INTO %I SELECT * FROM %I WHERE id = $1', t || '_history', t) USING i;
             EXECUTE format('INSERT INTO %I (id, txid, ts, status, resource) SELECT id, nextval(''ids''), $2, status, resource FROM %I WHERE id = $1', t || '_history', t) USING i, at;
             EXECUTE format('DELETE FROM %I WHERE id = $1', t) USING i; END $$",
    );
    let subject = |id: &str| json!({"subject": {"resourceType": "Patient", "id": id}});
    for id in ["a", "b", "c", "d", "e", "f"] {
        run(
            &mut client,
            &format!(
                "CALL made('patient', '{id}', '2020-01-01Z', '{{}}'); CALL made('observation', 'o-{id}', '2020-01-01Z', '{}')",
                subject(id)
            ),
        );
    }
    (database, client)
}

fn since(since: &str) -> Value {
    json!({"_type": "Patient,Observation", "_since": since})
}

#[test]
fn what_the_history_has_and_the_table_has_not_was_deleted_when_its_newest_row_says() {
    let (_database, mut client) = fhirbase();
    run(
        &mut client,
        "CALL changed('patient', 'a', '2024-06-01Z');
         CALL removed('patient', 'b', '2024-06-02Z');
         CALL changed('patient', 'c', '2024-06-02Z'); CALL removed('patient', 'c', '2024-06-03Z');
         CALL removed('patient', 'd', '2024-04-01Z');
         CALL removed('patient', 'e', '2024-06-04Z'); CALL made('patient', 'e', '2024-06-05Z', '{}');
         CALL removed('observation', 'o-b', '2024-06-02Z')",
    );
    assert_eq!(deletions(&mut client, &since("2024-05-01")), ["Observation/o-b", "Patient/b", "Patient/c"]);
    assert_eq!(deletions(&mut client, &since("2024-06-03")), ["Patient/c"]);
    assert_eq!(
        deletions(&mut client, &since("2024-03-01")),
        ["Observation/o-b", "Patient/b", "Patient/c", "Patient/d"]
    );
    // Deleted after the time that the export is up to: then it was there.
    let mut until = since("2024-05-01");
    until["_until"] = "2024-06-03".into();
    assert_eq!(deletions(&mut client, &until), ["Observation/o-b", "Patient/b"]);
    // Rows of status deleted count in these tables, too, and each resource once.
    run(&mut client, "UPDATE patient SET status = 'deleted', ts = '2024-06-07Z' WHERE id = 'f'");
    run(&mut client, "UPDATE patient_history SET status = 'deleted' WHERE id = 'b' AND ts > '2024-01-01'");
    assert_eq!(
        deletions(&mut client, &since("2024-05-01")),
        ["Observation/o-b", "Patient/b", "Patient/c", "Patient/f"]
    );
    // The content of the row that says when tells whose it was.
    let patients = json!({"level": "patient", "patient": ["a"], "_type": "Observation", "_since": "2024-05-01"});
    assert_eq!(deletions(&mut client, &patients), [""; 0]);
    run(&mut client, "CALL removed('observation', 'o-a', '2024-06-02Z')");
    assert_eq!(deletions(&mut client, &patients), ["Observation/o-a"]);
}

#[test]
fn where_rows_are_hidden_absence_says_nothing_and_it_is_said() {
    let (database, mut client) = fhirbase();
    let role = database.role("nurse");
    run(
        &mut client,
        &format!(
            "CALL removed('patient', 'b', '2024-06-02Z');
             CALL changed('patient', 'c', '2024-06-02Z'); CALL changed('observation', 'o-c', '2024-06-02Z');
             CALL removed('observation', 'o-d', '2024-06-02Z');
             GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};
             GRANT EXECUTE ON FUNCTION bulk_export, bulk_export_file TO {role};
             ALTER TABLE patient ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON patient USING (id <> 'c')"
        ),
    );
    let mut nurse = database.connect_as(&role);
    let request = since("2024-05-01");
    assert_eq!(deletions(&mut nurse, &request), ["Observation/o-d"]);
    let status = done(&mut nurse, &request);
    let note = String::from_utf8(download(&mut nurse, &status["error"][0]["url"])).unwrap();
    assert!(note.contains("Deletions of Patient are incomplete") && !note.contains("Observation"), "{note}");
    // Who sees every row gets them all, without a note.
    assert_eq!(deletions(&mut client, &request), ["Observation/o-d", "Patient/b"]);
    assert_eq!(done(&mut client, &request)["error"], json!([]));
    // A view may leave rows out, too.
    run(
        &mut client,
        "ALTER TABLE observation RENAME TO kept; CREATE VIEW observation AS SELECT * FROM kept WHERE id <> 'o-c'",
    );
    assert_eq!(deletions(&mut client, &request), ["Patient/b"]);
    // Without a since nothing is deleted, and nothing is said.
    assert_eq!(done(&mut nurse, &json!({"_type": "Patient"}))["error"], json!([]));
}

#[test]
fn absence_is_found_without_asking_the_table_for_each_row() {
    let (_database, mut client) = fhirbase();
    run(
        &mut client,
        "INSERT INTO patient SELECT 'p' || n, n, '2020-01-01Z', 'Patient', 'created', '{}' FROM generate_series(1, 60000) n;
         INSERT INTO patient_history SELECT id, txid + m, ts + m * interval '1 day', resource_type, status, resource
             FROM patient, generate_series(1, 3) m WHERE id LIKE 'p%';
         DELETE FROM patient WHERE id LIKE 'p%7'; ANALYZE",
    );
    let scans = |client: &mut Client, what: &str| -> i64 {
        let tables = "pg_stat_user_tables WHERE relname IN ('patient', 'patient_history')";
        value(client, &format!("SELECT sum({what}) FROM {tables}")).parse().unwrap()
    };
    let (all, before) = (scans(&mut client, "seq_scan + idx_scan"), scans(&mut client, "idx_scan"));
    let found = deletions(&mut client, &json!({"_type": "Patient", "_since": "2020-01-02"}));
    assert_eq!(found.len(), 6000);
    wait_for("the worker's statistics", || scans(&mut client, "seq_scan + idx_scan") > all);
    let asked = scans(&mut client, "idx_scan") - before;
    assert!(asked < 1000, "the indexes were asked {asked} times");
}
