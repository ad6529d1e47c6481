//! Submissions into distributed tables: what is stored and what is deleted, on all servers or on none.

use crate::job::allow;
use crate::nodes::with_patients;
use crate::support::{count, patients, rows, run, value};
use fhir_bulk_tests::http::{Server, ok};
use fhir_bulk_tests::{Client, wait_for};
use serde_json::{Value, json};
use std::io::Write as _;

/// A source of `/<n>`, a manifest that has patients and deletes others.
fn source(manifests: Vec<(String, Vec<String>)>) -> Server {
    Server::new(move |request, stream| {
        let mut parts = request.path.trim_start_matches('/').split('/');
        let number: usize = parts.next().unwrap().parse().unwrap();
        let (stored, deleted) = &manifests[number];
        let body = match parts.next() {
            None => {
                json!({"transactionTime": "t", "output": [{"type": "Patient", "url": format!("/{number}/patients")}],
                "deleted": [{"type": "Bundle", "url": format!("/{number}/deleted")}]})
                .to_string()
            }
            Some("patients") => stored.clone(),
            _ => {
                let entry = |url: &String| json!({"request": {"method": "DELETE", "url": url}});
                let bundles = deleted.chunks(30).map(|urls| {
                    let entries: Vec<Value> = urls.iter().map(entry).collect();
                    json!({"resourceType": "Bundle", "type": "transaction", "entry": entries}).to_string() + "\n"
                });
                bundles.collect()
            }
        };
        let _ = stream.write_all(&ok(body));
    })
}

/// Submits a manifest and completes the submission. Returns its last status.
fn submit(client: &mut Client, server: &Server, number: usize) -> Value {
    let mut request = json!({"submitter": {"value": "payer-7"}, "submissionId": number.to_string()});
    let asked = format!("SELECT bulk_submit_status($json${request}$json$)");
    for (name, text) in [
        ("manifestUrl", server.url(&format!("/{number}"))),
        ("fhirBaseUrl", "https://source.example/fhir".to_owned()),
        ("submissionStatus", "completed".to_owned()),
    ] {
        request[name] = text.into();
    }
    run(client, &format!("SELECT bulk_submit($json${request}$json$)"));
    let mut last = Value::Null;
    wait_for("the submission to be over", || {
        last = serde_json::from_str(&value(client, &asked)).unwrap();
        ["completed", "failed"].map(Value::from).contains(&last["status"])
    });
    last
}

#[test]
fn what_a_submission_deletes_is_deleted_on_all_shards_with_what_it_stores() {
    let (database, _) = with_patients();
    allow(&database);
    let gone = |range: std::ops::RangeInclusive<usize>| range.map(|n| format!("Patient/p-{n}")).collect::<Vec<_>>();
    let mut deleted = gone(1..=200);
    deleted.extend(["Patient/unknown".to_owned(), "Group/g".to_owned(), "Patient/p-1".to_owned()]);
    let manifests = vec![
        (patients(1..=500), Vec::new()),
        (patients(401..=600), deleted),
        // What is deleted comes back, and what is deleted already stays as it is.
        (patients(100..=120), gone(150..=160)),
        (patients(700..=710), gone(300..=500)),
    ];
    let server = source(manifests);
    let client = &mut database.connect();
    assert_eq!(submit(client, &server, 0)["total"], 500);
    let done = submit(client, &server, 1);
    assert_eq!((&done["status"], &done["total"], &done["outcome"]), (&json!("completed"), &json!(200), &json!([])));
    let states = "SELECT status, count(*), count(DISTINCT txid), count(DISTINCT ts) FROM patient GROUP BY status ORDER BY status";
    assert_eq!(rows(client, states), ["created|300|2|2", "updated|100|1|1", "deleted|200|1|1"]);
    // All that the submission has written has its number, on every server.
    assert_eq!(count(client, "SELECT count(DISTINCT txid) FROM patient"), 2);
    let shards = "SELECT count(DISTINCT shardid) FROM pg_dist_shard WHERE logicalrelid = 'patient'::regclass";
    assert!(count(client, shards) > 1);
    assert_eq!(submit(client, &server, 2)["status"], "completed");
    assert_eq!(
        rows(client, "SELECT status, count(*) FROM patient GROUP BY status ORDER BY status"),
        ["created|300", "updated|100", "deleted|179", "recreated|21"]
    );
    // A row that must not be deleted: nothing of the submission is there, nor deleted, on any server.
    run(client, "ALTER TABLE patient ADD CONSTRAINT stays CHECK (id <> 'p-450' OR status <> 'deleted')");
    let before = rows(client, "SELECT id, status, txid FROM patient ORDER BY id");
    let failed = submit(client, &server, 3);
    assert!(failed["error"].as_str().unwrap().contains("stays"), "{failed}");
    assert_eq!(rows(client, "SELECT id, status, txid FROM patient ORDER BY id"), before);
}
