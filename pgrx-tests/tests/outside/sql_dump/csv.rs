//! CSV and TSV: the same bytes as COPY, which other programs can read.

use super::{body, copied, dump_sql, every_type};
use crate::support::{assert_error, assert_error_with_hint, fails, rows, run};
use fhir_bulk_tests::{Client, Database};

/// Asserts that the body is what COPY makes of the query.
#[track_caller]
fn assert_copy(client: &mut Client, query: &str, options: &str, copy: &str) {
    let expected = copied(client, &format!("COPY ({query}) TO STDOUT (FORMAT csv{copy})"));
    let written = body(client, query, "csv", options);
    assert!(written == expected, "{query} {options}\nCOPY:     {expected}\ndump_sql: {written}");
}

#[test]
fn csv_of_every_type_is_byte_for_byte_what_copy_writes() {
    let (_database, mut client) = every_type::database();
    let settings = [
        "RESET ALL",
        "SET DateStyle = 'German'; SET IntervalStyle = 'iso_8601'; SET bytea_output = 'escape'; SET TimeZone = 'Asia/Kolkata'",
        "SET DateStyle = 'SQL, DMY'; SET IntervalStyle = 'sql_standard'; SET extra_float_digits = -3; SET xmloption = 'content'",
    ];
    for setting in settings {
        run(&mut client, setting);
        assert_copy(&mut client, "SELECT * FROM every_type ORDER BY n", "{}", "");
        assert_copy(&mut client, "TABLE every_type ORDER BY n", r#"{"header": true}"#, ", HEADER");
    }
    // Each column alone on its line as well.
    run(&mut client, "RESET ALL");
    for column in
        rows(&mut client, "SELECT attname FROM pg_attribute WHERE attrelid = 'every_type'::regclass AND attnum > 0")
    {
        let query = format!("SELECT \"{column}\" FROM every_type ORDER BY n");
        assert_copy(&mut client, &query, r#"{"header": true}"#, ", HEADER");
    }
}

#[test]
fn csv_quotes_exactly_the_fields_that_copy_quotes() {
    let mut client = Database::new().connect();
    let values = r#"VALUES ('a'), (''), (NULL), ('\.'), ('\.x'), (' a'), ('a '), (','), ('"'), ('""'), (E'\n'), (E'\r'),
        (E'a\r\nb'), (';'), ('NULL'), ('\N'), ('#'), (E'\t'), ('a,b"c'), ('ä'), ('0'), ('1,2'), (E'\u0001'), ('NA'), (repeat('x"', 40000))"#;
    for query in [values.to_owned(), format!("SELECT column1 AS a, column1 AS b, 7, true FROM ({values}) AS v")] {
        for (options, copy) in [
            ("{}", ""),
            (r#"{"header": true, "delimiter": ";"}"#, ", HEADER, DELIMITER ';'"),
            (r#"{"null": "NA"}"#, ", NULL 'NA'"),
            (r#"{"null": "7"}"#, ", NULL '7'"),
            (r#"{"null": "t", "delimiter": "x"}"#, ", NULL 't', DELIMITER 'x'"),
            (r#"{"null": "\\N", "delimiter": "7"}"#, r", NULL '\N', DELIMITER '7'"),
            (r#"{"header": true, "null": "column1"}"#, ", HEADER, NULL 'column1'"),
        ] {
            assert_copy(&mut client, &query, options, copy);
        }
    }
}

#[test]
fn csv_of_odd_results_is_that_of_copy() {
    let mut client = Database::new().connect();
    for query in [
        "SELECT 1 WHERE false",
        "SELECT",
        "SELECT FROM generate_series(1, 3)",
        "SELECT NULL",
        "SELECT 1 AS a, 2 AS a",
        "VALUES (1, 'x'), (2, 'y')",
        "WITH x AS (SELECT 1 AS a) SELECT a FROM x;",
        "TABLE pg_am ORDER BY oid",
        "SELECT most_common_vals, histogram_bounds FROM pg_stats ORDER BY schemaname, tablename, attname",
        "SELECT ROW(1, 'a', ROW(NULL)), pg_class FROM pg_class ORDER BY oid",
        "SELECT pg_sleep(0), repeat('x', 300000)",
        r#"SELECT 1 AS "a,b", 2 AS "x""y", 3 AS "\.""#,
        r#"SELECT 1 AS "\.""#,
    ] {
        assert_copy(&mut client, query.trim_end_matches(';'), "{}", "");
        assert_copy(&mut client, query.trim_end_matches(';'), r#"{"header": true}"#, ", HEADER");
    }
    assert_eq!(body(&mut client, "SELECT 1 WHERE false", "csv", r#"{"header": true}"#), "?column?\n");
    assert_eq!(body(&mut client, "SELECT 1 AS a;", "csv", "{}"), "1\n");
}

#[test]
fn the_csv_crate_reads_every_value_back() {
    let (_database, mut client) = every_type::database();
    let expected = rows(&mut client, "SELECT * FROM every_type ORDER BY n");
    for (format, delimiter) in [("csv", b','), ("tsv", b'\t')] {
        let written = body(&mut client, "SELECT * FROM every_type ORDER BY n", format, r#"{"null": "∅"}"#);
        let mut reader =
            csv::ReaderBuilder::new().has_headers(false).delimiter(delimiter).from_reader(written.as_bytes());
        let read: Vec<String> =
            reader.records().map(|record| record.unwrap().iter().collect::<Vec<_>>().join("|")).collect();
        assert_eq!(read, expected, "{format}");
    }
}

#[test]
fn tsv_has_the_rules_of_csv_with_a_tab() {
    let mut client = Database::new().connect();
    let query = r#"SELECT 'a,b' AS "x,y", E'a\tb' AS b, NULL, '', 'say "hi"', E'a\nb', '\.'"#;
    assert_eq!(
        body(&mut client, query, "tsv", r#"{"header": true}"#),
        "x,y\tb\t?column?\t?column?\t?column?\t?column?\t?column?\na,b\t\"a\tb\"\t\t\"\"\t\"say \"\"hi\"\"\"\t\"a\nb\"\t\\.\n"
    );
    let (_database, mut client) = every_type::database();
    let expected = copied(&mut client, "COPY every_type TO STDOUT (FORMAT csv, DELIMITER E'\\t', HEADER)");
    assert!(body(&mut client, "TABLE every_type", "tsv", r#"{"header": true}"#) == expected);
}

#[test]
fn options_that_make_no_readable_csv_are_refused() {
    let mut client = Database::new().connect();
    for options in [
        r#"{"delimiter": ""}"#,
        r#"{"delimiter": ",,"}"#,
        r#"{"delimiter": "\n"}"#,
        r#"{"delimiter": "\""}"#,
        r#"{"delimiter": "ä"}"#,
        r#"{"delimiter": 1}"#,
        r#"{"null": "a\nb"}"#,
        r#"{"null": "a,b"}"#,
        r#"{"null": "\""}"#,
        r#"{"null": null}"#,
        r#"{"header": "yes"}"#,
        "[]",
        "1",
    ] {
        assert_error(
            &fails(&mut client, &format!("SELECT {}", dump_sql("SELECT 1", "csv", options))),
            "22023",
            &["option"],
        );
    }
    for options in [r#"{"quote": "'"}"#, r#"{"table": "x"}"#, r#"{"Header": true}"#] {
        let error = fails(&mut client, &format!("SELECT {}", dump_sql("SELECT 1", "tsv", options)));
        assert_error_with_hint(&error, "22023", &["unknown option"]);
        assert!(error.hint().unwrap().contains("header, delimiter, null"), "{error:?}");
    }
}
