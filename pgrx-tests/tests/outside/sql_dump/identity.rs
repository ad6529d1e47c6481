//! A query cannot become somebody else: neither by a setting that policies read, nor by a role.

use super::read_only::{refused, session, state};
use super::{dump_sql, literal};
use crate::support::{assert_error, fails, rows, run, value};

#[test]
fn no_way_to_call_set_config_shows_rows_that_a_policy_hides() {
    let (database, mut admin) = session();
    let role = database.role("app");
    run(
        &mut admin,
        &format!(
            "CREATE TABLE secret (owner text, what text); INSERT INTO secret VALUES ('alice', 'of alice'), ('bob', 'of bob');
             ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON secret USING (owner = current_setting('request.jwt.claims', true)::json ->> 'sub');
             GRANT SELECT ON secret TO {role};
             CREATE FUNCTION becomes(claims text) RETURNS text LANGUAGE plpgsql AS
               $$ DECLARE x text; BEGIN x := set_config('request.jwt.claims', claims, true); RETURN x; END $$"
        ),
    );
    let mut client = database.connect_as(&role);
    run(&mut client, r#"SET request.jwt.claims = '{"sub": "alice"}'"#);
    assert_eq!(rows(&mut client, "SELECT dump_sql('SELECT what FROM secret')"), ["of alice"]);
    let bob = r#"'{"sub": "bob"}'"#;
    for query in [
        format!(
            "WITH x AS MATERIALIZED (SELECT set_config('request.jwt.claims', {bob}, false)) SELECT what FROM x, secret"
        ),
        format!("SELECT what FROM (SELECT set_config('request.jwt.claims', {bob}, true) OFFSET 0) AS x, secret"),
        format!("SELECT what FROM set_config('request.jwt.claims', {bob}, true), secret"),
        format!("SELECT what FROM secret WHERE set_config('request.jwt.claims', {bob}, true) <> ''"),
        format!("SELECT what FROM secret ORDER BY set_config('request.jwt.claims', {bob}, true)"),
        format!("SELECT count(what) FILTER (WHERE set_config('request.jwt.claims', {bob}, true) <> '') FROM secret"),
        format!("SELECT what FROM secret LIMIT length(set_config('request.jwt.claims', {bob}, true))"),
        format!(
            "SELECT query_to_xml('SELECT set_config(''request.jwt.claims'', {}, true)', true, true, '')",
            bob.replace('\'', "''")
        ),
        format!("SELECT becomes({bob}), query_to_xml('SELECT * FROM secret', true, true, '')"),
        format!("SELECT xmlelement(name x, set_config('request.jwt.claims', {bob}, true)), what FROM secret"),
        format!(
            "SELECT * FROM ROWS FROM (set_config('request.jwt.claims', {bob}, true), generate_series(1, 2)) AS x, secret"
        ),
        format!(
            "SELECT what FROM ts_stat('SELECT set_config(''request.jwt.claims'', {}, true)::tsvector'), secret",
            bob.replace('\'', "''")
        ),
        format!("SELECT tries({}), what FROM secret", literal(&format!("SELECT becomes({bob})"))),
        format!("SELECT what FROM (VALUES (pg_catalog.set_config('request.jwt.claims', {bob}, false))) AS x, secret"),
    ] {
        let result = client.simple_query(&format!("SELECT {}", dump_sql(&query, "csv", "{}")));
        let shown = format!("{result:?}");
        assert!(!shown.contains("of bob"), "{query}: {shown}");
        assert_eq!(
            value(&mut client, "SELECT current_setting('request.jwt.claims')"),
            r#"{"sub": "alice"}"#,
            "{query}"
        );
        assert_eq!(rows(&mut client, "SELECT what FROM secret"), ["of alice"], "{query}");
    }
    let direct = format!("SELECT set_config('request.jwt.claims', {bob}, false)");
    assert_error(&refused(&mut client, &direct), "25006", &["set_config()"]);
}

#[test]
fn no_query_becomes_another_role() {
    let (database, mut admin) = session();
    let (role, other) = (database.role("app"), database.role("other"));
    run(
        &mut admin,
        &format!(
            "ALTER ROLE {role} NOINHERIT; GRANT {other} TO {role};
             CREATE TABLE secret (what text); INSERT INTO secret VALUES ('his'); GRANT SELECT ON secret TO {other};
             CREATE FUNCTION by_clause() RETURNS text LANGUAGE plpgsql SET role = '{other}' AS
               $$ BEGIN RETURN (SELECT what FROM secret); END $$;
             CREATE FUNCTION by_definer() RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS
               $$ BEGIN RETURN current_user || does('RESET ROLE'); END $$;
             CREATE FUNCTION by_right() RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS
               $$ BEGIN RETURN (SELECT what FROM secret); END $$"
        ),
    );
    let mut client = database.connect_as(&role);
    // Without dump_sql, both ways are open.
    assert_eq!(value(&mut client, "SELECT by_clause()"), "his");
    assert_eq!(value(&mut client, &format!("BEGIN; SET LOCAL ROLE {other}; SELECT what FROM secret; ROLLBACK")), "his");
    let shown =
        format!("SELECT query_to_xml('SELECT * FROM secret', true, true, '') FROM set_config('role', '{other}', true)");
    for (query, sqlstate) in [
        ("SELECT what FROM secret".to_owned(), "42501"),
        ("SELECT by_clause()".to_owned(), "42501"),
        ("SELECT by_definer()".to_owned(), "25006"),
        (format!("SELECT does('SET ROLE {other}'), does('SELECT what FROM secret')"), "25006"),
        (format!("SELECT does('SET LOCAL ROLE {other}')"), "25006"),
        ("SELECT does('RESET ROLE')".to_owned(), "25006"),
        (format!("SELECT does('SET SESSION AUTHORIZATION {other}')"), "25006"),
        (shown, "25006"),
    ] {
        let error = refused(&mut client, &query);
        assert_eq!(error.code().code(), sqlstate, "{query}: {error:?}");
        assert_eq!(value(&mut client, "SELECT current_user"), role);
    }
    let caught = format!("SELECT tries('SET ROLE {other}'), tries('SELECT what FROM secret'), current_user");
    assert_eq!(
        rows(&mut client, &format!("SELECT {}", dump_sql(&caught, "csv", "{}"))),
        [format!("25006,42501,{role}")]
    );
    // What was made to lend rights lends them.
    assert_eq!(rows(&mut client, "SELECT dump_sql('SELECT by_right()')"), ["his"]);
    // The caller can change its role afterwards, and under it dumps with its rights.
    run(&mut client, &format!("SET ROLE {other}"));
    assert_eq!(rows(&mut client, "SELECT dump_sql('SELECT what, current_user FROM secret')"), [format!("his,{other}")]);
    run(&mut client, "RESET ROLE");
}

#[test]
fn set_config_is_found_wherever_a_query_can_hide_it() {
    let (_database, mut client) = session();
    run(
        &mut client,
        "CREATE FUNCTION sets(text) RETURNS text LANGUAGE sql AS $$ SELECT set_config('request.jwt.claims', $1, true) $$;
         CREATE AGGREGATE gathers(text, boolean) (sfunc = set_config, stype = text, initcond = 'request.jwt.claims');
         CREATE AGGREGATE slides(text, boolean) (sfunc = set_config, stype = text, initcond = 'request.jwt.claims',
           msfunc = set_config, minvfunc = set_config, mstype = text, minitcond = 'request.jwt.claims');
         CREATE DOMAIN checked AS text CHECK (sets(VALUE) IS NOT NULL);
         CREATE TYPE holds AS (a checked);
         CREATE OPERATOR ~~> (rightarg = text, function = sets);
         CREATE TYPE told AS ENUM ('x');
         CREATE FUNCTION tells(told) RETURNS json LANGUAGE plpgsql AS $$ BEGIN RETURN to_json(sets('x')); END $$;
         CREATE CAST (told AS json) WITH FUNCTION tells(told);
         CREATE TABLE guarded (a text); INSERT INTO guarded VALUES ('x'); ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
         ALTER TABLE guarded FORCE ROW LEVEL SECURITY; CREATE POLICY p ON guarded USING (sets(a) <> '');
         GRANT SELECT ON guarded TO PUBLIC",
    );
    let before = state(&mut client);
    for query in [
        "SELECT sets(x) FROM (VALUES ('a'), ('b')) AS v(x)",
        "SELECT gathers(x, true) FROM (VALUES ('a'), ('b')) AS v(x)",
        "SELECT gathers(x, true) OVER (ORDER BY x) FROM (VALUES ('a'), ('b')) AS v(x)",
        "SELECT slides(x, true) OVER (ORDER BY x ROWS 1 PRECEDING) FROM (VALUES ('a'), ('b'), ('c')) AS v(x)",
        "SELECT 'a'::checked",
        "SELECT x::checked FROM (VALUES ('a'), ('b')) AS v(x)",
        "SELECT * FROM json_to_recordset('[{\"a\": \"x\"}]') AS r(a checked)",
        "SELECT jsonb_populate_record(NULL::holds, '{\"a\": \"x\"}')",
        "SELECT '(x)'::holds",
        "SELECT ~~> 'x'::text",
        "SELECT CASE WHEN x = 'b' THEN sets(x) END FROM (VALUES ('a'), ('b')) AS v(x)",
        "SELECT 'x'::told::json",
        "SELECT 1 ORDER BY (SELECT sets('x'))",
        "SELECT count(*) FROM generate_series(1, length(sets('abc')))",
    ] {
        assert_error(&refused(&mut client, query), "25006", &["set_config()"]);
        assert_eq!(state(&mut client), before, "{query}");
    }
    // Also where the format alone asks for it.
    for query in ["SELECT 'x'::told", "SELECT ARRAY[ROW(1, 'x'::told)]"] {
        let error = fails(&mut client, &format!("SELECT {}", dump_sql(query, "ndjson", "{}")));
        assert_error(&error, "25006", &["set_config()"]);
        assert_eq!(state(&mut client), before, "{query}");
    }
    // And in a policy, which is the table owner's affair, but not the query's to profit from.
    run(&mut client, "SET ROLE pg_monitor");
    assert_error(&refused(&mut client, "SELECT a FROM guarded"), "25006", &["set_config()"]);
}
