//! Ordinary roles may do what PostgreSQL allows them with COPY, INSERT, UPDATE and SELECT.

use crate::support::{
    aidbox_tables, assert_error, assert_error_with_hint, count, fails, load, load_fails, patient, patients, relations,
    rows, run, value,
};
use fhir_bulk_tests::{Client, Database};

/// An Aidbox database whose tables belong to the superuser, and a role that may call everything and read files.
fn with_role() -> (Database, Client, String) {
    let database = Database::new();
    let mut admin = database.connect();
    let role = database.role("app");
    aidbox_tables(&mut admin, &["Patient", "Observation"]);
    run(
        &mut admin,
        &format!(
            "GRANT EXECUTE ON FUNCTION bulk_load, bulk_create_table TO {role}; GRANT pg_read_server_files TO {role};
             GRANT USAGE ON SEQUENCE transaction_id_seq TO {role};
             SELECT setval('transaction_id_seq', 100);
             INSERT INTO patient (id, txid, status, resource) SELECT 'p-' || n, 1, 'created', '{{}}' FROM generate_series(1, 3) n"
        ),
    );
    (database, admin, role)
}

#[test]
fn only_reading_functions_are_public() {
    let database = Database::new();
    let role = database.role("nobody");
    let url = database.file("patients", patients(1..=3));
    let mut nobody = database.connect_as(&role);
    assert_error(&load_fails(&mut nobody, &url, "'Patient'"), "42501", &["bulk_load"]);
    assert_error(&fails(&mut nobody, "SELECT bulk_create_table('Patient')"), "42501", &["bulk_create_table"]);
    assert_eq!(
        rows(
            &mut nobody,
            "SELECT proname, has_function_privilege(p.oid, 'EXECUTE') FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid
             WHERE d.classid = 'pg_proc'::regclass AND refclassid = 'pg_extension'::regclass AND deptype = 'e'
               AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'fhir_bulk') AND proname ~ '^(bulk_(load|create|dump)|dump_(csv|view))' ORDER BY 1"
        ),
        [
            "bulk_create_table|f",
            "bulk_create_view|f",
            "bulk_dump|t",
            "bulk_dump_chunks|t",
            "bulk_load|f",
            "bulk_load_result|t",
            "bulk_load_rows|t",
            "dump_csv|t",
            "dump_csv_chunks|t",
            "dump_view|t",
            "dump_view_chunks|t"
        ]
    );
    // What it may not read it may not dump.
    aidbox_tables(&mut database.connect(), &["Patient"]);
    for function in ["bulk_dump", "bulk_dump_chunks", "dump_csv", "dump_csv_chunks"] {
        assert_error(&fails(&mut nobody, &format!("SELECT {function}('Patient')")), "42501", &["patient"]);
    }
}

#[test]
fn files_of_the_server_need_pg_read_server_files() {
    let (database, mut admin, role) = with_role();
    run(&mut admin, &format!("REVOKE pg_read_server_files FROM {role}; GRANT ALL ON patient TO {role}"));
    let url = database.file("patients", patients(1..=3));
    let mut client = database.connect_as(&role);
    let error = load_fails(&mut client, &url, "'Patient'");
    assert_error_with_hint(&error, "42501", &[&url]);
    assert!(error.hint().unwrap().contains("pg_read_server_files"));
    // The same for a file that does not exist: whether it does is not told.
    assert_error_with_hint(
        &load_fails(&mut client, "file:///absent/file", "'Patient'"),
        "42501",
        &["file:///absent/file"],
    );
    run(&mut admin, &format!("GRANT pg_read_server_files TO {role}"));
    assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 3}"#);
}

#[test]
fn a_load_needs_insert_on_the_table() {
    let (database, mut admin, role) = with_role();
    let url = database.file("patients", patients(10..=12));
    let mut client = database.connect_as(&role);
    for grants in ["", "GRANT SELECT, UPDATE, DELETE, TRUNCATE ON patient TO"] {
        if !grants.is_empty() {
            run(&mut admin, &format!("{grants} {role}"));
        }
        assert_error(&load_fails(&mut client, &url, "'Patient'"), "42501", &["patient"]);
        assert_error(&load_fails(&mut client, &url, ""), "42501", &["patient"]);
    }
    assert_eq!(count(&mut admin, "SELECT count(*) FROM patient"), 3);
    run(&mut admin, &format!("REVOKE ALL ON patient FROM {role}; GRANT INSERT ON patient TO {role}"));
    assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 3}"#);
    assert_eq!(count(&mut admin, "SELECT count(*) FROM patient"), 6);
}

#[test]
fn a_role_that_may_only_insert_cannot_change_or_probe_known_rows() {
    for grants in ["INSERT", "INSERT, SELECT", "INSERT, UPDATE"] {
        let (database, mut admin, role) = with_role();
        run(&mut admin, &format!("GRANT {grants} ON patient TO {role}"));
        let mut client = database.connect_as(&role);
        let before = rows(&mut admin, "SELECT * FROM patient");
        for content in [patient("p-2", 7), patients(100..=3000) + &patient("p-2", 7), patients(2..=3000)] {
            let url = database.file("patients", content);
            assert_error(&load_fails(&mut client, &url, "'Patient'"), "42501", &["patient"]);
        }
        assert_eq!(rows(&mut admin, "SELECT * FROM patient"), before, "{grants}");
    }
    let (database, mut admin, role) = with_role();
    run(&mut admin, &format!("GRANT INSERT, UPDATE, SELECT ON patient TO {role}"));
    let url = database.file("patients", patients(2..=4));
    assert_eq!(load(&mut database.connect_as(&role), &url, "'Patient'"), r#"{"total": 3}"#);
    assert_eq!(
        rows(&mut admin, "SELECT status, count(*) FROM patient GROUP BY 1 ORDER BY 1"),
        ["created|2", "updated|2"]
    );
}

#[test]
fn column_grants_suffice_for_a_load_and_are_not_passed_by() {
    let (database, mut admin, role) = with_role();
    let url = database.file("patients", patients(10..=12));
    let mut client = database.connect_as(&role);
    run(
        &mut admin,
        &format!(
            "ALTER TABLE patient ADD COLUMN secret text DEFAULT 's'; GRANT INSERT (id, txid, cts, ts, resource_type, status) ON patient TO {role}"
        ),
    );
    assert_error(&load_fails(&mut client, &url, "'Patient'"), "42501", &["patient"]);
    run(&mut admin, &format!("GRANT INSERT (resource) ON patient TO {role}"));
    assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 3}"#);
    run(&mut admin, &format!("REVOKE INSERT (cts) ON patient FROM {role}"));
    let others = database.file("others", patients(20..=22));
    assert_error(&load_fails(&mut client, &others, "'Patient'"), "42501", &["patient"]);
}

#[test]
fn a_dump_needs_select_on_the_columns_it_reads() {
    let (database, mut admin, role) = with_role();
    let mut client = database.connect_as(&role);
    run(
        &mut admin,
        &format!(
            "ALTER TABLE patient ADD COLUMN secret text; GRANT SELECT (id, txid, cts, ts, resource_type, status) ON patient TO {role}"
        ),
    );
    assert_error(&fails(&mut client, "SELECT bulk_dump('Patient')"), "42501", &["patient"]);
    run(&mut admin, &format!("GRANT SELECT (resource) ON patient TO {role}"));
    assert_eq!(rows(&mut client, "SELECT bulk_dump('Patient')").len(), 3);
    assert_eq!(rows(&mut client, "SELECT bulk_dump_chunks('Patient', gzip => true)").len(), 1);
    run(&mut admin, "CREATE SCHEMA hidden; ALTER TABLE patient SET SCHEMA hidden");
    run(&mut client, "SET fhir_bulk.data_schema = 'hidden'");
    assert_error(&fails(&mut client, "SELECT bulk_dump('Patient')"), "42501", &["hidden"]);
    let url = database.file("patients", patients(10..=12));
    run(&mut admin, &format!("GRANT INSERT ON hidden.patient TO {role}"));
    assert_error(&load_fails(&mut client, &url, "'Patient'"), "42501", &["hidden"]);
}

#[test]
fn a_dump_shows_only_the_rows_that_row_level_security_shows() {
    let (database, mut admin, role) = with_role();
    run(
        &mut admin,
        &format!(
            "GRANT SELECT ON patient TO {role}; ALTER TABLE patient ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON patient FOR SELECT TO {role} USING (id = current_setting('app.patient', true))"
        ),
    );
    let mut client = database.connect_as(&role);
    assert!(rows(&mut client, "SELECT bulk_dump('Patient')").is_empty());
    assert!(rows(&mut client, "SELECT bulk_dump_chunks('Patient')").is_empty());
    run(&mut client, "SET app.patient = 'p-2'");
    assert_eq!(rows(&mut client, "SELECT bulk_dump('Patient')::json ->> 'id'"), ["p-2"]);
    run(&mut client, "SET row_security = off");
    assert_error(&fails(&mut client, "SELECT bulk_dump('Patient')"), "42501", &["patient"]);
    assert_eq!(rows(&mut admin, "SELECT bulk_dump('Patient')").len(), 3);
}

#[test]
fn a_load_obeys_row_level_security_as_insert_and_update_do() {
    let (database, mut admin, role) = with_role();
    run(
        &mut admin,
        &format!(
            "GRANT ALL ON patient TO {role}; ALTER TABLE patient ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON patient TO {role} USING (id = 'p-2' OR id = 'p-9') WITH CHECK (id = 'p-2' OR id = 'p-9')"
        ),
    );
    let mut client = database.connect_as(&role);
    let allowed = database.file("allowed", patient("p-2", 2) + "\n" + &patient("p-9", 9));
    let url = database.file("patients", patients(1..=2500));
    let others = database.file("others", patient("p-3", 3));
    for url in [&url, &others] {
        assert_error(&load_fails(&mut client, url, "'Patient'"), "42501", &["patient"]);
    }
    assert_eq!(rows(&mut admin, "SELECT count(*), bool_and(resource = '{}') FROM patient"), ["3|t"]);
    assert_eq!(load(&mut client, &allowed, "'Patient'"), r#"{"total": 2}"#);
    assert_eq!(
        rows(&mut admin, "SELECT id, status, resource <> '{}' FROM patient ORDER BY 1"),
        ["p-1|created|f", "p-2|updated|t", "p-3|created|f", "p-9|created|t"]
    );
    run(&mut client, "SET row_security = off");
    assert_error(&load_fails(&mut client, &allowed, "'Patient'"), "42501", &["patient"]);
    // Who is not bound by the policies loads: the owner, unless they are forced, and BYPASSRLS.
    assert_eq!(load(&mut admin, &url, "'Patient'"), r#"{"total": 2500}"#);
    run(&mut admin, &format!("ALTER ROLE {role} BYPASSRLS"));
    assert_eq!(load(&mut database.connect_as(&role), &url, "'Patient'"), r#"{"total": 2500}"#);
    run(&mut admin, &format!("ALTER ROLE {role} NOBYPASSRLS; ALTER TABLE patient OWNER TO {role}"));
    assert_eq!(load(&mut database.connect_as(&role), &url, "'Patient'"), r#"{"total": 2500}"#);
    run(&mut admin, "ALTER TABLE patient FORCE ROW LEVEL SECURITY");
    assert_error(&load_fails(&mut database.connect_as(&role), &url, "'Patient'"), "42501", &["patient"]);
}

#[test]
fn a_read_only_transaction_writes_nothing() {
    let database = Database::new();
    let mut client = database.connect();
    let url = database.file("patients", patients(1..=3));
    let before = relations(&mut client);
    run(&mut client, "SET default_transaction_read_only = on");
    assert_error(&load_fails(&mut client, &url, "'Patient'"), "25006", &["bulk_load"]);
    assert_error(&fails(&mut client, "SELECT bulk_create_table('Patient')"), "25006", &["bulk_create_table"]);
    run(&mut client, "RESET default_transaction_read_only");
    run(&mut client, "SELECT bulk_create_table('Patient')");
    run(&mut client, "BEGIN READ ONLY");
    assert_error(&load_fails(&mut client, &url, "'Patient'"), "25006", &["bulk_load"]);
    run(&mut client, "ROLLBACK");
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 0);
    assert_eq!(before.len() + 5, relations(&mut client).len());
}

#[test]
fn tables_are_made_only_where_the_role_may_create_them() {
    let (database, mut admin, role) = with_role();
    let mut client = database.connect_as(&role);
    let url = database.file("groups", "{\"id\":\"1\",\"resourceType\":\"Group\"}\n");
    let before = relations(&mut admin);
    for arguments in ["'Group'", ""] {
        assert_error(&load_fails(&mut client, &url, arguments), "42501", &["public"]);
    }
    assert_error(&fails(&mut client, "SELECT bulk_create_table('Group')"), "42501", &["public"]);
    assert_eq!(relations(&mut admin), before);
    // bulk_create_table of one that is there needs no right.
    assert_eq!(value(&mut client, "SELECT bulk_create_table('Patient')"), "patient");
    run(&mut admin, &format!("GRANT CREATE ON SCHEMA public TO {role}"));
    assert_eq!(load(&mut client, &url, ""), r#"{"Group": 1}"#);
    assert_eq!(value(&mut admin, "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'group'"), role);
}

#[test]
fn the_sequence_needs_usage() {
    let (database, mut admin, role) = with_role();
    run(&mut admin, &format!("REVOKE ALL ON SEQUENCE transaction_id_seq FROM {role}; GRANT ALL ON patient TO {role}"));
    let url = database.file("patients", patients(10..=12));
    assert_error(&load_fails(&mut database.connect_as(&role), &url, "'Patient'"), "42501", &["transaction_id_seq"]);
    assert_eq!(count(&mut admin, "SELECT count(*) FROM patient"), 3);
}

#[test]
fn set_role_and_security_definer_decide_as_for_any_insert() {
    let (database, mut admin, role) = with_role();
    let url = database.file("patients", patients(10..=12));
    run(&mut admin, &format!("SET ROLE {role}"));
    assert_error(&load_fails(&mut admin, &url, "'Patient'"), "42501", &["patient"]);
    assert_error(&fails(&mut admin, "SELECT bulk_dump('Patient')"), "42501", &["patient"]);
    run(
        &mut admin,
        &format!(
            "RESET ROLE; CREATE FUNCTION load_for_all() RETURNS jsonb LANGUAGE sql SECURITY DEFINER SET search_path = public
             AS $$ SELECT bulk_load('{url}', 'Patient') $$"
        ),
    );
    let nobody = database.role("nobody");
    assert_eq!(rows(&mut database.connect_as(&nobody), "SELECT load_for_all()"), [r#"{"total": 3}"#]);
    run(&mut admin, &format!("GRANT SELECT ON patient TO {role}"));
    assert_eq!(rows(&mut database.connect_as(&role), "SELECT bulk_dump('Patient')").len(), 6);
}

#[test]
fn default_privileges_give_nobody_what_the_extension_keeps_for_itself() {
    let database = Database::new();
    let (role, other) = (database.role("app"), database.role("other"));
    let mut client = database.connect();
    run(
        &mut client,
        &format!(
            "DROP EXTENSION fhir_bulk;
             ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {role}, {other} WITH GRANT OPTION;
             ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO PUBLIC, {role};
             ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO {role};
             ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO {role}, PUBLIC;
             CREATE EXTENSION fhir_bulk; CREATE TABLE mine ()"
        ),
    );
    assert_eq!(value(&mut client, &format!("SELECT has_table_privilege('{role}', 'mine', 'SELECT')")), "t");
    let given = format!(
        "SELECT c.relname, p.privilege FROM pg_depend d JOIN pg_class c ON c.oid = d.objid, pg_roles r,
            unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER', 'REFERENCES']) p(privilege)
         WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'fhir_bulk') AND d.classid = 'pg_class'::regclass
            AND c.relkind IN ('r', 'v') AND r.rolname IN ('{role}', '{other}') AND has_table_privilege(r.oid, c.oid, p.privilege)
         GROUP BY 1, 2 ORDER BY 1, 2"
    );
    assert_eq!(
        rows(&mut client, &given),
        [
            "bulk_disabled_indexes|SELECT",
            "bulk_files|DELETE",
            "bulk_files|SELECT",
            "bulk_job_inputs|SELECT",
            "bulk_jobs|SELECT",
            "bulk_load_reject|DELETE",
            "bulk_load_reject|SELECT",
            "bulk_resource|SELECT",
            "bulk_search_parameter|SELECT"
        ]
    );
    let sequences = format!(
        "SELECT count(*), count(*) FILTER (WHERE has_sequence_privilege('{role}', c.oid, 'USAGE')) FROM pg_depend d
         JOIN pg_class c ON c.oid = d.objid WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'fhir_bulk')
         AND d.classid = 'pg_class'::regclass AND c.relkind = 'S'"
    );
    assert_eq!(value(&mut client, &sequences), "0|0");
    let schema = format!("SELECT has_schema_privilege('{role}', 'fhir_bulk_internal', 'USAGE, CREATE')");
    assert_eq!(value(&mut client, &schema), "f");
    let mut app = database.connect_as(&role);
    assert_error(
        &fails(&mut app, "SELECT secret FROM fhir_bulk_internal.bulk_secret"),
        "42501",
        &["fhir_bulk_internal"],
    );
    assert_error(&fails(&mut app, "SELECT bulk_create_table('Patient')"), "42501", &["bulk_create_table"]);
    assert_eq!(rows(&mut app, "SELECT * FROM bulk_jobs"), [""; 0]);
}

#[test]
fn nobody_holds_up_the_making_of_tables_by_a_lock_that_everybody_can_take() {
    let database = Database::new();
    let role = database.role("idle");
    let mut idle = database.connect_as(&role);
    // Whatever number a session might wait for, it is not an advisory lock's.
    run(
        &mut idle,
        "SELECT pg_advisory_lock(1718118770, n) FROM generate_series(-1, 5) n; SELECT pg_advisory_lock(1718118770)",
    );
    let mut client = database.connect();
    run(&mut client, "SET statement_timeout = '30s'; BEGIN");
    load(&mut client, &database.file("patients", patients(1..=3)), "'Patient'");
    assert_eq!(
        count(&mut client, "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'"),
        0
    );
    run(&mut client, "COMMIT");
}
