//! Dumps of tables with other layouts: those of fhirbase, with extra columns, views, partitioned tables.

use crate::support::{aidbox_tables, assert_error, assert_error_with_hint, fails, rows, run};
use fhir_bulk_tests::Database;

#[test]
fn a_fhirbase_table_without_cts_is_dumped_without_created_at() {
    let database = Database::new();
    let mut client = database.connect();
    run(
        &mut client,
        r#"SET TimeZone = 'UTC';
           CREATE TYPE resource_status AS ENUM ('created', 'updated', 'deleted', 'recreated');
           CREATE TABLE patient (id text PRIMARY KEY, txid bigint NOT NULL, ts timestamptz DEFAULT current_timestamp,
             resource_type text DEFAULT 'Patient', status resource_status NOT NULL, resource jsonb NOT NULL);
           INSERT INTO patient VALUES ('1', 5, '2021-06-10T08:26:10Z', 'Patient', 'created', '{"active": true}')"#,
    );
    assert_eq!(
        rows(&mut client, "SELECT bulk_dump('Patient')"),
        [
            r#"{"id": "1", "meta": {"versionId": 5, "lastUpdated": "2021-06-10T08:26:10.000000Z"}, "active": true, "resourceType": "Patient"}"#
        ]
    );
    assert_eq!(
        rows(&mut client, "SELECT bulk_dump('Patient', fhir => true)"),
        [
            r#"{"id":"1","meta":{"versionId":5,"lastUpdated":"2021-06-10T08:26:10.000000Z"},"active":true,"resourceType":"Patient"}"#
        ]
    );
    for function in ["bulk_dump", "bulk_dump_chunks"] {
        let error = fails(&mut client, &format!("SELECT {function}('Patient', '2021-01-01')"));
        assert_error_with_hint(&error, "42703", &["patient", "cts"]);
    }
}

#[test]
fn extra_columns_in_any_order_dropped_ones_and_varchar_do_not_disturb_a_dump() {
    let database = Database::new();
    let mut client = database.connect();
    run(
        &mut client,
        r#"SET TimeZone = 'UTC';
           CREATE TABLE patient (gone int, resource jsonb NOT NULL, status text NOT NULL, tenant text, txid int NOT NULL,
             "weird ""name" point, id varchar(64) PRIMARY KEY, resource_type varchar(40), ts timestamp, cts timestamptz);
           ALTER TABLE patient DROP COLUMN gone;
           INSERT INTO patient VALUES ('{"a": 1}', 'created', 't', 3, '(1,2)', 'x', 'Patient', '2021-06-10 08:26:10', '2021-06-10T08:26:10Z'),
             ('{"a": 2}', 'deleted', 't', 3, '(1,2)', 'y', 'Patient', now(), now())"#,
    );
    assert_eq!(
        rows(&mut client, "SELECT bulk_dump('Patient')"),
        [
            r#"{"a": 1, "id": "x", "meta": {"createdAt": "2021-06-10T08:26:10.000000Z", "versionId": 3, "lastUpdated": "2021-06-10T08:26:10.000000Z"}, "resourceType": "Patient"}"#
        ]
    );
}

#[test]
fn views_partitioned_and_materialized_tables_can_be_dumped() {
    let database = Database::new();
    let mut client = database.connect();
    aidbox_tables(&mut client, &["Patient"]);
    run(
        &mut client,
        "INSERT INTO patient (id, txid, status, resource) SELECT n, n, 'created', '{}' FROM generate_series(1, 5) n;
         CREATE VIEW person AS SELECT * FROM patient WHERE txid > 3;
         CREATE MATERIALIZED VIEW practitioner AS SELECT * FROM patient WHERE txid > 2;
         CREATE TABLE device (LIKE patient INCLUDING DEFAULTS) PARTITION BY LIST (id);
         CREATE TABLE device_1 PARTITION OF device FOR VALUES IN ('1');
         CREATE TABLE device_rest PARTITION OF device DEFAULT;
         INSERT INTO device SELECT * FROM patient",
    );
    for (name, expected) in [("Person", 2), ("Practitioner", 3), ("Device", 5)] {
        assert_eq!(rows(&mut client, &format!("SELECT bulk_dump('{name}')")).len(), expected, "{name}");
    }
}

#[test]
fn a_table_that_is_no_resource_table_is_postgresqls_error_with_the_column() {
    let database = Database::new();
    let mut client = database.connect();
    run(&mut client, "CREATE TABLE patient (id text, name text)");
    assert_error(&fails(&mut client, "SELECT bulk_dump('Patient')"), "42703", &[]);
    run(&mut client, "SELECT 1");
}

#[test]
fn data_schema_chooses_among_several_data_sets_whatever_its_name() {
    let database = Database::new();
    let mut client = database.connect();
    for (schema, id) in [("public", "in-public"), ("tenant", "in-tenant"), ("We\"ird schema; --", "in-weird")] {
        let quoted = schema.replace('"', "\"\"");
        run(&mut client, &format!("CREATE SCHEMA IF NOT EXISTS \"{quoted}\"; SET search_path = \"{quoted}\", public"));
        aidbox_tables(&mut client, &["Patient"]);
        run(
            &mut client,
            &format!("INSERT INTO patient (id, txid, status, resource) VALUES ('{id}', 1, 'created', '{{}}')"),
        );
    }
    run(&mut client, "SET search_path = public");
    for (schema, id) in [("public", "in-public"), ("tenant", "in-tenant"), ("We\"ird schema; --", "in-weird")] {
        run(&mut client, &format!("SET fhir_bulk.data_schema = '{schema}'"));
        let dumped = rows(&mut client, "SELECT bulk_dump('Patient')");
        assert_eq!(dumped.len(), 1);
        assert!(dumped[0].starts_with(&format!("{{\"id\": \"{id}\"")), "{schema}: {dumped:?}");
    }
    run(&mut client, "SET fhir_bulk.data_schema = 'nowhere'");
    let error = fails(&mut client, "SELECT bulk_dump('Patient')");
    assert_error_with_hint(&error, "3F000", &["nowhere"]);
    run(&mut client, "SET fhir_bulk.data_schema = ''");
    assert_error_with_hint(&fails(&mut client, "SELECT bulk_dump('Patient')"), "22023", &["fhir_bulk.data_schema"]);
}

#[test]
fn a_table_without_constraints_is_dumped_where_it_can_be_and_its_odd_rows_are_errors() {
    let database = Database::new();
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE TABLE patient (id text, txid bigint, cts timestamptz, ts timestamptz, resource_type text, status text, resource jsonb);
         INSERT INTO patient VALUES ('no-version', NULL, NULL, NULL, NULL, 'created', '{}'), ('no-status', 1, NULL, NULL, NULL, NULL, '{}')",
    );
    assert_eq!(
        rows(&mut client, "SELECT bulk_dump('Patient')"),
        [r#"{"id": "no-version", "resourceType": "Patient"}"#]
    );
    assert_eq!(
        rows(&mut client, "SELECT bulk_dump('Patient', fhir => true)"),
        [r#"{"id":"no-version","resourceType":"Patient"}"#]
    );
    for (column, row) in [
        ("id", "NULL, 1, NULL, NULL, NULL, 'created', '{}'"),
        ("resource", "'x', 1, NULL, NULL, NULL, 'created', NULL"),
    ] {
        run(&mut client, &format!("TRUNCATE patient; INSERT INTO patient VALUES ({row})"));
        assert_error(&fails(&mut client, "SELECT bulk_dump('Patient')"), "22004", &["Patient", column]);
    }
}

#[test]
fn a_resource_nested_deeper_than_a_load_would_take_does_not_crash_a_dump() {
    let database = Database::new();
    let mut client = database.connect();
    aidbox_tables(&mut client, &["Patient"]);
    run(
        &mut client,
        "SET max_stack_depth = '7MB'; INSERT INTO patient (id, txid, status, resource)
         SELECT 'deep', 1, 'created', ('{\"x\":' || repeat('[', 5000) || repeat(']', 5000) || '}')::jsonb",
    );
    for fhir in ["false", "true"] {
        let dumped = rows(&mut client, &format!("SELECT bulk_dump('Patient', fhir => {fhir})"));
        assert!(dumped[0].contains(&("[".repeat(5000) + &"]".repeat(5000))));
    }
}

#[test]
fn resources_with_very_many_members_and_elements_come_out_whole() {
    let database = Database::new();
    let mut client = database.connect();
    aidbox_tables(&mut client, &["Patient"]);
    run(
        &mut client,
        "INSERT INTO patient (id, txid, cts, ts, status, resource)
         SELECT 'wide', 1, NULL, NULL, 'created', jsonb_build_object('array', (SELECT jsonb_agg(n) FROM generate_series(1, 200000) n))
           || (SELECT jsonb_object_agg('key' || n, n) FROM generate_series(1, 200000) n)",
    );
    assert_eq!(
        rows(
            &mut client,
            "SELECT line::jsonb - 'id' - 'meta' - 'resourceType' = resource FROM (SELECT bulk_dump('Patient', fhir => true) AS line) AS d, patient"
        ),
        ["t"]
    );
}
