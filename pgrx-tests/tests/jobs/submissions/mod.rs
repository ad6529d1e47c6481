//! Submissions: what is fetched, what of it is stored, and what stays of what was taken back.

mod agreed;
mod credentials;
mod kills;
mod oauth;
mod refused;
mod sources;
mod staged;
mod taken_back;
mod whole;

use crate::job::allow;
use crate::support::{count, rows, value};
use fhir_bulk_tests::http::{Server, ok};
use fhir_bulk_tests::{Client, Database, wait_for};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex};

/// The base of relative references at the source.
const BASE: &str = "https://source.example/fhir";

/// A server of manifests and files.
pub struct Source {
    server: Server,
    answers: Arc<Mutex<BTreeMap<String, Vec<Vec<u8>>>>>,
}

impl Source {
    pub fn new() -> Source {
        let answers: Arc<Mutex<BTreeMap<String, Vec<Vec<u8>>>>> = Arc::default();
        let known = answers.clone();
        let server = Server::new(move |request, stream| {
            let path = request.path.split('?').next().unwrap();
            // The last one stays.
            let answer = known.lock().unwrap().get_mut(path).map(|answers| match answers.len() {
                1 => answers[0].clone(),
                _ => answers.remove(0),
            });
            let answer = answer.unwrap_or_else(|| fhir_bulk_tests::http::status("404 Not Found", ""));
            let _ = stream.write_all(&answer);
        });
        Source { server, answers }
    }

    /// Has an answer at a path, as it goes over the wire. Returns the URL.
    pub fn answer(&self, path: &str, answer: impl Into<Vec<u8>>) -> String {
        self.answers.lock().unwrap().insert(path.to_owned(), vec![answer.into()]);
        self.server.url(path)
    }

    /// Has another answer at a path for the next request only.
    pub fn answer_first(&self, path: &str, answer: impl Into<Vec<u8>>) {
        self.answers.lock().unwrap().get_mut(path).unwrap().insert(0, answer.into());
    }

    /// Has a body at a path.
    pub fn file(&self, path: &str, body: impl AsRef<[u8]>) -> String {
        self.answer(path, ok(body))
    }

    /// Has a manifest at a path.
    pub fn manifest(&self, path: &str, manifest: &Value) -> String {
        self.file(path, manifest.to_string())
    }

    /// Has a manifest with one file of Patients.
    pub fn patients(&self, name: &str, lines: &str) -> String {
        let file = self.file(&format!("/{name}.ndjson"), lines);
        self.manifest(&format!("/{name}.json"), &stu3(&[("Patient", &file)]))
    }

    pub fn url(&self, path: &str) -> String {
        self.server.url(path)
    }

    /// The heads of the requests for a path.
    pub fn seen(&self, path: &str) -> Vec<String> {
        let of_path = |request: &fhir_bulk_tests::http::Request| request.path == path;
        self.server.seen().into_iter().filter(of_path).map(|request| request.head).collect()
    }
}

/// A manifest of STU3 with these files.
pub fn stu3(files: &[(&str, &str)]) -> Value {
    let output: Vec<Value> = files.iter().map(|(name, url)| json!({"type": name, "url": url})).collect();
    json!({"transactionTime": "2026-11-27T08:00:00.000Z", "request": "https://source.example/fhir/$export",
        "requiresAccessToken": false, "output": output, "error": []})
}

/// A database that may read from 127.0.0.1, and a superuser's session in it.
pub fn allowed() -> (Database, Client) {
    let database = Database::new();
    allow(&database);
    let client = database.connect();
    (database, client)
}

/// A request about the submission `id`, with more members.
pub fn request(id: &str, more: Value) -> Value {
    let mut request =
        json!({"submitter": {"system": "https://hub.example/orgs", "value": "payer-7"}, "submissionId": id});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

/// The statement of such a request.
pub fn sql(id: &str, more: Value) -> String {
    format!("SELECT bulk_submit($json${}$json$)", request(id, more))
}

/// Sends such a request. Returns the status.
pub fn submit(client: &mut Client, id: &str, more: Value) -> Value {
    serde_json::from_str(&value(client, &sql(id, more))).unwrap()
}

/// Adds a manifest.
pub fn add(client: &mut Client, id: &str, url: &str) -> Value {
    submit(client, id, json!({"manifestUrl": url, "fhirBaseUrl": BASE}))
}

pub fn complete(client: &mut Client, id: &str) -> Value {
    submit(client, id, json!({"submissionStatus": "completed"}))
}

pub fn status(client: &mut Client, id: &str) -> Value {
    let sql = format!("SELECT bulk_submit_status($json${}$json$)", request(id, json!({})));
    serde_json::from_str(&value(client, &sql)).unwrap()
}

/// Waits for a state. Returns the status.
pub fn wait_until(client: &mut Client, id: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    wait_for(&format!("submission {id}: {what}"), || {
        last = status(client, id);
        assert!(last["status"] != "failed" || what == "fails", "{last}");
        wanted(&last)
    });
    last
}

/// Waits until all manifests are fetched.
pub fn fetched(client: &mut Client, id: &str) -> Value {
    wait_until(client, id, "is fetched", |status| status["manifests"] == status["manifestsFetched"])
}

/// Completes a submission, and waits until it is applied.
pub fn finish(client: &mut Client, id: &str) -> Value {
    complete(client, id);
    wait_until(client, id, "is applied", |status| status["status"] == "completed")
}

/// The OperationOutcomes of a status, by the URLs of their manifests.
pub fn outcomes(client: &mut Client, status: &Value) -> BTreeMap<String, Vec<Value>> {
    let mut found = BTreeMap::new();
    for outcome in status["outcome"].as_array().unwrap() {
        let url = outcome["url"].as_str().unwrap();
        let lines = value(
            client,
            &format!("SELECT convert_from(string_agg(o, ''), 'UTF8') FROM bulk_submit_outcomes('{url}') o"),
        );
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(outcome["countSeverity"], json!([{"code": "error", "count": lines.len()}]));
        found.insert(outcome["manifestUrl"].as_str().unwrap().to_owned(), lines);
    }
    found
}

/// The texts of OperationOutcomes.
pub fn texts(outcomes: &[Value]) -> Vec<&str> {
    outcomes.iter().map(|outcome| outcome["issue"][0]["details"]["text"].as_str().unwrap()).collect()
}

/// How many rows the extension keeps of what was fetched: headers and names of files, pieces, outcomes.
pub fn kept(client: &mut Client) -> [i64; 3] {
    let of = |condition: &str| format!("SELECT count(*) FROM fhir_bulk_internal.bulk_submission_{condition}");
    [
        count(client, &of("manifest WHERE headers IS NOT NULL OR files IS NOT NULL")),
        count(client, &of("piece")),
        count(client, &of("outcome")),
    ]
}

/// Whether there is a table of Patients.
pub fn has_patients(client: &mut Client) -> bool {
    value(client, "SELECT to_regclass('public.patient') IS NOT NULL") == "t"
}

/// Asserts that table `patient` has exactly the patients `p-1` to `p-<number>`, each once and as its line has it, and that
/// tables and indexes are sound.
#[track_caller]
pub fn assert_patients(client: &mut Client, number: usize) {
    let found = rows(
        client,
        "SELECT count(*), count(DISTINCT id), sum((resource #>> '{multipleBirth,integer}')::bigint),
                count(*) FILTER (WHERE id <> 'p-' || (resource #>> '{multipleBirth,integer}')) FROM patient",
    );
    assert_eq!(found, [format!("{number}|{number}|{}|0", number * (number + 1) / 2)]);
    crate::job::assert_sound(client);
}

/// A role that may submit, and write Patients.
pub fn submitter(database: &Database, client: &mut Client, name: &str) -> String {
    crate::job::writer(database, client, name, "bulk_submit(jsonb), bulk_submit_status_cancel(text)")
}
