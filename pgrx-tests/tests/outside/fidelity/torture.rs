//! The corpus of nst/JSONTestSuite, one value in a resource each: accepted and refused as PostgreSQL's jsonb does.

use crate::support::{rows, run, shared_data_or_say_so};
use fhir_bulk_tests::{Client, Database};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;

struct Case {
    file: String,
    line: Vec<u8>,
    /// What PostgreSQL says of the value alone.
    accepted: bool,
}

fn cases(folder: &Path) -> Vec<Case> {
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let json = |name: &str| serde_json::from_slice::<Value>(&read(name)).unwrap().as_array().unwrap().clone();
    let accepted: HashMap<String, bool> = json("postgres15-jsonb.json")
        .iter()
        .map(|entry| (entry["file"].as_str().unwrap().to_owned(), entry["jsonbAccepts"].as_bool().unwrap()))
        .collect();
    let classes = ["y", "n", "i"].map(|class| (class, read(&format!("{class}.in-resource.ndjson"))));
    let mut cases = Vec::new();
    for entry in json("manifest.json") {
        // Those with a line break in them cannot be a line.
        let Some(number) = entry["line"].as_u64() else { continue };
        let (_, text) = classes.iter().find(|(class, _)| entry["class"] == **class).unwrap();
        let line = text.split(|byte| *byte == b'\n').nth(number as usize - 1).unwrap();
        let file = entry["file"].as_str().unwrap().to_owned();
        cases.push(Case { accepted: accepted[&file], line: line.to_vec(), file });
    }
    cases
}

/// What PostgreSQL's own jsonb makes of the whole line: its text, or the SQLSTATE.
fn postgresqls(client: &mut Client, line: &[u8]) -> Result<String, String> {
    let sql = "SELECT ((convert_from($1, 'UTF8')::jsonb) - 'id' - 'resourceType')::text";
    client.query_one(sql, &[&line]).map(|row| row.get(0)).map_err(|error| error.code().unwrap().code().to_owned())
}

#[test]
fn every_trap_of_the_json_corpus_is_taken_or_refused_as_postgresql_does() {
    let Some(folder) = shared_data_or_say_so("json-torture") else { return };
    let database = Database::new();
    let mut client = database.connect();
    run(&mut client, "SELECT bulk_create_table('Basic')");
    let cases = cases(&folder.join("json-torture"));
    assert!(cases.len() > 300);
    let mut wrong = Vec::new();
    let mut taken = 0;
    for Case { file, line, accepted } in cases {
        let url = database.file("line", &line);
        let expected = postgresqls(&mut client, &line);
        let loaded =
            client.query("SELECT bulk_load($1)", &[&url]).map_err(|error| error.as_db_error().unwrap().clone());
        match (&loaded, &expected) {
            (Ok(_), Ok(text)) => {
                let stored = rows(&mut client, "SELECT resource FROM basic");
                if stored != [text.as_str()] || !accepted {
                    wrong.push(format!("{file}: stored {stored:?}, PostgreSQL has {text}, alone accepted: {accepted}"));
                }
                taken += 1;
            }
            (Err(error), Err(state)) => {
                let class = &error.code().code()[..2];
                if accepted || !["22", "54"].contains(&class) || !error.message().contains("line 1 ") {
                    wrong.push(format!("{file}: {error:?}, PostgreSQL {state}, alone accepted: {accepted}"));
                }
            }
            _ => wrong.push(format!("{file}: loaded {loaded:?}, PostgreSQL {expected:?}, alone accepted: {accepted}")),
        }
        run(&mut client, "TRUNCATE basic");
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(taken > 90, "{taken}");
}
