//! Upgrades from every released version to this one.

use crate::support::{assert_error, count, fails, load, patients, rows, run, value};
use fhir_bulk_tests::{Client, Database};
use ring::digest::{SHA256, digest};
use std::path::Path;

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
        run(&mut client, "ALTER EXTENSION fhir_bulk UPDATE");
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
