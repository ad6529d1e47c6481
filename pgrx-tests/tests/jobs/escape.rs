//! User code in a worker gets only its owner's rights, and leaves no state for the next job.

use crate::job::{allowed, finish, import, import_sql, inputs, one_worker};
use crate::support::{count, patients, rows, run};
use fhir_bulk_tests::{Client, Database};
use serde_json::json;

/// A role that may import from files, owns tables and writes triggers.
fn author(database: &Database, client: &mut Client, name: &str) -> String {
    let role = database.role(name);
    run(
        client,
        &format!(
            "GRANT CREATE ON SCHEMA public TO {role}; GRANT pg_read_server_files TO {role};
             GRANT EXECUTE ON FUNCTION bulk_import(jsonb, boolean), bulk_import_cancel(text), bulk_create_table(text)
             TO {role}"
        ),
    );
    role
}

const ATTEMPTS: [&str; 13] = [
    "RESET ROLE",
    "SET ROLE postgres",
    "SET LOCAL ROLE postgres",
    "SET ROLE NONE",
    "SET SESSION AUTHORIZATION postgres",
    "SET SESSION AUTHORIZATION DEFAULT",
    "RESET SESSION AUTHORIZATION",
    "SET LOCAL SESSION AUTHORIZATION postgres",
    "SELECT set_config('role', 'postgres', false)",
    "SELECT set_config('role', 'none', true)",
    "SELECT set_config('session_authorization', 'postgres', false)",
    "ALTER ROLE CURRENT_USER SUPERUSER",
    "SET session_replication_role = replica",
];

#[test]
fn triggers_cannot_become_another_role_not_at_the_commit_either() {
    let (database, mut client) = allowed();
    let role = author(&database, &mut client, "author");
    run(&mut client, &format!("SET ROLE {role}; SELECT bulk_create_table('Patient')"));
    let attempts = ATTEMPTS.map(|sql| format!("$q${sql}$q$")).join(", ");
    run(
        &mut client,
        &format!(
            "CREATE TABLE attempt (trigger text, sql text, state text, who text, session text, super text);
             CREATE FUNCTION escape() RETURNS trigger LANGUAGE plpgsql AS $f$
             DECLARE sql text; state text;
             BEGIN
               FOREACH sql IN ARRAY ARRAY[{attempts}] LOOP
                 state := '00000';
                 BEGIN EXECUTE sql; EXCEPTION WHEN OTHERS THEN state := sqlstate; END;
                 INSERT INTO public.attempt
                 VALUES (TG_NAME, sql, state, current_user, session_user, current_setting('is_superuser'));
               END LOOP;
               RETURN NEW;
             END $f$;
             CREATE TRIGGER at_once BEFORE INSERT ON patient FOR EACH ROW EXECUTE FUNCTION escape();
             CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON patient DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION escape()"
        ),
    );
    let url = database.file("one", patients(1..=3));
    run(&mut client, "SET fhir_bulk.import_commit_rows = 1");
    import(&mut client, "escape", &[("Patient", &url)]);
    assert_eq!(inputs(&finish(&mut client, "escape")), ["finished 3"]);
    assert_eq!(
        rows(&mut client, "SELECT who, session, super, count(*) FROM attempt GROUP BY 1, 2, 3"),
        [format!("{role}|{role}|off|{}", ATTEMPTS.len() * 3 * 2)]
    );
    assert_eq!(rows(&mut client, "SELECT DISTINCT trigger, sql FROM attempt WHERE state = '00000'"), [""; 0]);
}

/// Operators and functions that a role puts before PostgreSQL's own by search_path.
#[test]
fn what_a_search_path_shadows_is_never_run_by_the_queue() {
    let (database, mut client) = allowed();
    let role = author(&database, &mut client, "author");
    run(
        &mut client,
        &format!("CREATE SCHEMA evil AUTHORIZATION {role}; SET ROLE {role}; SELECT bulk_create_table('Patient')"),
    );
    run(
        &mut client,
        "CREATE TABLE evil.seen (what text, who text);
         GRANT INSERT ON evil.seen TO PUBLIC; GRANT USAGE ON SCHEMA evil TO PUBLIC;
         CREATE FUNCTION evil.note(what text) RETURNS void LANGUAGE sql AS
           'INSERT INTO evil.seen VALUES (what, current_user)'",
    );
    let types =
        ["text", "bigint", "integer", "oid", "name", "boolean", "jsonb", "timestamptz", "double precision", "numeric"];
    for of in types {
        for (name, operator, result) in [
            ("eq", "=", "boolean"),
            ("ne", "<>", "boolean"),
            ("lt", "<", "boolean"),
            ("gt", ">", "boolean"),
            ("plus", "+", of),
            ("minus", "-", of),
            ("times", "*", of),
            ("cat", "||", of),
        ] {
            let body = if result == "boolean" { "true".to_owned() } else { "$1".to_owned() };
            run(
                &mut client,
                &format!(
                    "CREATE FUNCTION evil.{name}({of}, {of}) RETURNS {result} LANGUAGE sql AS
                       $$ SELECT evil.note('{operator} {of}'); SELECT {body} $$;
                     CREATE OPERATOR evil.{operator} (LEFTARG = {of}, RIGHTARG = {of}, FUNCTION = evil.{name})"
                ),
            );
        }
    }
    for (left, right) in [("bigint", "integer"), ("integer", "bigint"), ("timestamptz", "interval"), ("oid", "bigint")]
    {
        for (name, operator, result) in
            [("eq", "=", "boolean"), ("lt", "<", "boolean"), ("gt", ">", "boolean"), ("minus", "-", left)]
        {
            let body = if result == "boolean" { "true" } else { "$1" };
            run(
                &mut client,
                &format!(
                    "CREATE FUNCTION evil.{name}({left}, {right}) RETURNS {result} LANGUAGE sql AS
                       $$ SELECT evil.note('{left} {operator} {right}'); SELECT {body} $$;
                     CREATE OPERATOR evil.{operator} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = evil.{name})"
                ),
            );
        }
    }
    for (signature, result, body) in [
        ("now()", "timestamptz", "NULL::timestamptz"),
        ("clock_timestamp()", "timestamptz", "NULL::timestamptz"),
        ("to_jsonb(anyelement)", "jsonb", "'1'::jsonb"),
        ("round(numeric)", "numeric", "$1"),
        ("nextval(regclass)", "bigint", "1::bigint"),
        ("pg_get_userbyid(oid)", "name", "'x'::name"),
        ("date_part(text, timestamptz)", "double precision", "1::float8"),
        ("jsonb_array_elements(jsonb)", "jsonb", "$1"),
        ("gen_random_uuid()", "uuid", "NULL::uuid"),
        ("bulk_job_subject()", "text", "NULL::text"),
        ("pg_has_role(name, text, text)", "boolean", "true"),
        ("unnest(anyarray)", "anyelement", "$1[1]"),
    ] {
        let name = signature.split('(').next().unwrap();
        let sql = format!(
            "CREATE FUNCTION evil.{signature} RETURNS {result} LANGUAGE sql AS $$ SELECT evil.note('{name}'); SELECT {body} $$"
        );
        run(&mut client, &sql);
    }
    run(
        &mut client,
        "CREATE TABLE evil.bulk_job (LIKE public.bulk_load_reject); CREATE TABLE evil.bulk_job_task (id text)",
    );
    let url = database.file("one", patients(1..=300));
    for (id, path) in [("first", "evil, pg_catalog, public"), ("second", "evil, public")] {
        run(&mut client, &format!("SET search_path = {path}; SET fhir_bulk.import_commit_rows = 100"));
        import(&mut client, id, &[("Patient", &url)]);
        run(&mut client, &import_sql("", &[], json!({"inputs": [{"url": url}]})).replace("\"id\":\"\",", ""));
        let status = finish(&mut client, id);
        assert_eq!(inputs(&status), ["finished 300"], "{status}");
        run(&mut client, "SELECT bulk_import_cancel('none'); SELECT * FROM bulk_jobs");
    }
    run(&mut client, "RESET ROLE; RESET search_path");
    assert_eq!(rows(&mut client, "SELECT * FROM evil.seen"), [""; 0]);
}

#[test]
fn nothing_of_a_session_is_left_to_the_next_owners_job() {
    let (database, mut client) = one_worker();
    let roles = ["first", "second"].map(|name| author(&database, &mut client, name));
    run(&mut client, "CREATE TABLE left_over (who text, pid int, what text); GRANT ALL ON left_over TO PUBLIC");
    for role in &roles {
        run(
            &mut client,
            &format!(
                "CREATE SCHEMA {role} AUTHORIZATION {role}; CREATE SEQUENCE {role}.s;
                 SET ROLE {role}; SET fhir_bulk.data_schema = {role}; SELECT bulk_create_table('Patient');
                 CREATE FUNCTION {role}.leave() RETURNS trigger LANGUAGE plpgsql AS $f$
                 BEGIN
                   INSERT INTO public.left_over SELECT current_user, pg_backend_pid(), what FROM (
                     SELECT 'nothing' UNION ALL
                     SELECT 'prepared ' || name FROM pg_prepared_statements UNION ALL
                     SELECT 'table ' || relname FROM pg_class WHERE relnamespace = pg_my_temp_schema() UNION ALL
                     SELECT 'function ' || proname FROM pg_proc WHERE pronamespace = pg_my_temp_schema() UNION ALL
                     SELECT 'setting' WHERE current_setting('a.secret', true) <> '' OR current_setting('work_mem') = '3MB' UNION ALL
                     SELECT 'lock ' || objid FROM pg_locks WHERE locktype = 'advisory' AND objid = 7 AND pid = pg_backend_pid() UNION ALL
                     SELECT 'cursor ' || name FROM pg_cursors WHERE is_holdable) AS found (what);
                   PREPARE kept AS SELECT 1;
                   CREATE TEMP TABLE kept (secret text); INSERT INTO kept VALUES ('of {role}');
                   CREATE FUNCTION pg_temp.kept() RETURNS int LANGUAGE sql AS 'SELECT 1';
                   PERFORM set_config('a.secret', 'of {role}', false), set_config('work_mem', '3MB', false);
                   PERFORM pg_advisory_lock(7);
                   DECLARE kept CURSOR WITH HOLD FOR SELECT 1;
                   RETURN NEW;
                 END $f$;
                 CREATE TRIGGER leave BEFORE INSERT ON {role}.patient FOR EACH ROW EXECUTE FUNCTION {role}.leave();
                 RESET ROLE"
            )
            .replace("DECLARE kept CURSOR WITH HOLD FOR SELECT 1;", "EXECUTE 'DECLARE kept CURSOR WITH HOLD FOR SELECT 1';"),
        );
    }
    let url = database.file("one", patients(1..=1));
    let ask: Vec<String> = roles
        .iter()
        .map(|role| {
            format!(
                "SET LOCAL ROLE {role}; SET LOCAL fhir_bulk.data_schema = {role}; {}",
                import_sql("one", &[("Patient", &url)], json!({}))
            )
        })
        .collect();
    run(&mut client, &format!("BEGIN; {}; COMMIT", ask.join(";")));
    for role in &roles {
        run(&mut client, &format!("SET ROLE {role}"));
        let status = finish(&mut client, "one");
        assert_eq!(inputs(&status), ["finished 1"], "{status}");
        run(&mut client, "RESET ROLE");
    }
    assert_eq!(count(&mut client, "SELECT count(DISTINCT pid) FROM left_over"), 1, "the same process did both");
    assert_eq!(
        rows(&mut client, "SELECT who, what FROM left_over ORDER BY 1, 2"),
        roles.map(|role| format!("{role}|nothing"))
    );
}
