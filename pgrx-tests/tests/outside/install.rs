//! The objects that CREATE EXTENSION creates, and those that stay after DROP EXTENSION.

use crate::support::{assert_error, assert_error_with_hint, fails, load, patients, rows, run, value};
use fhir_bulk_tests::Database;

const MEMBERS: &str = "FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid
    WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
      AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'fhir_bulk')";

/// Names, arguments, order, defaults and results: what clients call.
#[test]
fn the_functions_have_the_names_and_arguments_that_clients_call() {
    let database = Database::new();
    let mut client = database.connect();
    let found = rows(
        &mut client,
        &format!("SELECT proname || '(' || pg_get_function_arguments(p.oid) || ') ' || pg_get_function_result(p.oid) {MEMBERS}
                  AND proname IN ('bulk_dump', 'bulk_dump_chunks', 'bulk_load', 'bulk_create_table', 'bulk_create_view', 'dump_view', 'dump_view_chunks', 'dump_csv',
                  'dump_csv_chunks')
                  ORDER BY 1"),
    );
    assert_eq!(
        found,
        [
            "bulk_create_table(resource_type text) regclass",
            "bulk_create_view(name text, view jsonb, materialized boolean DEFAULT false) regclass",
            "bulk_dump(resource_type text, since timestamp with time zone DEFAULT NULL::timestamp with time zone, fhir boolean DEFAULT false, filter text DEFAULT NULL::text) SETOF text",
            "bulk_dump_chunks(resource_type text, since timestamp with time zone DEFAULT NULL::timestamp with time zone, fhir boolean DEFAULT false, gzip boolean DEFAULT false, chunk_bytes integer DEFAULT 65536, filter text DEFAULT NULL::text) SETOF bytea",
            "bulk_load(source text, resource_type text DEFAULT NULL::text, fhir boolean DEFAULT false, options jsonb DEFAULT '{}'::jsonb) jsonb",
            "dump_csv(resource_type text, options jsonb DEFAULT '{}'::jsonb) SETOF text",
            "dump_csv_chunks(resource_type text, gzip boolean DEFAULT false, options jsonb DEFAULT '{}'::jsonb, chunk_bytes integer DEFAULT 65536) SETOF bytea",
            "dump_view(view jsonb, format text DEFAULT 'csv'::text, options jsonb DEFAULT '{}'::jsonb) SETOF text",
            "dump_view_chunks(view jsonb, format text DEFAULT 'csv'::text, gzip boolean DEFAULT false, options jsonb DEFAULT '{}'::jsonb, chunk_bytes integer DEFAULT 65536) SETOF bytea",
        ]
    );
}

#[test]
fn reading_functions_are_stable_and_all_are_parallel_unsafe_and_run_with_the_callers_rights() {
    let database = Database::new();
    let mut client = database.connect();
    let found = rows(
        &mut client,
        &format!(
            "SELECT proname, provolatile, proparallel, prosecdef, proisstrict {MEMBERS} AND proname ~ '^(bulk_(dump|load|create)|dump_view|dump_csv)' ORDER BY 1"
        ),
    );
    assert_eq!(
        found,
        [
            "bulk_create_table|v|u|f|f",
            "bulk_create_view|v|u|f|f",
            "bulk_dump|s|u|f|f",
            "bulk_dump_chunks|s|u|f|f",
            "bulk_load|v|u|f|f",
            "bulk_load_result|v|u|f|t",
            "bulk_load_rows|v|u|f|t",
            "dump_csv|s|u|f|f",
            "dump_csv_chunks|s|u|f|f",
            "dump_view|s|u|f|f",
            "dump_view_chunks|s|u|f|f"
        ]
    );
}

#[test]
fn every_function_has_a_comment_and_no_stranger_is_a_member() {
    let database = Database::new();
    let mut client = database.connect();
    assert_eq!(
        rows(
            &mut client,
            &format!("SELECT proname {MEMBERS} AND coalesce(obj_description(p.oid, 'pg_proc'), '') = ''")
        ),
        [""; 0]
    );
    assert_eq!(
        rows(&mut client, &format!("SELECT proname {MEMBERS} AND proargnames IS NULL AND pronargs > 0")),
        [""; 0]
    );
    assert_eq!(
        rows(
            &mut client,
            "SELECT DISTINCT classid::regclass FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
             AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'fhir_bulk') AND objid IN
             (SELECT oid FROM pg_class WHERE relname ~ '^(patient|transaction_id_seq)' UNION SELECT oid FROM pg_type WHERE typname = 'resource_status')"
        ),
        [""; 0]
    );
}

#[test]
fn the_extension_can_be_dropped_made_again_and_put_into_another_schema() {
    let database = Database::new();
    let mut client = database.connect();
    let url = database.file("patients", patients(1..=3));
    load(&mut client, &url, "'Patient'");
    run(&mut client, "DROP EXTENSION fhir_bulk");
    assert_error(&fails(&mut client, "SELECT bulk_dump('Patient')"), "42883", &["bulk_dump"]);
    assert_eq!(rows(&mut client, "SELECT proname FROM pg_proc WHERE proname ~ '^(bulk_|dump_sql)'"), [""; 0]);
    run(&mut client, "CREATE SCHEMA \"other place\"; CREATE EXTENSION fhir_bulk SCHEMA \"other place\"");
    assert_eq!(rows(&mut client, "SELECT \"other place\".bulk_dump('Patient')").len(), 3);
    run(&mut client, "SET search_path = \"other place\"");
    assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 3}"#);
    // Data stays where data_schema says, not where the functions are.
    assert_eq!(value(&mut client, "SELECT to_regclass('\"other place\".patient') IS NULL"), "t");
    run(&mut client, "DROP EXTENSION fhir_bulk; RESET search_path; CREATE EXTENSION fhir_bulk");
    assert_eq!(rows(&mut client, "SELECT bulk_dump('Patient')").len(), 3);
}

#[test]
fn a_database_that_is_not_utf8_is_refused_when_the_extension_is_made() {
    let database = Database::new();
    let mut client = database.connect();
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let name = format!("{}_{}", database.name(), encoding.to_lowercase());
        run(
            &mut client,
            &format!("CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"),
        );
        let mut other = database.cluster().connect("postgres", &name);
        let error = fails(&mut other, "CREATE EXTENSION fhir_bulk");
        assert_error_with_hint(&error, "0A000", &["UTF8", encoding]);
        assert_eq!(rows(&mut other, "SELECT extname FROM pg_extension WHERE extname = 'fhir_bulk'"), [""; 0]);
    }
}

#[test]
fn only_a_superuser_can_make_the_extension() {
    let database = Database::new();
    let role = database.role("owner");
    run(
        &mut database.connect(),
        &format!(
            "DROP EXTENSION fhir_bulk; GRANT ALL ON DATABASE {} TO {role}; GRANT ALL ON SCHEMA public TO {role}",
            database.name()
        ),
    );
    assert_error(&fails(&mut database.connect_as(&role), "CREATE EXTENSION fhir_bulk"), "42501", &["fhir_bulk"]);
}

#[test]
fn settings_are_described_and_mistyped_ones_refused() {
    let database = Database::new();
    let mut client = database.connect();
    run(&mut client, "LOAD 'fhir_bulk'");
    let settings = rows(
        &mut client,
        "SELECT name, boot_val, context FROM pg_settings WHERE name LIKE 'fhir_bulk.%' AND name IN
         ('fhir_bulk.data_schema', 'fhir_bulk.created_at_url', 'fhir_bulk.version_id', 'fhir_bulk.max_line_bytes', 'fhir_bulk.max_new_tables') ORDER BY 1",
    );
    assert_eq!(
        settings,
        [
            "fhir_bulk.created_at_url|ex:createdAt|user",
            "fhir_bulk.data_schema|public|user",
            "fhir_bulk.max_line_bytes|268435456|user",
            "fhir_bulk.max_new_tables|100|user",
            "fhir_bulk.version_id|number|user"
        ]
    );
    let undescribed = "SELECT name FROM pg_settings WHERE name LIKE 'fhir_bulk.%' AND (length(short_desc) < 20 OR coalesce(length(extra_desc), 0) < 20)";
    assert_eq!(rows(&mut client, undescribed), [""; 0]);
    assert_error(&fails(&mut client, "SET fhir_bulk.data_shema = 'x'"), "42602", &["fhir_bulk.data_shema"]);
    for (setting, value) in [
        ("max_line_bytes", "10"),
        ("max_line_bytes", "'2GB'"),
        ("max_new_tables", "-1"),
        ("gzip_level", "10"),
        ("version_id", "'text'"),
    ] {
        assert_error(&fails(&mut client, &format!("SET fhir_bulk.{setting} = {value}")), "22023", &[setting]);
    }
    run(&mut client, "ALTER SYSTEM SET fhir_bulk.max_new_tables = 100");
    run(&mut client, "ALTER SYSTEM RESET fhir_bulk.max_new_tables");
}

#[test]
fn settings_of_a_database_or_role_hold_before_the_library_is_loaded() {
    let database = Database::new();
    let mut client = database.connect();
    run(&mut client, "LOAD 'fhir_bulk'; SELECT bulk_create_table('Patient')");
    run(&mut client, "INSERT INTO patient VALUES ('1', 5, NULL, NULL, 'Patient', 'created', '{}')");
    run(&mut client, &format!("ALTER DATABASE {} SET fhir_bulk.version_id = 'string'", database.name()));
    assert_eq!(
        rows(&mut database.connect(), "SELECT bulk_dump('Patient')"),
        [r#"{"id": "1", "meta": {"versionId": "5"}, "resourceType": "Patient"}"#]
    );
}
