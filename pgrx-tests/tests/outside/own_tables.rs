//! No grant gives access to the extension's own tables.

use crate::support::{aidbox_tables, assert_error, assert_error_with_hint, count, fails, load_sql, rows, run, value};
use fhir_bulk_tests::{Client, Database, wait_for};

const TABLES: [&str; 5] = ["bulk_secret", "bulk_job", "bulk_job_task", "bulk_file", "bulk_load_reject_row"];

/// A job, its task, a file that it remembers, and a rejected line of the superuser's.
fn with_rows() -> (Database, Client) {
    let database = Database::new();
    let mut admin = database.connect();
    aidbox_tables(&mut admin, &["Patient"]);
    let empty = database.file("empty", "");
    run(
        &mut admin,
        &format!(
            "SELECT bulk_import('{{\"id\": \"mine\", \"onlyNew\": true, \"inputs\": [{{\"resourceType\": \"Patient\", \"url\": \"{empty}\"}}]}}')"
        ),
    );
    let skip = "'Patient', options => '{\"on_error\": \"skip\"}'";
    run(&mut admin, &load_sql(&database.file("bad", "bad\n"), skip));
    (database, admin)
}

#[test]
fn grants_on_all_tables_of_the_extensions_schema_give_nothing_of_what_it_keeps() {
    let (database, mut admin) = with_rows();
    let role = database.role("reader");
    run(
        &mut admin,
        &format!(
            "GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}"
        ),
    );
    let mut client = database.connect_as(&role);
    for table in TABLES {
        assert_eq!(value(&mut admin, &format!("SELECT to_regclass('public.{table}') IS NULL")), "t");
        for statement in ["SELECT * FROM", "DELETE FROM", "TRUNCATE"] {
            let statement = format!("{statement} fhir_bulk_internal.{table}");
            assert_error(&fails(&mut client, &statement), "42501", &["fhir_bulk_internal"]);
        }
    }
    // The views are among what was granted, and write nothing into what is behind them.
    run(&mut admin, &format!("GRANT EXECUTE ON FUNCTION bulk_load TO {role}; GRANT pg_read_server_files TO {role}"));
    let skip = "'Patient', options => '{\"on_error\": \"skip\"}'";
    run(&mut client, &load_sql(&database.file("bad", "bad\n"), skip));
    assert_error(&fails(&mut client, "UPDATE bulk_load_reject SET error = ''"), "42501", &["fhir_bulk_internal"]);
    let insert = "INSERT INTO bulk_load_reject VALUES (now(), 's', 1, 1, '22000', 'e', '')";
    let refused = fails(&mut client, insert);
    assert!(["42501", "23502"].contains(&refused.code().code()), "{refused}");
    assert_eq!(rows(&mut client, "SELECT * FROM bulk_jobs"), [""; 0]);
}

#[test]
fn who_may_read_all_data_and_write_all_data_reaches_none_of_it() {
    let (database, mut admin) = with_rows();
    let (reader, writer) = (database.role("reader"), database.role("writer"));
    run(
        &mut admin,
        &format!(
            "GRANT pg_read_all_data TO {reader}, {writer}; GRANT pg_write_all_data TO {writer};
             GRANT USAGE ON SCHEMA fhir_bulk_internal TO {writer}"
        ),
    );
    let state = "SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM (SELECT s::text FROM fhir_bulk_internal.bulk_secret s
        UNION ALL SELECT id || role::text FROM fhir_bulk_internal.bulk_job
        UNION ALL SELECT t.input::text FROM fhir_bulk_internal.bulk_job_task t
        UNION ALL SELECT f.url FROM fhir_bulk_internal.bulk_file f
        UNION ALL SELECT r::text FROM fhir_bulk_internal.bulk_load_reject_row r) t";
    let before = value(&mut admin, state);
    let change = |table: &str| match table {
        "bulk_secret" => "SET secret = 'known'",
        "bulk_job" => "SET role = 10",
        "bulk_job_task" => "SET input = '{}'",
        _ => "SET role = 10",
    };
    for role in [&reader, &writer] {
        for bypasses in ["NOBYPASSRLS", "BYPASSRLS"] {
            run(&mut admin, &format!("ALTER ROLE {role} {bypasses}"));
            let mut client = database.connect_as(role);
            for table in TABLES {
                let table_name = format!("fhir_bulk_internal.{table}");
                let read = count(&mut client, &format!("SELECT count(*) FROM {table_name}"));
                assert_eq!(read, i64::from(bypasses == "BYPASSRLS"), "{role} {table}");
                let writes = [
                    format!("UPDATE {table_name} {}", change(table)),
                    format!("DELETE FROM {table_name}"),
                    format!("INSERT INTO {table_name} SELECT * FROM {table_name}"),
                    format!("INSERT INTO {table_name} DEFAULT VALUES"),
                    format!("TRUNCATE {table_name}"),
                    format!(
                        "CREATE TRIGGER t BEFORE INSERT ON {table_name} FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"
                    ),
                ];
                for write in writes {
                    // Without BYPASSRLS there is no row to change, which is no error.
                    if let Err(error) = client.batch_execute(&write) {
                        let error = error.as_db_error().unwrap();
                        assert!(["42501", "23502"].contains(&error.code().code()), "{write}: {error}");
                    }
                    assert_eq!(value(&mut admin, state), before, "{role} {bypasses}: {write}");
                }
            }
        }
    }
    assert_eq!(
        rows(
            &mut admin,
            "SELECT c.oid::regclass FROM pg_class c WHERE relkind = 'S' AND relnamespace = 'fhir_bulk_internal'::regnamespace"
        ),
        [""; 0]
    );
}

#[test]
fn not_even_a_superuser_changes_a_job_by_mistake() {
    let (_database, mut admin) = with_rows();
    for setting in ["origin", "replica"] {
        run(&mut admin, &format!("SET session_replication_role = {setting}"));
        for statement in [
            "UPDATE fhir_bulk_internal.bulk_job SET role = 10",
            "DELETE FROM fhir_bulk_internal.bulk_job_task",
            "DELETE FROM fhir_bulk_internal.bulk_secret",
            "TRUNCATE fhir_bulk_internal.bulk_secret",
        ] {
            assert_error_with_hint(&fails(&mut admin, statement), "42501", &["fhir_bulk_internal.bulk_"]);
        }
    }
}

#[test]
fn functions_of_the_extensions_own_schema_are_nobodys_to_call() {
    let database = Database::new();
    let mut admin = database.connect();
    let of_schema = "SELECT p.oid::regprocedure FROM pg_proc p WHERE pronamespace = 'fhir_bulk_internal'::regnamespace";
    assert!(!rows(&mut admin, of_schema).is_empty());
    let public = format!("{of_schema} AND has_function_privilege('public', p.oid, 'EXECUTE')");
    assert_eq!(rows(&mut admin, &public), [""; 0]);
    let open = "SELECT relname FROM pg_class WHERE relnamespace = 'fhir_bulk_internal'::regnamespace AND relkind = 'r'
        AND (NOT relrowsecurity OR EXISTS (SELECT FROM pg_policy WHERE polrelid = pg_class.oid))";
    assert_eq!(rows(&mut admin, open), [""; 0]);
}

/// Calls of all functions of the extension's own schema that touch its tables (search parameters are for everyone to read), with NULL for each argument.
fn calls(admin: &mut Client) -> Vec<String> {
    let calls = rows(
        admin,
        "SELECT format('SELECT fhir_bulk_internal.%I(%s)', proname,
             (SELECT string_agg('NULL::' || t::regtype, ', ' ORDER BY n) FROM unnest(proargtypes) WITH ORDINALITY a (t, n)))
         FROM pg_proc WHERE pronamespace = 'fhir_bulk_internal'::regnamespace AND prorettype <> 'trigger'::regtype
         AND proname NOT IN ('has_expired', 'micros', 'this_database', 'search_parameters') ORDER BY 1",
    );
    assert!(calls.len() > 20, "{calls:?}");
    calls
}

#[test]
fn who_is_granted_functions_of_the_extensions_own_schema_by_mistake_gains_nothing() {
    let (database, mut admin) = with_rows();
    wait_for("the import to end", || value(&mut admin, "SELECT status FROM bulk_jobs") == "finished");
    let state = "SELECT string_agg(t, ' ' ORDER BY t) FROM (SELECT s::text FROM fhir_bulk_internal.bulk_secret s
        UNION ALL SELECT j::text FROM fhir_bulk_internal.bulk_job j
        UNION ALL SELECT t::text FROM fhir_bulk_internal.bulk_job_task t
        UNION ALL SELECT r::text FROM fhir_bulk_internal.bulk_load_reject_row r) u (t)";
    let before = value(&mut admin, state);
    let role = database.role("lucky");
    run(
        &mut admin,
        &format!(
            "GRANT USAGE ON SCHEMA fhir_bulk_internal TO {role};
             GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA fhir_bulk_internal TO {role}"
        ),
    );
    let mut client = database.connect_as(&role);
    for call in calls(&mut admin) {
        assert_error(&fails(&mut client, &call), "42501", &["bulk_"]);
    }
    // Nor whom row level security does not bind, nor a superuser who means well.
    run(&mut admin, &format!("GRANT pg_read_all_data, pg_write_all_data TO {role}; ALTER ROLE {role} BYPASSRLS"));
    let of_job = "FROM fhir_bulk_internal.bulk_job";
    for mut client in [database.connect_as(&role), database.connect()] {
        for call in [
            "add_job('import', 'new', 10, NULL, '{}', '{}', '[{}]')".to_owned(),
            "add_rejects(10, 's', '{1}', '{1}', '{22000}', '{e}', '{x}')".to_owned(),
            format!("forget_worker(number, 1) {of_job}"),
            format!("delete_job(number) {of_job}"),
            format!("discard_jobs(kind, id, role, subject) {of_job}"),
            format!("forget_expired_job(kind, id, role, subject, -60) {of_job}"),
        ] {
            let refused = fails(&mut client, &format!("SELECT fhir_bulk_internal.{call}"));
            assert_error_with_hint(&refused, "42501", &["fhir_bulk_internal.bulk_", "only the extension"]);
        }
    }
    assert_eq!(value(&mut admin, state), before);
}

#[test]
fn a_role_named_like_one_that_is_gone_does_not_see_its_jobs_and_lines() {
    let (database, mut admin) = with_rows();
    // As pg_get_userbyid() shows a role that is no more.
    run(
        &mut admin,
        "ALTER TABLE fhir_bulk_internal.bulk_job DISABLE TRIGGER own_rows;
         ALTER TABLE fhir_bulk_internal.bulk_load_reject_row DISABLE TRIGGER own_rows;
         UPDATE fhir_bulk_internal.bulk_job SET role = 4000000000;
         UPDATE fhir_bulk_internal.bulk_load_reject_row SET role = 4000000000",
    );
    let role = "unknown (OID=4000000000)";
    assert_eq!(value(&mut admin, "SELECT pg_get_userbyid(4000000000)"), role);
    // Of this name there is one for all tests, that nobody else makes.
    run(
        &mut admin,
        &format!("DO $$ BEGIN CREATE ROLE \"{role}\" LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$"),
    );
    run(&mut admin, &format!("SET ROLE \"{role}\""));
    assert_eq!(rows(&mut admin, "SELECT id FROM bulk_jobs"), [""; 0]);
    assert_eq!(rows(&mut admin, "SELECT line FROM bulk_load_reject"), [""; 0]);
    run(&mut admin, "DELETE FROM bulk_load_reject; RESET ROLE");
    assert_eq!(count(&mut admin, "SELECT count(*) FROM fhir_bulk_internal.bulk_load_reject_row"), 1);
    drop(database);
}
