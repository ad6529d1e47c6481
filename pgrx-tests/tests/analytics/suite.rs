//! The public test suite of SQL on FHIR, by both functions.

use super::{lines, store};
use crate::support::{rows, run};
use fhir_bulk_tests::{Client, Database};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;

/// The files of the suite, by name.
fn files() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../views/tests/data/sql-on-fhir");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    let read = |path: &std::path::PathBuf| serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    paths.iter().map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), read(path))).collect()
}

/// A row as text without nulls; numbers as they count, and as text where types say so.
fn canonical(row: &Value, is_typed: bool) -> String {
    fn value(found: &Value, is_typed: bool) -> Value {
        match found {
            Value::Number(number) if is_typed => json!(number.as_f64().unwrap().to_string()),
            Value::Number(number) => json!([number.as_f64().unwrap().to_string()]),
            Value::String(text) if is_typed && text.parse::<f64>().is_ok() => {
                json!(text.parse::<f64>().unwrap().to_string())
            }
            Value::Array(list) => list.iter().map(|found| value(found, is_typed)).collect(),
            other => other.clone(),
        }
    }
    let members = row.as_object().unwrap().iter().filter(|(_, found)| !found.is_null());
    let mut members: Vec<_> = members.map(|(name, found)| (name.clone(), value(found, is_typed))).collect();
    members.sort_by(|(a, _), (b, _)| a.cmp(b));
    Value::Object(members.into_iter().collect::<Map<_, _>>()).to_string()
}

/// Runs all cases by a way to get a view's rows, and asserts that all pass.
fn run_all(is_typed: bool, way: impl Fn(&mut Client, &Value) -> Result<Vec<String>, postgres::Error>) {
    let database = Database::new();
    let mut client = database.connect();
    run(&mut client, "SET client_min_messages = error");
    let (mut passed, mut failed) = (0, Vec::new());
    for (file, suite) in files() {
        run(&mut client, "DROP SCHEMA public CASCADE; CREATE SCHEMA public; CREATE EXTENSION IF NOT EXISTS fhir_bulk");
        let mut resources = suite["resources"].as_array().unwrap().clone();
        for resource in &mut resources {
            if resource.get("id").is_none() {
                resource["id"] = json!("none");
            }
        }
        store(&mut client, &database, &resources);
        for test in suite["tests"].as_array().unwrap() {
            if let Some(name) = test["view"]["resource"].as_str() {
                run(&mut client, &format!("SELECT bulk_create_table('{name}')"));
            }
            let made = way(&mut client, &test["view"]);
            let is_right = match (&made, test["expectError"] == json!(true)) {
                (Err(_), is_expected) => is_expected,
                (Ok(_), true) => false,
                (Ok(made), false) => {
                    let row = |line: &String| canonical(&serde_json::from_str(line).unwrap(), is_typed);
                    let mut made: Vec<String> = made.iter().map(row).collect();
                    let expected = test["expect"].as_array().unwrap().iter();
                    let mut expected: Vec<String> = expected.map(|row| canonical(row, is_typed)).collect();
                    made.sort();
                    expected.sort();
                    made == expected
                }
            };
            if is_right {
                passed += 1;
            } else {
                failed.push(format!("{file}, {}: {made:?}", test["title"]));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert_eq!(passed, 134);
}

fn texts(client: &mut Client, sql: &str) -> Result<Vec<String>, postgres::Error> {
    Ok(client.query(sql, &[])?.iter().map(|row| row.get(0)).collect())
}

#[test]
fn all_cases_pass_by_dump_view() {
    run_all(false, |client, view| {
        texts(client, &format!("SELECT {}", super::dump_view(&view.to_string(), "ndjson", "{}")))
    });
}

#[test]
fn all_cases_pass_by_views_of_sql() {
    run_all(true, |client, view| {
        client.batch_execute("DROP VIEW IF EXISTS flat")?;
        let quoted = view.to_string().replace('\'', "''");
        client.batch_execute(&format!("SELECT bulk_create_view('flat', '{quoted}')"))?;
        texts(client, "SELECT to_jsonb(flat)::text FROM flat")
    });
}

#[test]
fn given_resources_are_as_good_as_stored_ones() {
    let database = Database::new();
    let mut client = database.connect();
    for (file, suite) in files().into_iter().filter(|(file, _)| matches!(file.as_str(), "foreach.json" | "repeat.json"))
    {
        for test in suite["tests"].as_array().unwrap() {
            let options = json!({"resources": [{"resourceType": "Bundle", "entry": suite["resources"].as_array().unwrap().iter()
                .map(|resource| json!({"resource": resource})).collect::<Vec<_>>()}]});
            let made = lines(&mut client, &test["view"].to_string(), "ndjson", &options.to_string());
            assert_eq!(made.len(), test["expect"].as_array().unwrap().len(), "{file}, {}", test["title"]);
        }
    }
    assert!(rows(&mut client, "SELECT bulk_resource_types()").is_empty());
}
