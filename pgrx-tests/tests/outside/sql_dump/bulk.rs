//! The body of a `_bulk` request, read as strictly as its documentation reads.

use super::{body, dump_sql, every_type};
use crate::support::{assert_error, assert_error_with_hint, fails};
use fhir_bulk_tests::Database;
use serde_json::{Value, json};

/// Action and document of each pair, as Elasticsearch's and OpenSearch's pages of `_bulk` describe them: lines of JSON
/// that end with a newline, also the last; no empty ones, no carriage returns; an action with one member, whose object
/// has only what is known; a document that is an object on one line.
fn read(body: &str) -> Vec<(String, Value, Value)> {
    if body.is_empty() {
        return Vec::new();
    }
    let lines: Vec<_> = body.strip_suffix('\n').expect("a last newline").split('\n').collect();
    assert!(lines.len().is_multiple_of(2), "{} lines", lines.len());
    let pair = |pair: &[&str]| {
        assert!(
            pair.iter().all(|line| line.starts_with('{') && line.ends_with('}') && !line.contains('\r')),
            "{pair:?}"
        );
        let Value::Object(action) = serde_json::from_str(pair[0]).unwrap() else { panic!("{pair:?}") };
        let (name, parameters) = action.iter().next().unwrap();
        assert!(action.len() == 1 && ["index", "create"].contains(&name.as_str()), "{pair:?}");
        let known = ["_index", "_id"];
        assert!(
            parameters
                .as_object()
                .unwrap()
                .iter()
                .all(|(name, value)| known.contains(&name.as_str()) && value.is_string())
        );
        assert!(!parameters["_index"].as_str().unwrap().is_empty());
        (name.clone(), parameters.clone(), serde_json::from_str(pair[1]).unwrap())
    };
    lines.chunks(2).map(pair).collect()
}

#[test]
fn a_strict_reader_accepts_every_row_of_every_type() {
    let (_database, mut client) = every_type::database();
    let options = r#"{"index": "every-type", "id_column": "n", "action": "create"}"#;
    let pairs = read(&body(&mut client, "SELECT * FROM every_type ORDER BY n", "elastic-bulk", options));
    let lines = body(&mut client, "SELECT * FROM every_type ORDER BY n", "ndjson", "{}");
    assert_eq!(pairs.len(), 4);
    for (at, ((action, parameters, document), line)) in pairs.iter().zip(lines.lines()).enumerate() {
        assert_eq!(action, "create");
        assert_eq!(*parameters, json!({"_index": "every-type", "_id": (at + 1).to_string()}));
        assert_eq!(*document, serde_json::from_str::<Value>(line).unwrap());
    }
}

#[test]
fn pairs_are_written_as_documented() {
    let mut client = Database::new().connect();
    let query = r#"SELECT 'pt-1' AS id, E'two\nlines' AS "a""b" UNION ALL SELECT 'pt "2"', NULL"#;
    assert_eq!(
        body(&mut client, query, "elastic-bulk", r#"{"index": "patients", "id_column": "id"}"#),
        r#"{"index":{"_index":"patients","_id":"pt-1"}}
{"id":"pt-1","a\"b":"two\nlines"}
{"index":{"_index":"patients","_id":"pt \"2\""}}
{"id":"pt \"2\"","a\"b":null}
"#
    );
    assert_eq!(
        body(&mut client, "SELECT 1 AS a", "elastic-bulk", r#"{"index": "patients"}"#),
        "{\"index\":{\"_index\":\"patients\"}}\n{\"a\":1}\n"
    );
    assert_eq!(body(&mut client, "SELECT 1 AS a WHERE false", "elastic-bulk", r#"{"index": "patients"}"#), "");
}

#[test]
fn what_the_servers_would_refuse_is_refused_before_it_is_sent() {
    let mut client = Database::new().connect();
    let mut refused = |query: &str, options: &str| {
        fails(&mut client, &format!("SELECT {}", dump_sql(query, "elastic-bulk", options)))
    };
    assert_error_with_hint(&refused("SELECT 1 AS a", "{}"), "22023", &["needs the option index"]);
    assert_error_with_hint(&refused("SELECT 1 AS a", r#"{"index": "Patients"}"#), "22023", &["index name: Patients"]);
    assert_error(&refused("SELECT 1 AS a", r#"{"index": "i", "action": "delete"}"#), "22023", &["option action"]);
    let error = refused("SELECT 1 AS a, 2 AS b", r#"{"index": "i", "id_column": "A"}"#);
    assert_error_with_hint(&error, "42703", &["no column \"A\""]);
    let error =
        refused("SELECT NULLIF(g, 3) AS a FROM generate_series(1, 5) AS g", r#"{"index": "i", "id_column": "a"}"#);
    assert_error_with_hint(&error, "22004", &["id_column"]);
    for id in ["''", "repeat('ä', 257)"] {
        let error = refused(&format!("SELECT {id} AS a"), r#"{"index": "i", "id_column": "a"}"#);
        assert_error_with_hint(&error, "22023", &["an id of"]);
    }
}
