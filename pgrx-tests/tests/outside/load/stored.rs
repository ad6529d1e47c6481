//! The content of a row after a load.

use crate::support::{assert_error, assert_error_with_hint, count, load, load_fails, patients, rows, run, value};
use fhir_bulk_tests::Database;

/// The stored resource of one line, loaded as `fhir` says.
fn stored(database: &Database, line: &str, fhir: bool) -> String {
    let mut client = database.connect();
    run(&mut client, "TRUNCATE basic");
    let url = database.file("line", line);
    load(&mut client, &url, &format!("'Basic', fhir => {fhir}"));
    value(&mut client, "SELECT resource FROM basic")
}

#[test]
fn a_stored_resource_does_not_repeat_what_its_row_says_and_keeps_the_rest_of_meta() {
    let database = Database::new();
    run(&mut database.connect(), "SELECT bulk_create_table('Basic')");
    for fhir in [false, true] {
        for (line, expected) in [
            (r#"{"resourceType":"Basic","id":"1","a":1}"#, r#"{"a": 1}"#),
            (r#"{"id":"1"}"#, "{}"),
            (
                r#"{"a":{"id":"x","resourceType":"Y","meta":{"versionId":"1"}},"id":"1"}"#,
                r#"{"a": {"id": "x", "meta": {"versionId": "1"}, "resourceType": "Y"}}"#,
            ),
            (
                r#"{"id":"1","meta":{"versionId":"7","lastUpdated":"2020-01-01T00:00:00Z","createdAt":"2020-01-01T00:00:00Z"}}"#,
                "{}",
            ),
            (
                r#"{"id":"1","meta":{"versionId":7,"lastUpdated":[],"profile":["p"],"source":"s:","tag":[{"code":"t"}]}}"#,
                r#"{"meta": {"tag": [{"code": "t"}], "source": "s:", "profile": ["p"]}}"#,
            ),
            (r#"{"id":"1","meta":{"extension":[{"url":"ex:createdAt","valueInstant":"2020-01-01T00:00:00Z"}]}}"#, "{}"),
            (
                r#"{"id":"1","meta":{"extension":[{"url":"other"},{"url":"ex:createdAt","valueInstant":"2020-01-01T00:00:00Z"}],"x":1}}"#,
                r#"{"meta": {"x": 1, "extension": [{"url": "other"}]}}"#,
            ),
            // Only in meta of the resource itself.
            (
                r#"{"id":"1","own":{"meta":{"extension":[{"url":"ex:createdAt","valueInstant":"2020-01-01T00:00:00Z"}]}}}"#,
                r#"{"own": {"meta": {"extension": [{"url": "ex:createdAt", "valueInstant": "2020-01-01T00:00:00Z"}]}}}"#,
            ),
            // Keys may be written with escapes; the last of a repeated key counts.
            (
                r#"{"\u0069d":"1","resource\u0054ype":"Basic","m\u0065ta":{"version\u0049d":"3","x":1}}"#,
                r#"{"meta": {"x": 1}}"#,
            ),
            (r#"{"id":"first","a":1,"a":2,"id":"1","b":{"c":1,"c":{"d":2}}}"#, r#"{"a": 2, "b": {"c": {"d": 2}}}"#),
        ] {
            assert_eq!(stored(&database, line, fhir), expected, "{line}");
        }
    }
    let mut client = database.connect();
    assert_eq!(value(&mut client, "SELECT id FROM basic"), "1");
}

#[test]
fn numbers_keep_every_digit_that_numeric_keeps() {
    let database = Database::new();
    // A composite type, since `*=` compares the bytes of records.
    run(&mut database.connect(), "SELECT bulk_create_table('Basic'); CREATE TYPE datum AS (value jsonb)");
    let numbers = [
        "0",
        "-0",
        "0.0",
        "0.00",
        "-0.0",
        "1.10",
        "1.0",
        "100",
        "1e2",
        "1E-22",
        "1.5e+3",
        "0.1e1",
        "12345678901234567890",
        "3.14159265358979323846264338327950288419716",
        "-99999999999999999999999999999999999999.9",
        "0.000000000000000000001",
        "9999",
        "10000",
        "99999999",
        "100000000",
        "0.0001",
        "0.00010",
        "10000.0001",
        "1e131071",
        "1e-16383",
        "123e-5",
        "0e5",
        "0e-5",
    ];
    let mut client = database.connect();
    for number in numbers {
        let line = format!("{{\"id\":\"1\",\"n\":{number}}}");
        let expected = value(&mut client, &format!("SELECT '{{\"n\": {number}}}'::jsonb"));
        assert_eq!(stored(&database, &line, true), expected, "{number}");
        // Byte for byte, not only as text.
        let same = format!("SELECT ROW(resource)::datum *= ROW('{{\"n\": {number}}}')::datum FROM basic");
        assert_eq!(value(&mut client, &same), "t", "{number}");
    }
}

#[test]
fn created_at_of_a_new_id_comes_from_the_extension_or_from_meta() {
    let database = Database::new();
    let mut client = database.connect();
    run(&mut client, "SET TimeZone = 'UTC'");
    let url = database.file(
        "created",
        r#"{"id":"ext","resourceType":"Basic","meta":{"extension":[{"url":"ex:createdAt","valueInstant":"2021-04-02T16:03:09.419823+03:00"}]}}
           {"id":"aidbox","resourceType":"Basic","meta":{"createdAt":"2021-06-10T08:26:10.707454Z","versionId":481,"lastUpdated":"2019-06-10T08:26:10Z"}}
           {"id":"none","resourceType":"Basic","meta":{"lastUpdated":"2019-06-10T08:26:10Z"}}
           {"id":"null","resourceType":"Basic","meta":{"createdAt":null}}
           {"id":"other","resourceType":"Basic","meta":{"extension":[{"url":"urn:other","valueInstant":"2021-04-02T16:03:09Z"}]}}
           {"id":"short","resourceType":"Basic","meta":{"createdAt":"2021-06-10T08:26:10Z"}}
           "#
        .replace("           {", "{"),
    );
    for fhir in ["false", "true"] {
        run(&mut client, "DROP TABLE IF EXISTS basic, basic_history; BEGIN");
        assert_eq!(load(&mut client, &url, &format!("'Basic', fhir => {fhir}")), r#"{"total": 6}"#);
        assert_eq!(
            rows(&mut client, "SELECT id, cts FROM basic WHERE cts <> now() ORDER BY id"),
            [
                "aidbox|2021-06-10 08:26:10.707454+00",
                "ext|2021-04-02 13:03:09.419823+00",
                "short|2021-06-10 08:26:10+00"
            ]
        );
        assert_eq!(
            count(&mut client, "SELECT count(*) FROM basic WHERE cts = now() AND id IN ('none', 'null', 'other')"),
            3
        );
        assert_eq!(count(&mut client, "SELECT count(*) FROM basic WHERE ts = now()"), 6);
        run(&mut client, "COMMIT");
    }
    run(&mut client, "SET fhir_bulk.created_at_url = 'urn:other'; DROP TABLE basic, basic_history");
    load(&mut client, &url, "'Basic', fhir => true");
    assert_eq!(value(&mut client, "SELECT cts FROM basic WHERE id = 'other'"), "2021-04-02 16:03:09+00");
    assert_eq!(
        value(&mut client, "SELECT resource FROM basic WHERE id = 'ext'"),
        r#"{"meta": {"extension": [{"url": "ex:createdAt", "value": {"instant": "2021-04-02T16:03:09.419823+03:00"}}]}}"#
    );
}

#[test]
fn rows_say_created_with_one_number_of_the_sequence_and_the_transactions_time() {
    let database = Database::new();
    let mut client = database.connect();
    let url = database.file("patients", patients(1..=2500));
    load(&mut client, &url, "'Patient'");
    let first = count(&mut client, "SELECT last_value FROM transaction_id_seq");
    run(&mut client, "DROP TABLE patient; SELECT nextval('transaction_id_seq'); BEGIN; SELECT pg_sleep(0.01)");
    load(&mut client, &url, "'Patient'");
    assert_eq!(
        rows(&mut client, "SELECT DISTINCT txid, cts = now(), ts = now(), resource_type, status FROM patient"),
        [format!("{}|t|t|Patient|created", first + 2)]
    );
    assert_eq!(count(&mut client, "SELECT last_value FROM transaction_id_seq"), first + 2);
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient_history"), 0);
    run(&mut client, "COMMIT");
}

#[test]
fn a_typed_load_takes_lines_without_a_type_and_refuses_those_of_another() {
    let database = Database::new();
    let mut client = database.connect();
    let url = database.file("untyped", "{\"id\":\"1\"}\n{\"id\":\"2\",\"resourceType\":\"Patient\"}\n");
    assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 2}"#);
    assert_eq!(
        rows(&mut client, "SELECT id, resource_type, resource FROM patient ORDER BY 1"),
        ["1|Patient|{}", "2|Patient|{}"]
    );
    let error = load_fails(&mut client, &url, "");
    assert_error_with_hint(&error, "22023", &["line 1", &url, "resourceType"]);
    for foreign in ["Observation", "patient", "PATIENT", "Patient ", ""] {
        let url =
            database.file("foreign", format!("{{\"id\":\"3\"}}\n{{\"id\":\"4\",\"resourceType\":\"{foreign}\"}}\n"));
        let error = load_fails(&mut client, &url, "'Patient'");
        assert_error_with_hint(&error, "22023", &["line 2", &url, foreign, "Patient"]);
    }
    // Compared exactly, also where the caller's own spelling is the odd one.
    let url = database.file("exact", "{\"id\":\"5\",\"resourceType\":\"Patient\"}\n");
    assert_error(&load_fails(&mut client, &url, "'patient'"), "22023", &["line 1", &url]);
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 2);
}

#[test]
fn resource_type_may_stand_anywhere_in_a_line() {
    let database = Database::new();
    let mut client = database.connect();
    let filler =
        format!("\"contained\":[{{\"resourceType\":\"Inner\",\"id\":\"i\",\"text\":\"{}\"}}]", "x".repeat(300_000));
    let url = database.file(
        "last",
        format!(
            "{{\"id\":\"1\",{filler},\"resourceType\":\"Outer\"}}\n{{{filler},\"resourceType\":\"Outer\",\"id\":\"2\"}}\n\
             {{\"resourceType\":\"Other\",{filler},\"id\":\"3\"}}\n{{\"x\":\"\\\"resourceType\\\":\\\"No\\\"\",\"id\":\"4\",\"resourceType\":\"Outer\"}}\n"
        ),
    );
    assert_eq!(load(&mut client, &url, ""), r#"{"Other": 1, "Outer": 3}"#);
    assert_eq!(rows(&mut client, "SELECT id FROM \"outer\" ORDER BY id"), ["1", "2", "4"]);
}

#[test]
fn ids_at_the_edge_of_what_is_allowed_load_and_come_back() {
    let database = Database::new();
    let mut client = database.connect();
    let fhir = ["a", "-", ".", "A-9.z", &"x".repeat(64)].map(str::to_owned);
    let aidbox =
        ["with space", "ünï", "a/b|c", "'; DROP TABLE basic; --", "\\", "\"", &"y".repeat(255), &"é".repeat(127)]
            .map(str::to_owned);
    for (ids, flag) in [(&fhir[..], "true"), (&aidbox[..], "false")] {
        run(&mut client, "DROP TABLE IF EXISTS basic, basic_history");
        let lines: Vec<_> = ids.iter().map(|id| format!("{{\"id\":{}}}", serde_json::to_string(id).unwrap())).collect();
        let url = database.file("ids", lines.join("\n"));
        assert_eq!(load(&mut client, &url, &format!("'Basic', {flag}")), format!("{{\"total\": {}}}", ids.len()));
        assert_eq!(rows(&mut client, "SELECT id FROM basic ORDER BY ctid"), ids);
        let dumped = rows(&mut client, "SELECT bulk_dump('Basic')::json ->> 'id'");
        assert_eq!(dumped, ids);
    }
}
