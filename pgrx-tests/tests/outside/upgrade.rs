//! Upgrades from every released version to this one.

use crate::support::{assert_error, assert_error_with_hint, count, fails, load, load_sql, patients, rows, run, value};
use fhir_bulk_tests::{Client, Database, bin, wait_for};
use ring::digest::{SHA256, digest};
use std::path::Path;
use std::process::Command;

/// What was released, and the SHA-256 of what CREATE EXTENSION ran then.
const RELEASED: [(&str, &str); 1] = [("0.1.0", "43c877bb4d3f4b182fc12651cd077a37636009298e28eed1e44aeab31c024f9f")];

#[test]
fn what_a_released_version_ran_never_changes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sql/released");
    let mut names: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, RELEASED.map(|(version, _)| format!("fhir_bulk--{version}.sql")));
    for (name, (_, checksum)) in names.iter().zip(RELEASED) {
        let bytes = std::fs::read(folder.join(name)).unwrap();
        let found: String = digest(&SHA256, &bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, checksum, "{name}");
    }
}

/// All that belongs to the extension, as the catalogue tells it.
fn members(client: &mut Client) -> Vec<String> {
    let extension = "refclassid = 'pg_extension'::regclass AND deptype = 'e'
        AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'fhir_bulk')";
    let relations = format!("(SELECT objid FROM pg_depend WHERE classid = 'pg_class'::regclass AND {extension})");
    let mut all = rows(
        client,
        &format!(
            "SELECT 'function', p.oid::regprocedure, prosrc, provolatile, proparallel, proisstrict, prosecdef, proconfig,
                 pg_get_function_arguments(p.oid), pg_get_function_result(p.oid), proacl, obj_description(p.oid, 'pg_proc'),
                 pg_get_function_sqlbody(p.oid)
             FROM pg_proc p WHERE oid IN (SELECT objid FROM pg_depend WHERE classid = 'pg_proc'::regclass AND {extension})
             ORDER BY p.oid::regprocedure::text"
        ),
    );
    for query in [
        "SELECT 'relation', c.oid::regclass, relkind, relpersistence, relacl, relrowsecurity, relforcerowsecurity, reloptions,
             obj_description(c.oid, 'pg_class'), CASE relkind WHEN 'v' THEN pg_get_viewdef(c.oid) END
         FROM pg_class c WHERE oid IN RELATIONS ORDER BY c.oid::regclass::text",
        "SELECT 'column', attrelid::regclass, attname, format_type(atttypid, atttypmod), attnotnull, attidentity, attacl,
             pg_get_expr(d.adbin, d.adrelid), col_description(attrelid, attnum)
         FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = attrelid AND d.adnum = attnum
         WHERE attrelid IN RELATIONS AND attnum > 0 AND NOT attisdropped ORDER BY attrelid::regclass::text, attnum",
        "SELECT 'constraint', conrelid::regclass, conname, pg_get_constraintdef(oid) FROM pg_constraint
         WHERE conrelid IN RELATIONS ORDER BY conrelid::regclass::text, conname",
        "SELECT 'index', pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid IN RELATIONS ORDER BY 2",
        "SELECT 'trigger', pg_get_triggerdef(oid), tgenabled FROM pg_trigger
         WHERE tgrelid IN RELATIONS AND NOT tgisinternal ORDER BY 2",
        "SELECT 'schema', nspname, nspacl, obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = 'fhir_bulk_internal'",
    ] {
        all.extend(rows(client, &query.replace("RELATIONS", &relations)));
    }
    all
}

#[test]
fn an_upgraded_extension_is_the_one_that_is_made_now_and_keeps_what_it_had() {
    let fresh = Database::new();
    let expected = members(&mut fresh.connect());
    assert!(expected.len() > 80, "{}", expected.len());
    assert!(expected.iter().any(|member| member.contains("open_tasks") && member.contains("BEGIN ATOMIC")));
    for (version, _) in RELEASED {
        let database = Database::new();
        let mut client = database.connect();
        run(&mut client, &format!("DROP EXTENSION fhir_bulk; CREATE EXTENSION fhir_bulk VERSION '{version}'"));
        let role = database.role("reader");
        run(
            &mut client,
            &format!(
                "INSERT INTO bulk_job (database, kind, id, role, request, settings, status, ended_at)
                     SELECT oid, 'import', 'old', 'postgres'::regrole, '{{}}', '{{}}', 'finished', now() FROM pg_database
                     WHERE datname = current_database();
                 INSERT INTO bulk_job_task (job, number, input, status, total, ended_at)
                     SELECT number, 1, '{{\"url\": \"file:///x\"}}', 'finished', 7, now() FROM bulk_job;
                 INSERT INTO bulk_load_reject_row (role, source, line_number, byte_offset, sqlstate, error, line)
                     SELECT '{role}'::regrole, 'x', n, 0, '22000', 'e', '' FROM generate_series(1, 3) n;
                 GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role};
                 GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}"
            ),
        );
        let secret = value(&mut client, "SELECT secret FROM bulk_secret");
        // What was granted on views stays; it is nothing of the extension's own.
        run(
            &mut client,
            &format!("ALTER EXTENSION fhir_bulk UPDATE; REVOKE ALL ON bulk_jobs, bulk_load_reject FROM {role}"),
        );
        let found = members(&mut client);
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found, expected, "from {version}");
        }
        assert_eq!(found.len(), expected.len());
        assert_eq!(value(&mut client, "SELECT secret FROM fhir_bulk_internal.bulk_secret"), secret);
        assert_eq!(rows(&mut client, "SELECT id, status, resources FROM bulk_jobs"), ["old|finished|7"]);
        let mut reader = database.connect_as(&role);
        assert_eq!(count(&mut reader, "SELECT count(*) FROM bulk_load_reject"), 3);
        assert_error(
            &fails(&mut reader, "SELECT * FROM fhir_bulk_internal.bulk_secret"),
            "42501",
            &["fhir_bulk_internal"],
        );
        assert_error(&fails(&mut client, "DELETE FROM fhir_bulk_internal.bulk_job"), "42501", &["only the extension"]);
        let url = database.file("patients", patients(1..=3));
        assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 3}"#);
    }
}

#[test]
fn what_was_granted_on_a_function_is_granted_on_the_one_that_takes_its_place() {
    for (version, _) in RELEASED {
        let database = Database::new();
        let mut client = database.connect();
        let (role, other) = (database.role("reader"), database.role("other"));
        run(
            &mut client,
            &format!(
                "DROP EXTENSION fhir_bulk; CREATE EXTENSION fhir_bulk VERSION '{version}';
                 REVOKE ALL ON FUNCTION bulk_dump FROM PUBLIC; GRANT EXECUTE ON FUNCTION bulk_dump TO {role};
                 ALTER EXTENSION fhir_bulk UPDATE"
            ),
        );
        let may = |role: &str, function: &str| {
            format!("SELECT has_function_privilege('{role}', '{function}'::regproc, 'EXECUTE')")
        };
        assert_eq!(value(&mut client, &may(&role, "bulk_dump")), "t");
        assert_eq!(value(&mut client, &may(&other, "bulk_dump")), "f");
        assert_eq!(value(&mut client, &may(&other, "bulk_dump_chunks")), "t");
    }
}

#[test]
fn default_privileges_give_nobody_what_an_upgrade_makes_for_the_extension_itself() {
    for (version, _) in RELEASED {
        let database = Database::new();
        let mut client = database.connect();
        let role = database.role("app");
        run(
            &mut client,
            &format!(
                "DROP EXTENSION fhir_bulk; CREATE EXTENSION fhir_bulk VERSION '{version}';
                 ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {role}; ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO {role};
                 ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO {role} WITH GRANT OPTION;
                 ALTER EXTENSION fhir_bulk UPDATE"
            ),
        );
        let given = format!(
            "SELECT n.nspname FROM pg_namespace n WHERE nspname = 'fhir_bulk_internal'
                AND has_schema_privilege('{role}', n.oid, 'USAGE, CREATE')
             UNION ALL SELECT proname FROM pg_proc p WHERE pronamespace = 'fhir_bulk_internal'::regnamespace
                AND has_function_privilege('{role}', p.oid, 'EXECUTE')
             UNION ALL SELECT relname FROM pg_class c WHERE relnamespace = 'fhir_bulk_internal'::regnamespace
                AND relkind = 'r' AND has_table_privilege('{role}', c.oid, 'SELECT, INSERT, UPDATE, DELETE')"
        );
        assert_eq!(rows(&mut client, &given), [""; 0], "from {version}");
    }
}

/// Puts the database back to a released version, with what it keeps now: its jobs, their tasks, rejected lines and the secret, in
/// the columns that the version had. Requests of exports lose the members that it did not know.
fn put_back(client: &mut Client, version: &str) {
    run(
        client,
        &format!(
            "CREATE TABLE old_secret AS TABLE fhir_bulk_internal.bulk_secret; CREATE TABLE old_job AS TABLE fhir_bulk_internal.bulk_job;
             CREATE TABLE old_task AS TABLE fhir_bulk_internal.bulk_job_task;
             CREATE TABLE old_reject AS TABLE fhir_bulk_internal.bulk_load_reject_row; DROP EXTENSION fhir_bulk;
             CREATE EXTENSION fhir_bulk VERSION '{version}'; DELETE FROM bulk_secret;
             INSERT INTO bulk_secret TABLE old_secret;
             INSERT INTO bulk_job (number, database, kind, id, role, subject, request, settings, status, created_at, ended_at)
                 OVERRIDING SYSTEM VALUE SELECT number, database, kind, id, role, subject,
                 request - '{{file_bytes,level,left_out,extras,filters}}'::text[], settings, status, created_at, ended_at FROM old_job;
             INSERT INTO bulk_job_task (job, number, input, status, total, lines, stream_bytes, stream_checksum, read_bytes,
                     all_bytes, started_at, changed_at, ended_at, error, result)
                 SELECT job, number, input, status, total, lines, stream_bytes, stream_checksum, read_bytes, all_bytes,
                     started_at, changed_at, ended_at, error, result FROM old_task;
             INSERT INTO bulk_load_reject_row (role, loaded_at, source, line_number, byte_offset, sqlstate, error, line)
                 SELECT role, loaded_at, source, line_number, byte_offset, sqlstate, error, line FROM old_reject;
             DROP TABLE old_secret, old_job, old_task, old_reject"
        ),
    );
}

#[test]
fn a_queued_import_runs_after_an_upgrade_and_files_of_an_export_and_rejected_lines_are_still_there() {
    for (version, _) in RELEASED {
        let database = Database::new();
        let location = format!("file://{}", database.path("exports").display());
        run(
            &mut database.connect(),
            &format!("ALTER DATABASE {} SET fhir_bulk.export_location = '{location}'", database.name()),
        );
        let mut client = database.connect();
        let bad = database.file("bad", patients(1..=3) + "bad\n");
        let skip = "'Patient', options => '{\"on_error\": \"skip\"}'";
        run(&mut client, &load_sql(&bad, skip));
        let exported = value(&mut client, "SELECT bulk_export('{\"_type\": \"Patient\"}')");
        let status = format!("SELECT bulk_export_status('{exported}') ->> 'status'");
        wait_for("the export", || value(&mut client, &status) == "completed");
        // No worker takes a job whose transaction is still open: it is put back while it waits.
        let more = database.file("more", patients(1..=500));
        run(
            &mut client,
            &format!(
                "BEGIN; SELECT bulk_import('{{\"id\": \"queued\", \"inputs\": [{{\"resourceType\": \"Patient\", \"url\": \"{more}\"}}]}}')"
            ),
        );
        put_back(&mut client, version);
        run(&mut client, "COMMIT; ALTER EXTENSION fhir_bulk UPDATE");

        let mut client = database.connect();
        let rejected = "SELECT line_number, sqlstate, convert_from(line, 'UTF8') FROM bulk_load_reject";
        assert_eq!(rows(&mut client, rejected), ["4|22P02|bad"]);
        let import = "SELECT bulk_import_status('queued') ->> 'status'";
        wait_for("the import", || value(&mut client, import) == "finished");
        assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 500);
        assert_eq!(value(&mut client, &status), "completed");
        let files =
            format!("SELECT o ->> 'url' FROM jsonb_array_elements(bulk_export_status('{exported}') -> 'output') o");
        let url = value(&mut client, &files);
        let file = client.query("SELECT bulk_export_file($1)", &[&url]).unwrap();
        let bytes: Vec<u8> = file.iter().flat_map(|row| row.get::<_, Vec<u8>>(0)).collect();
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 3);
        assert_eq!(value(&mut client, &format!("SELECT bulk_export_cancel('{exported}')")), "t");
    }
}

#[test]
fn objects_of_users_that_use_what_an_upgrade_replaces_stop_it_before_any_change() {
    for (version, _) in RELEASED {
        let database = Database::new();
        let mut client = database.connect();
        run(
            &mut client,
            &format!(
                "DROP EXTENSION fhir_bulk; CREATE EXTENSION fhir_bulk VERSION '{version}';
                 CREATE VIEW running AS SELECT id FROM bulk_jobs WHERE status = 'active';
                 CREATE VIEW rejected AS SELECT source, count(*) FROM bulk_load_reject GROUP BY 1"
            ),
        );
        let before = members(&mut client);
        run(
            &mut client,
            "CREATE VIEW patients AS SELECT bulk_dump('Patient') AS line;
             CREATE MATERIALIZED VIEW \"first ones\" AS SELECT line FROM patients LIMIT 3 WITH NO DATA;
             CREATE FUNCTION body(type text) RETURNS SETOF bytea BEGIN ATOMIC SELECT bulk_dump_chunks(type); END;
             CREATE TABLE kept (at timestamptz, line text DEFAULT bulk_load_stage('')::text)",
        );
        let refused = fails(&mut client, "ALTER EXTENSION fhir_bulk UPDATE");
        assert_error_with_hint(&refused, "2BP01", &["fhir_bulk", "objects of yours"]);
        assert_eq!(
            refused.detail().unwrap().lines().collect::<Vec<_>>(),
            [
                "default value for column line of table kept",
                "function body(text)",
                "materialized view \"first ones\"",
                "view patients"
            ]
        );
        assert_eq!(members(&mut client), before);
        // The way out that it tells.
        run(
            &mut client,
            "DROP MATERIALIZED VIEW \"first ones\"; DROP VIEW patients; DROP FUNCTION body; DROP TABLE kept;
             ALTER EXTENSION fhir_bulk UPDATE; CREATE VIEW patients AS SELECT bulk_dump('Patient') AS line",
        );
        // Views on views that stay were never in the way.
        assert_eq!(rows(&mut client, "SELECT * FROM running"), [""; 0]);
        assert_eq!(rows(&mut client, "SELECT * FROM rejected"), [""; 0]);
    }
}

#[test]
fn who_was_kept_from_a_view_or_given_it_still_is_after_an_upgrade() {
    for (version, _) in RELEASED {
        let database = Database::new();
        let mut client = database.connect();
        let role = database.role("reader");
        run(
            &mut client,
            &format!(
                "DROP EXTENSION fhir_bulk; CREATE EXTENSION fhir_bulk VERSION '{version}';
                 REVOKE ALL ON bulk_jobs, bulk_load_reject FROM PUBLIC; GRANT SELECT ON bulk_jobs TO {role};
                 ALTER EXTENSION fhir_bulk UPDATE"
            ),
        );
        let may = |of: &str, view: &str| format!("SELECT has_table_privilege('{of}', '{view}', 'SELECT')");
        assert_eq!(value(&mut client, &may(&role, "bulk_jobs")), "t");
        assert_eq!(value(&mut client, &may(&role, "bulk_load_reject")), "f");
        assert_eq!(value(&mut client, &may("public", "bulk_jobs")), "f");
    }
}

#[test]
fn a_parallel_dump_and_restore_brings_resources_and_makes_anew_what_the_extension_keeps_for_itself() {
    let (database, copy) = (Database::new(), Database::new());
    let mut client = database.connect();
    let bad = database.file("bad", patients(1..=3000) + "bad\n");
    run(&mut client, &load_sql(&bad, "'Patient', options => '{\"on_error\": \"skip\"}'"));
    let url = database.file("good", patients(1..=10));
    let update = "'Patient', options => '{\"update\": true}'";
    load(&mut client, &url, update);
    let request = format!("{{\"id\": \"done\", \"inputs\": [{{\"resourceType\": \"Patient\", \"url\": \"{url}\"}}]}}");
    run(&mut client, &format!("SELECT bulk_import('{request}')"));
    wait_for("the import", || value(&mut client, "SELECT status FROM bulk_jobs") == "finished");
    run(&mut copy.connect(), "DROP EXTENSION fhir_bulk");

    let folder = database.path("dump");
    let programs: [(&str, &[&str], &Database); 2] =
        [("pg_dump", &["-Fd", "-f"], &database), ("pg_restore", &[], &copy)];
    for (program, arguments, of) in programs {
        let mut command = Command::new(bin(program));
        command.args(["-j", "2", "-d", &of.cluster().dsn("postgres", of.name())]).args(arguments).arg(&folder);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    let mut restored = copy.connect();
    for table in ["patient", "patient_history"] {
        let content = format!("SELECT count(*), md5(string_agg(t::text, '' ORDER BY id, txid)) FROM {table} t");
        assert_eq!(rows(&mut restored, &content), rows(&mut client, &content), "{table}");
    }
    assert_eq!(count(&mut restored, "SELECT count(*) FROM patient"), 3000);
    assert_eq!(count(&mut restored, "SELECT count(*) FROM bulk_jobs"), 0);
    assert_eq!(count(&mut restored, "SELECT count(*) FROM bulk_load_reject"), 0);
    let secret = "SELECT secret FROM fhir_bulk_internal.bulk_secret";
    assert_ne!(value(&mut restored, secret), value(&mut client, secret));
    assert_eq!(load(&mut restored, &url, update), r#"{"total": 10}"#);
    assert_eq!(members(&mut restored), members(&mut client));
}
