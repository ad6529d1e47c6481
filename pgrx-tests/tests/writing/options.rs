//! `options` of a load, one by one.

use crate::support::{
    assert_error, assert_error_with_hint, count, fails, load, load_fails, patients, rows, run, value,
};
use fhir_bulk_tests::{Client, Database};

fn new() -> (Database, Client) {
    let database = Database::new();
    let client = database.connect();
    (database, client)
}

/// The stored resource of one line that is loaded with options.
fn stored(line: &str, options: &str, fhir: bool) -> String {
    let (database, mut client) = new();
    let url = database.file("line", line);
    let answer = load(&mut client, &url, &format!("'Patient', {fhir}, options => $o${options}$o$"));
    assert_eq!(answer, r#"{"total": 1}"#);
    value(&mut client, "SELECT resource FROM patient")
}

#[test]
fn options_of_a_wrong_name_or_type_are_named_before_anything_is_read() {
    let (_database, mut client) = new();
    let mut refused = |options: &str| {
        fails(&mut client, &format!("SELECT bulk_load('file:///nowhere', 'Patient', options => $o${options}$o$)"))
    };
    for (options, pieces) in [
        (r#"{"updates": true}"#, ["unknown", "updates"]),
        (r#"{"Update": true}"#, ["unknown", "Update"]),
        (r#"{"strip_nulls": true}"#, ["unknown", "strip_nulls"]),
    ] {
        let error = refused(options);
        assert_error_with_hint(&error, "22023", &pieces);
        assert!(error.hint().unwrap().contains("strip-nulls"), "{error:?}");
    }
    for (options, piece) in [
        (r#"{"update": "true"}"#, "update"),
        (r#"{"update": null}"#, "update"),
        (r#"{"update": 1}"#, "update"),
        (r#"{"strip-nulls": []}"#, "strip-nulls"),
        (r#"{"merge": []}"#, "merge"),
        (r#"{"merge": "{}"}"#, "merge"),
        (r#"{"merge": null}"#, "merge"),
        (r#"{"merge": {"id": "x"}}"#, "id"),
        (r#"{"merge": {"a": 1, "resourceType": "Patient"}}"#, "resourceType"),
        (r#"{"on_error": "ignore"}"#, "on_error"),
        (r#"{"on_error": true}"#, "on_error"),
        (r#"{"on_error": "skip", "max_errors": -1}"#, "max_errors"),
        (r#"{"on_error": "skip", "max_errors": 1.5}"#, "max_errors"),
        (r#"{"on_error": "skip", "max_errors": "3"}"#, "max_errors"),
        (r#"{"max_errors": 3}"#, "max_errors"),
        (r#"{"on_error": "abort", "max_errors": 3}"#, "max_errors"),
        ("[]", "options"),
        ("\"update\"", "options"),
        ("null", "options"),
    ] {
        assert_error(&refused(options), "22023", &[piece]);
    }
    let null = fails(&mut client, "SELECT bulk_load('file:///nowhere', 'Patient', options => NULL)");
    assert_error(&null, "22004", &["options"]);
}

#[test]
fn strip_nulls_does_what_jsonb_strip_nulls_does() {
    for line in [
        r#"{"id":"x","a":null,"b":{"c":null},"d":[null,{"e":null,"f":1}],"g":"null","h":{"i":{"j":null,"k":[null]}}}"#,
        r#"{"id":"x","meta":{"tag":null,"profile":["a",null]},"a":null}"#,
        r#"{"id":"x","a":1,"a":null}"#,
        r#"{"id":"x","a":null,"a":1}"#,
        r#"{"id":"x"}"#,
    ] {
        let expected =
            value(&mut Database::new().connect(), &format!("SELECT jsonb_strip_nulls($l${line}$l$::jsonb - 'id')"));
        assert_eq!(stored(line, r#"{"strip-nulls": true}"#, false), expected, "{line}");
    }
    assert_eq!(stored(r#"{"id":"x","a":null}"#, r#"{"strip-nulls": false}"#, false), r#"{"a": null}"#);
}

#[test]
fn merge_is_shallow_wins_and_comes_after_strip_nulls() {
    let merge = r#"{"merge": {"a": {"new": null}, "t": null, "n": 1.5}, "strip-nulls": true}"#;
    assert_eq!(
        stored(r#"{"id":"x","a":{"old":1},"b":null,"c":2}"#, merge, false),
        r#"{"a": {"new": null}, "c": 2, "n": 1.5, "t": null}"#
    );
    for line in [r#"{"id":"x"}"#, "{\"id\":\"x\"}\r\n", "  { \"id\" : \"x\" }  ", "{\"id\":\"x\"\t}\t"] {
        assert_eq!(stored(line, r#"{"merge": {"a": "}"}}"#, false), r#"{"a": "}"}"#, "{line:?}");
    }
    assert_eq!(stored(r#"{"id":"x","a":1}"#, r#"{"merge": {}}"#, false), r#"{"a": 1}"#);
    // meta as a whole, like any other member.
    assert_eq!(
        stored(r#"{"id":"x","meta":{"profile":["p"]}}"#, r#"{"merge": {"meta": {"tag": [{"code": "t"}]}}}"#, false),
        r#"{"meta": {"tag": [{"code": "t"}]}}"#
    );
    assert_eq!(
        stored(r#"{"id":"x","meta":{"profile":["p"]}}"#, r#"{"merge": {"meta": {"versionId": "7"}}}"#, false),
        "{}",
        "what columns hold is not stored"
    );
}

#[test]
fn merge_is_in_the_form_of_the_lines() {
    let line = r#"{"resourceType":"Patient","id":"x"}"#;
    assert_eq!(
        stored(line, r#"{"merge": {"active": true, "birthDate": "1970-01-01"}}"#, true),
        r#"{"active": true, "birthDate": "1970-01-01"}"#
    );
}

#[test]
fn merge_keeps_all_digits_of_numbers() {
    assert_eq!(
        stored(r#"{"id":"x"}"#, r#"{"merge": {"n": [1.50, 12345678901234567890.123456789, 1e3]}}"#, false),
        r#"{"n": [1.50, 12345678901234567890.123456789, 1000]}"#
    );
}

#[test]
fn merge_cannot_make_a_good_line_out_of_a_bad_one() {
    let (database, mut client) = new();
    for line in [
        "}",
        "{",
        "{}",
        r#"{"a":{}"#,
        r#"{"id":"x",}"#,
        "{,}",
        r#"{"id":"x"}}"#,
        r#"{"id":"x"}{"id":"y"}"#,
        r#"[{"id":"x"}]"#,
        r#"{"id":"x"#,
        r#"{"id":"x}"#,
        r#"{"id":}"#,
        r#"{"id":"x" "b"}"#,
        r#""}"#,
        r#""}""#,
        "1",
    ] {
        let url = database.file("line", line);
        let merged = load_fails(&mut client, &url, r#"'Patient', options => '{"merge": {"a": 1}}'"#);
        let plain = load_fails(&mut client, &url, "'Patient'");
        assert!(plain.code().code().starts_with("22"), "{plain:?}");
        assert_error(&merged, plain.code().code(), &["line 1"]);
    }
}

#[test]
fn update_without_a_history_table_says_what_is_missing() {
    let (database, mut client) = new();
    run(&mut client, "SELECT bulk_create_table('Patient'); DROP TABLE patient_history");
    let url = database.file("patients", patients(1..=3));
    let error = load_fails(&mut client, &url, "'Patient', options => '{\"update\": true}'");
    assert_error_with_hint(&error, "42P01", &["patient_history"]);
    assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 3}"#);
}

#[test]
fn a_version_that_is_in_the_history_already_is_no_error() {
    let (database, mut client) = new();
    let url = database.file("patients", patients(1..=3));
    load(&mut client, &url, "'Patient'");
    run(&mut client, "INSERT INTO patient_history SELECT * FROM patient WHERE id = 'p-2'");
    let update = "'Patient', options => '{\"update\": true}'";
    for path in ["auto", "staged"] {
        run(&mut client, &format!("BEGIN; SET LOCAL fhir_bulk.write_path = {path}"));
        assert_eq!(load(&mut client, &url, update), r#"{"total": 3}"#);
        assert_eq!(rows(&mut client, "SELECT id FROM patient_history ORDER BY 1"), ["p-1", "p-2", "p-3"]);
        run(&mut client, "ROLLBACK");
    }
}

#[test]
fn max_errors_is_the_last_number_that_is_borne() {
    let (database, mut client) = new();
    let url = database.file("lines", patients(1..=10) + "1\n2\n3\n" + &patients(11..=20));
    let arguments = |max: u32| format!("'Patient', options => '{{\"on_error\": \"skip\", \"max_errors\": {max}}}'");
    for max in [0, 2] {
        let error = load_fails(&mut client, &url, &arguments(max));
        assert_error_with_hint(&error, "22023", &[&format!("more than {max} "), &url]);
        assert!(error.detail().unwrap().contains(&format!("line {}", 11 + max)), "{error:?}");
        assert_eq!(value(&mut client, "SELECT to_regclass('patient') IS NULL"), "t");
        assert_eq!(count(&mut client, "SELECT count(*) FROM bulk_load_reject"), 0);
    }
    assert_eq!(load(&mut client, &url, &arguments(3)), r#"{"total": 20, "errors": 3}"#);
}

/// As where rows were restored or replicated without their sequence.
#[test]
fn a_version_whose_number_the_history_has_already_is_not_lost_in_silence() {
    let (database, mut client) = new();
    let update = "'Patient', options => '{\"update\": true}'";
    let url = |n: usize| database.file("line", format!("{{\"id\":\"a\",\"v\":{n}}}"));
    load(&mut client, &url(1), update);
    load(&mut client, &url(2), update);
    run(&mut client, "SELECT setval('transaction_id_seq', 1, false)");
    load(&mut client, &url(3), update);
    let error = load_fails(&mut client, &url(4), update);
    assert_error_with_hint(&error, "23505", &["version 1 of a"]);
    assert_eq!(value(&mut client, "SELECT resource FROM patient"), r#"{"v": 3}"#);
    run(&mut client, "SELECT setval('transaction_id_seq', 10)");
    run(&mut client, "UPDATE patient SET txid = 9");
    load(&mut client, &url(4), update);
    assert_eq!(rows(&mut client, "SELECT resource ->> 'v' FROM patient_history ORDER BY 1"), ["1", "2", "3"]);
}
