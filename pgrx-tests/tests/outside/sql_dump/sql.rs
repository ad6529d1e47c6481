//! `INSERT`s that put the rows back.

use super::{body, dump_sql, every_type};
use crate::support::{assert_error, assert_error_with_hint, fails, rows, run, value};
use fhir_bulk_tests::Database;

#[test]
fn inserts_replayed_by_psql_make_an_equal_table_of_every_type() {
    let (database, mut client) = every_type::database();
    let expected = rows(&mut client, "SELECT e::text FROM every_type AS e ORDER BY n");
    for (at, (written_under, read_under)) in [
        ("RESET ALL", ""),
        (
            "SET DateStyle = 'German'; SET IntervalStyle = 'sql_standard'; SET extra_float_digits = -3; SET bytea_output = 'escape'",
            "SET standard_conforming_strings = off; SET escape_string_warning = off; SET DateStyle = 'SQL, DMY'; SET IntervalStyle = 'sql_standard'; SET TimeZone = 'Asia/Kolkata';",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        run(&mut client, written_under);
        let table = format!("copy_{at}");
        run(&mut client, &format!("CREATE TABLE {table} (LIKE every_type)"));
        let options = format!(r#"{{"table": "public.{table}", "rows_per_insert": 3}}"#);
        let script = body(&mut client, "SELECT * FROM every_type ORDER BY n", "sql", &options);
        assert_eq!(script.matches("INSERT INTO \"public\".").count(), 2);
        let path = database.path("replay.sql");
        std::fs::write(&path, format!("{read_under}\n{script}")).unwrap();
        let output = database.cluster().psql("postgres", database.name(), &["-f", &path.display().to_string()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        run(&mut client, "RESET ALL; SET TimeZone = 'Europe/Berlin'");
        assert_eq!(rows(&mut client, &format!("SELECT c::text FROM {table} AS c ORDER BY n")), expected);
    }
}

#[test]
fn an_insert_is_written_as_documented() {
    let mut client = Database::new().connect();
    let query = r#"SELECT g AS id, 'it''s ' || g AS "a ""b""", NULL::text AS c, 1.50 AS d, g = 1 AS e, E'\\' AS f FROM generate_series(1, 3) AS g"#;
    assert_eq!(
        body(&mut client, query, "sql", r#"{"table": "Patient_Copy", "rows_per_insert": 2}"#),
        r#"INSERT INTO "patient_copy" ("id", "a ""b""", "c", "d", "e", "f") VALUES
(1, 'it''s 1', NULL, 1.50, true, E'\\'),
(2, 'it''s 2', NULL, 1.50, false, E'\\');
INSERT INTO "patient_copy" ("id", "a ""b""", "c", "d", "e", "f") VALUES
(3, 'it''s 3', NULL, 1.50, false, E'\\');
"#
    );
    let many = body(&mut client, "SELECT g FROM generate_series(1, 250) AS g", "sql", r#"{"table": "t"}"#);
    assert_eq!(many.matches("INSERT").count(), 3);
    assert_eq!(body(&mut client, "SELECT 1 WHERE false", "sql", r#"{"table": "t"}"#), "");
    // Not even a table's name can leave its quotes.
    let odd = body(&mut client, "SELECT 1 AS a", "sql", r#"{"table": "\"a\"\"; DROP TABLE t; --\".\"x.y\""}"#);
    assert_eq!(odd, "INSERT INTO \"a\"\"; DROP TABLE t; --\".\"x.y\" (\"a\") VALUES\n(1);\n");
}

#[test]
fn options_of_inserts_are_checked() {
    let mut client = Database::new().connect();
    let mut refused =
        |query: &str, options: &str| fails(&mut client, &format!("SELECT {}", dump_sql(query, "sql", options)));
    assert_error_with_hint(&refused("SELECT 1", "{}"), "22023", &["format sql needs the option table"]);
    assert_error(&refused("SELECT 1", r#"{"table": 7}"#), "22023", &["option table"]);
    for name in ["", "a b", "a..b", "a.b.c.d", "\\\"a", "a; DROP TABLE b"] {
        let error = refused("SELECT 1", &format!("{{\"table\": \"{name}\"}}"));
        assert_error_with_hint(&error, "42602", &["option table is not a table name"]);
    }
    for rows in ["0", "-1", "1.5", "\"2\"", "1000001"] {
        let options = format!(r#"{{"table": "t", "rows_per_insert": {rows}}}"#);
        assert_error(&refused("SELECT 1", &options), "22023", &["option rows_per_insert", "1 to 1000000"]);
    }
    assert_error(&refused("SELECT", r#"{"table": "t"}"#), "22023", &["columns"]);
}

#[test]
fn settings_that_are_fixed_for_sql_are_the_sessions_own_again_also_after_an_error() {
    let mut client = Database::new().connect();
    run(&mut client, "SET DateStyle = 'German, DMY'; SET IntervalStyle = 'iso_8601'; SET extra_float_digits = -3");
    let settings = "SELECT concat_ws('; ', current_setting('DateStyle'), current_setting('IntervalStyle'), current_setting('extra_float_digits'))";
    let before = value(&mut client, settings);
    let query = "SELECT date '01.02.2024' + g AS d, 1 / (2000 - g) AS n, repeat('x', 100) AS x FROM generate_series(1, 3000) AS g";
    let call = dump_sql(query, "sql", r#"{"table": "t"}"#);
    // Between the rows of a query that is being read.
    run(&mut client, &format!("BEGIN; DECLARE c CURSOR FOR SELECT {call}"));
    assert!(rows(&mut client, "FETCH 1 FROM c")[0].contains("('2024-02-02', 0, 'xxx"));
    assert_eq!(value(&mut client, settings), before);
    run(&mut client, "SAVEPOINT s");
    assert_error(&fails(&mut client, "FETCH ALL FROM c"), "22012", &["division by zero"]);
    run(&mut client, "ROLLBACK TO s");
    assert_eq!(value(&mut client, settings), before);
    run(&mut client, "COMMIT");
    assert_eq!(value(&mut client, settings), before);
    run(
        &mut client,
        &format!(
            "DO $$ BEGIN PERFORM {call}; EXCEPTION WHEN division_by_zero THEN ASSERT ({settings}) = '{before}'; END $$"
        ),
    );
    assert_eq!(value(&mut client, settings), before);
}
