//! What stands between the parentheses.

use crate::from::{copy, copy_fails, session};
use crate::support::{assert_error, fails, patient, patients, rows, run, value};
use fhir_bulk_tests::{Database, DbError};
use postgres::error::ErrorPosition;

/// Asserts an error, and that it points at a piece of the statement.
#[track_caller]
fn assert_points_at(error: &DbError, state: &str, statement: &str, piece: &str) {
    assert_error(error, state, &[]);
    let expected = statement[..statement.find(piece).unwrap()].chars().count() + 1;
    assert_eq!(error.position(), Some(&ErrorPosition::Original(expected as u32)), "{statement}: {error:?}");
}

#[test]
fn options_do_what_those_of_bulk_load_do() {
    let database = Database::new();
    let mut client = session(&database);
    let line = r#"{"id":"a","resourceType":"Patient","gender":null,"active":true}"#;
    let options = r#"FORMAT fhir, STRIP_NULLS, MERGE '{"meta": {"source": "x"}}', UPDATE_HISTORY false"#;
    copy(&mut client, &format!("COPY bulk_resource FROM STDIN ({options})"), line);
    assert_eq!(value(&mut client, "SELECT resource FROM patient"), r#"{"meta": {"source": "x"}, "active": true}"#);
    // Each version that is replaced is kept, or none.
    copy(&mut client, "COPY patient FROM STDIN (FORMAT fhir, UPDATE_HISTORY on)", patient("a", 1));
    copy(&mut client, "COPY patient FROM STDIN (FORMAT fhir, UPDATE_HISTORY 0)", patient("a", 2));
    assert_eq!(rows(&mut client, "SELECT resource -> 'meta' ->> 'source' FROM patient_history"), ["x"]);
    // What is equal stays as it is.
    let place = value(&mut client, "SELECT ctid FROM patient");
    let lines = patient("a", 2) + "\n" + &patient("b", 2);
    let skip = "COPY patient FROM STDIN (FORMAT fhir, SKIP_UNCHANGED, UPDATE_HISTORY)";
    assert_eq!(copy(&mut client, skip, lines), 2);
    assert_eq!(value(&mut client, "SELECT bulk_load_result()"), r#"{"total": 2, "unchanged": 1}"#);
    assert_eq!(value(&mut client, "SELECT ctid FROM patient WHERE id = 'a'"), place);
}

#[test]
fn lines_may_be_passed_over_by_either_name_up_to_a_limit() {
    let database = Database::new();
    let mut client = session(&database);
    let lines = patient("a", 1) + "\nnix\n" + &patient("b", 2) + "\n{\"id\": 1}\n";
    for options in ["ON_ERROR skip", "on_error 'ignore', max_errors 2", "ON_ERROR IGNORE, REJECT_LIMIT 2"] {
        let statement = format!("COPY bulk_resource FROM STDIN (FORMAT fhir, {options})");
        assert_eq!(copy(&mut client, &statement, &lines), 2, "{options}");
        assert_eq!(value(&mut client, "SELECT bulk_load_result()"), r#"{"errors": 2, "Patient": 2}"#);
        assert_eq!(
            rows(
                &mut client,
                "WITH gone AS (DELETE FROM bulk_load_reject RETURNING *) SELECT source, line_number, byte_offset, convert_from(line, 'UTF8') FROM gone ORDER BY 2"
            ),
            [
                format!("STDIN|2|{}|nix", patient("a", 1).len() + 1),
                format!("STDIN|4|{}|{{\"id\": 1}}", (patient("a", 1) + &patient("b", 2)).len() + 6)
            ]
        );
    }
    let error =
        copy_fails(&mut client, "COPY bulk_resource FROM STDIN (FORMAT fhir, ON_ERROR skip, MAX_ERRORS 1)", &lines);
    assert_error(&error, "22023", &["STDIN has more than 1 line"]);
    for word in ["abort", "stop"] {
        let statement = format!("COPY bulk_resource FROM STDIN (FORMAT fhir, ON_ERROR {word})");
        assert_error(&copy_fails(&mut client, &statement, &lines), "22023", &["line 2 of STDIN"]);
    }
}

#[test]
fn a_wrong_option_is_refused_with_its_place() {
    let database = Database::new();
    let mut client = session(&database);
    run(&mut client, "SELECT bulk_create_table('Patient')");
    for (state, before, option, after) in [
        ("42601", "COPY patient FROM STDIN (FORMAT fhir, ", "nix", ")"),
        ("42601", "COPY patient TO STDOUT (FORMAT fhir, ", "nix true", ")"),
        ("42601", "COPY patient TO STDOUT (FORMAT fhir, GZIP, ", "gzip false", ")"),
        ("42601", "COPY patient TO STDOUT (FORMAT fhir, ", "FORMAT csv", ")"),
        ("42601", "COPY patient FROM STDIN (FORMAT fhir, ON_ERROR skip, MAX_ERRORS 1, ", "REJECT_LIMIT 1", ")"),
        ("42601", "/* ÄÖÜ€𝄞 */ COPY patient FROM STDIN (FORMAT fhir, ", "nix", ")"),
        ("0A000", "COPY patient FROM STDIN (FORMAT fhir, ", "DELIMITER ','", ")"),
        ("0A000", "COPY patient FROM STDIN (FORMAT fhir, ", "header", ")"),
        ("0A000", "COPY patient FROM STDIN (FORMAT fhir, ", "FORCE_NULL (id)", ")"),
        ("0A000", "COPY patient FROM STDIN (FORMAT fhir, ", "encoding 'LATIN1'", ")"),
        ("0A000", "COPY patient FROM STDIN (FORMAT fhir, ", "GZIP", ")"),
        ("0A000", "COPY patient FROM STDIN (FORMAT fhir, ", "SINCE '2025-01-01'", ")"),
        ("0A000", "COPY patient TO STDOUT (FORMAT fhir, ", "UPDATE_HISTORY", ")"),
        ("0A000", "COPY patient TO STDOUT (FORMAT ndjson, ", "SINCE '2025-01-01'", ")"),
        ("22023", "COPY patient TO STDOUT (FORMAT fhir, ", "GZIP 2", ")"),
        ("22023", "COPY patient TO STDOUT (FORMAT fhir, ", "GZIP maybe", ")"),
        ("22023", "COPY patient TO STDOUT (FORMAT fhir, ", "SINCE 'soon'", ")"),
        ("22023", "COPY patient TO STDOUT (FORMAT fhir, ", "SINCE", ")"),
        ("22023", "COPY patient FROM STDIN (FORMAT fhir, ", "MERGE '[1]'", ")"),
        ("22023", "COPY patient FROM STDIN (FORMAT fhir, ", "MERGE '{'", ")"),
        ("22023", "COPY patient FROM STDIN (FORMAT fhir, ", "MERGE '{\"id\": 1}'", ")"),
        ("22023", "COPY patient FROM STDIN (FORMAT fhir, ", "ON_ERROR explode", ")"),
        ("22023", "COPY patient FROM STDIN (FORMAT fhir, ON_ERROR skip, ", "MAX_ERRORS -1", ")"),
        ("22023", "COPY patient FROM STDIN (FORMAT fhir, ON_ERROR skip, ", "MAX_ERRORS many", ")"),
        ("22023", "COPY patient FROM STDIN (FORMAT fhir, ", "MAX_ERRORS 1", ")"),
        ("22023", "COPY bulk_resource FROM STDIN (FORMAT fhir, ", "RESOURCE_TYPE 'a b'", ")"),
    ] {
        let statement = format!("{before}{option}{after}");
        let error = fails(&mut client, &statement);
        assert_points_at(&error, state, &statement, option);
    }
}

#[test]
fn what_the_formats_have_not_is_refused() {
    let database = Database::new();
    let mut client = session(&database);
    run(&mut client, "SELECT bulk_create_table('Patient')");
    for (statement, piece) in [
        ("COPY patient (id) FROM STDIN (FORMAT fhir)", "list of columns"),
        ("COPY patient (id) TO STDOUT (FORMAT ndjson)", "list of columns"),
        ("COPY patient FROM STDIN (FORMAT fhir) WHERE id = 'a'", "WHERE"),
        ("COPY patient FROM STDIN (FORMAT ndjson)", "ndjson is for COPY TO"),
        ("COPY (SELECT * FROM patient) TO STDOUT (FORMAT fhir)", "not a query"),
        ("COPY bulk_resource TO STDOUT (FORMAT fhir)", "bulk_resource is for COPY FROM"),
        ("COPY patient FROM STDIN (FORMAT fhir, RESOURCE_TYPE 'Patient')", "RESOURCE_TYPE"),
        ("COPY (SELECT 1 INTO x) TO STDOUT (FORMAT ndjson)", "SELECT INTO"),
        ("COPY (DELETE FROM patient) TO STDOUT (FORMAT ndjson)", "returns rows"),
    ] {
        let error = fails(&mut client, statement);
        assert_error(&error, "0A000", &[piece]);
    }
}

#[test]
fn bulk_resource_takes_lines_of_one_type_that_do_not_say_it() {
    let database = Database::new();
    let mut client = session(&database);
    let statement = "COPY bulk_resource FROM STDIN (FORMAT fhir, RESOURCE_TYPE 'Individual')";
    assert_eq!(copy(&mut client, statement, "{\"id\":\"a\"}\n{\"id\":\"b\",\"resourceType\":\"Individual\"}"), 2);
    assert_eq!(
        rows(&mut client, "SELECT id, resource_type FROM individual ORDER BY id"),
        ["a|Individual", "b|Individual"]
    );
    assert_eq!(value(&mut client, "SELECT bulk_load_result()"), r#"{"total": 2}"#);
    assert_error(&copy_fails(&mut client, statement, patients(1..=1)), "22023", &["\"Patient\"", "\"Individual\""]);
}
