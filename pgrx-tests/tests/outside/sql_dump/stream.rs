//! Streaming: early ends, cursors, snapshots, gzip, interrupts, memory.

use super::{body, dump_sql};
use crate::support::{assert_error, count, fails, rows, run, value};
use fhir_bulk_tests::{Database, gunzip};
use std::time::{Duration, Instant};

const SERIES: &str = "SELECT g, repeat('x', 100) AS x FROM generate_series(1, 60000) AS g";

#[test]
fn chunks_of_any_size_and_gzip_make_the_body_of_the_rows() {
    let mut client = Database::new().connect();
    for (format, options) in
        [("csv", "{}"), ("json", "{}"), ("sql", r#"{"table": "t"}"#), ("elastic-bulk", r#"{"index": "i"}"#)]
    {
        let expected = body(&mut client, SERIES, format, options);
        for size in [65_536, 16 << 20] {
            for gzip in [false, true] {
                let sql = format!(
                    "SELECT dump_sql_chunks('{}', '{format}', {gzip}, '{options}', {size})",
                    SERIES.replace('\'', "''")
                );
                let chunks: Vec<Vec<u8>> = client.query(&sql, &[]).unwrap().iter().map(|row| row.get(0)).collect();
                let (last, others) = chunks.split_last().unwrap();
                assert!(others.iter().all(|chunk| chunk.len() == size) && (1..=size).contains(&last.len()), "{sql}");
                let whole = if gzip { gunzip(&chunks.concat()) } else { chunks.concat() };
                assert!(whole == expected.as_bytes(), "{sql}");
            }
        }
    }
    let empty: Vec<u8> =
        client.query_one("SELECT dump_sql_chunks('SELECT 1 WHERE false', gzip => true)", &[]).unwrap().get(0);
    assert!(gunzip(&empty).is_empty());
    assert!(client.query("SELECT dump_sql_chunks('SELECT 1 WHERE false')", &[]).unwrap().is_empty());
}

#[test]
fn limit_1_answers_at_once_and_leaves_no_cursor() {
    let mut client = Database::new().connect();
    let start = Instant::now();
    // It never ends.
    let query =
        dump_sql("WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n) SELECT i FROM n", "ndjson", "{}");
    assert_eq!(rows(&mut client, &format!("SELECT {query} LIMIT 2")), ["{\"i\":1}", "{\"i\":2}"]);
    assert!(start.elapsed() < Duration::from_secs(30));
    run(&mut client, "BEGIN");
    assert_eq!(rows(&mut client, &format!("SELECT {query} LIMIT 5")).len(), 5);
    assert_eq!(count(&mut client, "SELECT count(*) FROM pg_cursors"), 0);
    run(&mut client, &format!("DECLARE mine CURSOR FOR SELECT {query}"));
    assert_eq!(rows(&mut client, "FETCH 20000 FROM mine").len(), 20_000);
    assert_eq!(rows(&mut client, "SELECT name FROM pg_cursors"), ["mine"]);
    run(&mut client, "CLOSE mine; COMMIT");
}

#[test]
fn a_dump_sees_one_moment_from_its_first_row_to_its_last() {
    let database = Database::new();
    let (mut client, mut other) = (database.connect(), database.connect());
    run(&mut client, "CREATE TABLE t AS SELECT g AS a, repeat('x', 100) AS b FROM generate_series(1, 5000) AS g");
    run(&mut client, "BEGIN; DECLARE c CURSOR FOR SELECT dump_sql('SELECT a FROM t ORDER BY a')");
    assert_eq!(rows(&mut client, "FETCH 3 FROM c"), ["1", "2", "3"]);
    run(&mut other, "DELETE FROM t WHERE a % 2 = 0; UPDATE t SET a = -a; INSERT INTO t VALUES (0, '')");
    run(&mut client, "DELETE FROM t");
    let rest = rows(&mut client, "FETCH ALL FROM c");
    assert_eq!(rest, (4..=5000).map(|n| n.to_string()).collect::<Vec<_>>());
    run(&mut client, "ROLLBACK");
}

#[test]
fn a_dump_that_was_begun_inside_a_savepoint_goes_on_when_that_is_rolled_back() {
    let mut client = Database::new().connect();
    let call = dump_sql(SERIES, "csv", "{}");
    run(&mut client, &format!("BEGIN; DECLARE c CURSOR FOR SELECT {call}; SAVEPOINT s"));
    assert_eq!(rows(&mut client, "FETCH 5 FROM c").len(), 5);
    run(&mut client, "ROLLBACK TO s");
    assert_eq!(rows(&mut client, "FETCH ALL FROM c").len(), 59_995);
    run(&mut client, "ROLLBACK");
    // Other savepoints do not matter.
    run(&mut client, &format!("BEGIN; DECLARE c CURSOR FOR SELECT {call}"));
    assert_eq!(rows(&mut client, "FETCH 5 FROM c").len(), 5);
    run(&mut client, "SAVEPOINT s; CREATE TABLE t (); ROLLBACK TO s");
    assert_eq!(rows(&mut client, "FETCH ALL FROM c").len(), 59_995);
    run(&mut client, "COMMIT");
}

#[test]
fn several_dumps_in_one_statement_do_not_mix() {
    let mut client = Database::new().connect();
    let (a, b) = (
        dump_sql("SELECT 'a' || g FROM generate_series(1, 9000) AS g", "csv", "{}"),
        dump_sql(
            "SELECT 'b' || g FROM generate_series(1, 9000) AS g",
            "sql",
            r#"{"table": "t", "rows_per_insert": 1}"#,
        ),
    );
    let both = rows(&mut client, &format!("SELECT {a}, {b}"));
    assert_eq!(both.len(), 9000);
    assert_eq!(both[8999], "a9000|INSERT INTO \"t\" (\"?column?\") VALUES\n('b9000');");
    assert_eq!(
        count(&mut client, &format!("SELECT count(*) FROM generate_series(1, 3), LATERAL (SELECT {a}) AS d")),
        27_000
    );
    run(&mut client, "PREPARE again(text) AS SELECT dump_sql($1)");
    for n in 1..=7 {
        assert_eq!(value(&mut client, &format!("EXECUTE again('SELECT {n}')")), n.to_string());
    }
}

#[test]
fn a_timeout_ends_a_query_that_returns_nothing_for_long() {
    let mut client = Database::new().connect();
    run(&mut client, "SET statement_timeout = '100ms'");
    let start = Instant::now();
    for query in ["SELECT pg_sleep(60)", "SELECT count(*) FROM generate_series(1, 1000000000000)"] {
        let error = fails(&mut client, &format!("SELECT {}", dump_sql(query, "csv", "{}")));
        assert_error(&error, "57014", &["statement timeout"]);
    }
    let endless =
        dump_sql("WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n) SELECT i FROM n", "json", "{}");
    for sql in
        [format!("SELECT count(*) FROM (SELECT {endless}) AS d"), format!("COPY (SELECT {endless}) TO '/dev/null'")]
    {
        assert_error(&fails(&mut client, &sql), "57014", &["statement timeout"]);
    }
    assert!(start.elapsed() < Duration::from_secs(30));
    run(&mut client, "RESET statement_timeout; CREATE TABLE writes_again ()");
}

#[test]
fn a_procedure_that_commits_while_it_reads_gets_every_row() {
    let mut client = Database::new().connect();
    run(
        &mut client,
        "CREATE TABLE t (a integer);
         CREATE PROCEDURE copies() LANGUAGE plpgsql AS $$
         DECLARE line text;
         BEGIN
           FOR line IN SELECT dump_sql('SELECT g FROM generate_series(1, 30000) AS g') LOOP
             INSERT INTO t VALUES (line::integer);
             IF line::integer % 10000 = 0 THEN COMMIT; END IF;
           END LOOP;
         END $$",
    );
    run(&mut client, "CALL copies()");
    assert_eq!(rows(&mut client, "SELECT count(*), max(a) FROM t"), ["30000|30000"]);
}

/// Values are read by the definition of their type as it is then.
#[test]
fn a_type_that_is_altered_between_two_fetches_is_read_as_it_is_now() {
    let database = Database::new();
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE TYPE pair AS (a text, b int);
         CREATE FUNCTION made() RETURNS pair LANGUAGE plpgsql VOLATILE AS
            $$ DECLARE made pair; BEGIN made.a := 40000; made.b := 1; RETURN made; END $$;
         BEGIN; DECLARE mine CURSOR FOR SELECT dump_sql('SELECT made() AS x FROM generate_series(1, 20000)', 'ndjson')",
    );
    let first = r#"{"x":{"a":"40000","b":1}}"#;
    assert_eq!(rows(&mut client, "FETCH 1 FROM mine"), [first]);
    run(&mut client, "ALTER TYPE pair ALTER ATTRIBUTE a TYPE int, ADD ATTRIBUTE c text");
    let rest = rows(&mut client, "FETCH ALL FROM mine");
    assert_eq!(rest.len(), 19_999);
    assert_eq!(rest.last().unwrap(), r#"{"x":{"a":40000,"b":1,"c":null}}"#);
    assert!(rest.iter().all(|line| line == first || line == rest.last().unwrap()));
    run(&mut client, "COMMIT");
}
