//! NDJSON and JSON: types keep their meaning.

use super::{body, dump_sql, every_type};
use crate::support::{assert_error_with_hint, fails, rows, run, value};
use fhir_bulk_tests::{Client, Database};
use serde_json::{Map, Value};

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The only member of the only object.
fn one(client: &mut Client, expression: &str) -> String {
    let body = body(client, &format!("SELECT {expression} AS v"), "ndjson", "{}");
    let value = body.strip_prefix("{\"v\":").and_then(|rest| rest.strip_suffix("}\n"));
    value.unwrap_or_else(|| panic!("{expression}: {body}")).to_owned()
}

#[test]
fn values_keep_what_they_mean() {
    let mut client = Database::new().connect();
    run(
        &mut client,
        "SET TimeZone = 'Asia/Kolkata'; CREATE EXTENSION hstore; CREATE TYPE mood AS ENUM ('fine');
         CREATE DOMAIN percent AS numeric; CREATE DOMAIN document AS jsonb; CREATE TYPE pair AS (a integer, \"b\"\"c\" text)",
    );
    for (expression, json) in [
        ("NULL", "null"),
        ("true", "true"),
        ("(-32768)::smallint", "-32768"),
        ("9223372036854775807", "9223372036854775807"),
        ("1234567890123456789012345678901234567890.10", "1234567890123456789012345678901234567890.10"),
        ("1.50::percent", "1.50"),
        ("0.1::float8 + 0.2::float8", "0.30000000000000004"),
        ("1e300::float8", "1e+300"),
        ("1.1::real", "1.1"),
        ("'NaN'::numeric", r#""NaN""#),
        ("'Infinity'::float8", r#""Infinity""#),
        ("'-Infinity'::real", r#""-Infinity""#),
        ("'a \"b\" \\ ' || E'\\n\\t\\u0001 é 𝄞'", r#""a \"b\" \\ \n\t\u0001 é 𝄞""#),
        ("'x'::char(3)", r#""x  ""#),
        ("'{\"b\": [1, 2.50, null], \"a\": {}}'::jsonb", r#"{"a":{},"b":[1,2.50,null]}"#),
        ("'[]'::document", "[]"),
        ("'{\"b\": 1,  \"a\": 1e2, \"b\": 2}'::json", r#"{"b": 1,  "a": 1e2, "b": 2}"#),
        ("E'[1,\\n 2]'::json", "[1,  2]"),
        ("'\\x00ff10'::bytea", r#""AP8Q""#),
        ("''::bytea", r#""""#),
        ("date '2024-02-29'", r#""2024-02-29""#),
        ("date 'infinity'", r#""infinity""#),
        ("date '0044-03-15 BC'", r#""-0043-03-15""#),
        ("timestamp '2024-02-29 12:34:56.7'", r#""2024-02-29T12:34:56.7""#),
        ("timestamp '-infinity'", r#""-infinity""#),
        ("timestamptz '2024-07-01 00:00:00.000001Z'", r#""2024-07-01T05:30:00.000001+05:30""#),
        ("time '12:34'", r#""12:34:00""#),
        ("interval '1 year 2 days 03:04'", r#""1 year 2 days 03:04:00""#),
        ("ARRAY[1, NULL, 3]", "[1,null,3]"),
        ("'{}'::integer[]", "[]"),
        ("ARRAY[[1, 2], [3, 4]]", "[[1,2],[3,4]]"),
        ("'[0:1]={5,6}'::integer[]", "[5,6]"),
        ("'{{{a},{b}},{{c},{NULL}}}'::text[]", r#"[[["a"],["b"]],[["c"],[null]]]"#),
        ("ARRAY['{\"a\": 1}'::jsonb]", r#"[{"a":1}]"#),
        ("ARRAY[1.10]::percent[]", "[1.10]"),
        ("ARRAY['\\x00'::bytea]", r#"["AA=="]"#),
        ("ROW(1, 'x\"y')::pair", r#"{"a":1,"b\"c":"x\"y"}"#),
        ("ARRAY[ROW(1, NULL)::pair, NULL]", r#"[{"a":1,"b\"c":null},null]"#),
        ("ROW(1, ROW('x', ARRAY[true]))", r#"{"f1":1,"f2":{"f1":"x","f2":[true]}}"#),
        ("ARRAY[ROW(1, 'a'), ROW(2, 'b')]", r#"[{"f1":1,"f2":"a"},{"f1":2,"f2":"b"}]"#),
        ("(SELECT x FROM (SELECT 1 AS a, date '2024-01-01' AS b) AS x)", r#"{"a":1,"b":"2024-01-01"}"#),
        ("'fine'::mood", r#""fine""#),
        ("int4range(1, 5)", r#""[1,5)""#),
        ("tsrange('2024-01-02', NULL)", r#""[\"2024-01-02 00:00:00\",)""#),
        ("'{[1,2)}'::int4multirange", r#""{[1,2)}""#),
        ("'a=>1, b=>NULL'::hstore", r#"{"a": "1", "b": null}"#),
        ("'192.168.0.1/24'::inet", r#""192.168.0.1/24""#),
        ("B'101'", r#""101""#),
        ("12.5::money", r#""$12.50""#),
        ("1::oid", r#""1""#),
        ("'1 2'::int2vector", "[1,2]"),
    ] {
        for setting in
            ["RESET DateStyle; RESET extra_float_digits", "SET DateStyle = 'German'; SET extra_float_digits = -10"]
        {
            run(&mut client, setting);
            assert_eq!(one(&mut client, expression), json, "{expression} {setting}");
        }
    }
}

#[test]
fn ndjson_of_every_type_is_row_to_json_but_for_bytes_and_years_before_christ() {
    let (_database, mut client) = every_type::database();
    let written = body(&mut client, "SELECT * FROM every_type ORDER BY n", "ndjson", "{}");
    let lines: Vec<_> = written.lines().collect();
    let expected = rows(&mut client, "SELECT row_to_json(e) FROM every_type AS e ORDER BY n");
    assert_eq!(lines.len(), expected.len());
    for (line, expected) in lines.iter().zip(&expected) {
        let (Value::Object(line), Value::Object(expected)) = (parsed(line), parsed(expected)) else {
            panic!("no object: {line}")
        };
        let without = |mut object: Map<String, Value>| {
            object.retain(|name, _| !matches!(name.as_str(), "a bytea" | "a array_bytea" | "a date_past"));
            object
        };
        assert_eq!(without(line), without(expected));
    }
    assert!(written.contains(r#""a bytea":"AP9cJwoi","#) && written.contains(r#""a array_bytea":["AP8=",""],"#));
    assert!(written.contains(r#""a date_past":"-0043-03-15","#));
    assert_eq!(lines.len(), written.matches('\n').count(), "a newline within an object");
}

#[test]
fn json_is_one_array_whatever_the_rows() {
    let mut client = Database::new().connect();
    assert_eq!(body(&mut client, "SELECT 1 WHERE false", "json", "{}"), "[]\n");
    assert_eq!(body(&mut client, "SELECT 1 AS a", "json", "{}"), "[{\"a\":1}\n]\n");
    assert_eq!(body(&mut client, "SELECT FROM generate_series(1, 2)", "json", "{}"), "[{}\n,{}\n]\n");
    let query = "SELECT g AS a, 'x' || g AS b FROM generate_series(1, 5000) AS g";
    let whole = body(&mut client, query, "json", "{}");
    let expected = value(&mut client, &format!("SELECT json_agg(q) FROM ({query}) AS q"));
    assert_eq!(parsed(&whole), parsed(&expected));
    assert_eq!(body(&mut client, "SELECT 1 WHERE false", "ndjson", "{}"), "");
}

#[test]
fn names_that_an_object_would_lose_are_an_error() {
    let mut client = Database::new().connect();
    for (query, format, options) in [
        ("SELECT 1 AS a, 2 AS b, 3 AS a", "ndjson", "{}"),
        ("SELECT 1 AS a, 2 AS a WHERE false", "json", "{}"),
        ("SELECT 1 AS a, 2 AS a", "elastic-bulk", r#"{"index": "i"}"#),
        ("SELECT 1 AS a, 2 AS a", "sql", r#"{"table": "t"}"#),
        ("SELECT x FROM (SELECT 1 AS a, 2 AS a) AS x", "ndjson", "{}"),
    ] {
        let error = fails(&mut client, &format!("SELECT {}", dump_sql(query, format, options)));
        assert_error_with_hint(&error, "42701", &["column \"a\" appears more than once"]);
    }
    assert_eq!(body(&mut client, "SELECT 1 AS \"a\"\"\n\", 2 AS \"A\"", "ndjson", "{}"), "{\"a\\\"\\n\":1,\"A\":2}\n");
}
