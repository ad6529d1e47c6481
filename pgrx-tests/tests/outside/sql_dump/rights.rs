//! A query runs with its caller's rights, policies and search path, and with nothing more.

use super::dump_sql;
use crate::support::{assert_error, fails, rows, run, value};
use fhir_bulk_tests::Database;

#[test]
fn a_role_dumps_what_it_may_select_and_no_more() {
    let database = Database::new();
    let mut admin = database.connect();
    let role = database.role("reader");
    run(
        &mut admin,
        &format!(
            "CREATE TABLE open (a integer, hidden integer); INSERT INTO open VALUES (1, 2), (3, 4);
             CREATE TABLE closed (a integer);
             CREATE TABLE filtered (a integer, owner name); INSERT INTO filtered VALUES (1, '{role}'), (2, 'somebody');
             ALTER TABLE filtered ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON filtered USING (owner = current_user);
             GRANT SELECT (a) ON open TO {role}; GRANT SELECT ON filtered TO {role}"
        ),
    );
    let mut client = database.connect_as(&role);
    let mut dump = |query: &str| client.query(&format!("SELECT {}", dump_sql(query, "csv", "{}")), &[]);
    let texts = |rows: Vec<postgres::Row>| rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>();
    assert_eq!(texts(dump("SELECT a FROM open ORDER BY a").unwrap()), ["1", "3"]);
    assert_eq!(texts(dump("SELECT a, owner FROM filtered").unwrap()), [format!("1,{role}")]);
    for query in ["SELECT hidden FROM open", "SELECT * FROM closed", "SELECT pg_read_file('/etc/passwd')"] {
        assert_error(&fhir_bulk_tests::error(dump(query)), "42501", &["permission denied"]);
    }
    // SECURITY_LOCAL_USERID_CHANGE and all else end with the call.
    run(&mut client, "SET row_security = off");
    let error = fails(&mut client, "SELECT dump_sql('TABLE filtered')");
    assert_error(&error, "42501", &["query would be affected by row-level security policy"]);
    let granted = value(
        &mut admin,
        "SELECT bool_and(has_function_privilege('public', oid, 'EXECUTE')) FROM pg_proc WHERE proname IN ('dump_sql', 'dump_sql_chunks')",
    );
    assert_eq!(granted, "t");
}

#[test]
fn names_are_those_of_the_callers_search_path() {
    let database = Database::new();
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.t AS SELECT 'of a' AS x; CREATE TABLE b.t AS SELECT 'of b' AS x;
         CREATE FUNCTION b.upper(text) RETURNS text LANGUAGE sql AS $$ SELECT 'of b' $$",
    );
    for (path, expected) in
        [("a, public", "of a,OF A"), ("b, public", "of b,OF B"), ("b, pg_catalog, public", "of b,of b")]
    {
        run(&mut client, &format!("SET search_path = {path}"));
        assert_eq!(rows(&mut client, "SELECT dump_sql('SELECT x, upper(x) FROM t')"), [expected]);
    }
    // Within a function with a path of its own, that one.
    run(
        &mut client,
        "CREATE FUNCTION public.fixed() RETURNS SETOF text LANGUAGE sql SET search_path = a, public AS $$ SELECT dump_sql('SELECT x FROM t') $$",
    );
    assert_eq!(rows(&mut client, "SELECT fixed()"), ["of a"]);
}
