//! `account`: an import with an S3 service and a key of its own.

use crate::job::{finish, hold, inputs, status, wait_for_workers_to_end};
use crate::support::{assert_error, count, patients, rows, run, value};
use fhir_bulk_tests::s3::{KEY_ID, S3Server, SECRET_KEY};
use fhir_bulk_tests::{Client, Database, error};
use serde_json::{Value, json};

/// A service with two files, a database that may read from some sources, and a session.
fn place(sources: &str) -> (S3Server, Database, Client) {
    let service = S3Server::new();
    service.put("bucket", "in/Patient.1.ndjson", patients(1..=3));
    service.put("bucket", "in/Patient.2.ndjson", patients(4..=5));
    let database = Database::new();
    let client = crate::job::set(&database, &format!("fhir_bulk.allowed_sources = '{sources}'"));
    (service, database, client)
}

fn request(id: &str, endpoint: &str, secret: &str, more: Value) -> String {
    let mut request = json!({"id": id, "inputs": [{"url": "s3://bucket/in/"}], "account":
        {"accessKeyId": KEY_ID, "secretAccessKey": secret, "region": "us-east-1", "host": endpoint}});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request.to_string()
}

/// As a parameter, so that no text of a statement has the key.
fn import(client: &mut Client, request: &str) -> Result<String, postgres::Error> {
    client.query_one("SELECT bulk_import($1::text::jsonb)", &[&request]).map(|row| row.get(0))
}

/// All that the database and the server's log tell.
fn told(database: &Database, client: &mut Client, id: &str) -> String {
    let mut told = status(client, id).to_string();
    for query in [
        "SELECT * FROM bulk_jobs",
        "SELECT * FROM bulk_job_inputs",
        "SELECT * FROM bulk_files",
        "SELECT query FROM pg_stat_activity",
        "SELECT * FROM fhir_bulk_internal.bulk_job",
        "SELECT * FROM fhir_bulk_internal.bulk_job_task",
        "SELECT * FROM fhir_bulk_internal.bulk_file",
        "SELECT name, setting FROM pg_settings",
    ] {
        told += &rows(client, query).join("\n");
    }
    told + &database.cluster().log()
}

#[track_caller]
fn assert_no_key(told: &str) {
    for key in [KEY_ID, SECRET_KEY, "test%2FSECRET"] {
        assert!(!told.contains(key), "{key} in {told}");
    }
}

const KEPT: &str = "SELECT count(*) FROM fhir_bulk_internal.bulk_job_secret";

#[test]
fn an_import_reads_with_the_key_of_its_account_which_nobody_sees_and_which_goes_with_it() {
    let (service, database, mut client) = place("127.0.0.1");
    let held = hold(&database, "p-3");
    let more = json!({"onlyNew": true, "onConflict": "update"});
    import(&mut client, &request("job", &service.endpoint(), SECRET_KEY, more.clone())).unwrap();
    assert_eq!(count(&mut client, KEPT), 1);
    assert_no_key(&told(&database, &mut client, "job"));
    let all = database.role("all");
    run(
        &mut client,
        &format!("GRANT USAGE ON SCHEMA fhir_bulk_internal TO {all}; GRANT pg_read_all_data TO {all}; SET ROLE {all}"),
    );
    assert_eq!(count(&mut client, KEPT), 0);
    run(&mut client, "RESET ROLE");
    drop(held);
    assert_eq!(inputs(&finish(&mut client, "job")), ["finished 3", "finished 2"]);
    assert_eq!(count(&mut client, KEPT), 0);
    assert_no_key(&told(&database, &mut client, "job"));
    // Files of one service are not those of another.
    let shown = rows(&mut client, "SELECT bucket, file, service, status FROM bulk_files ORDER BY url");
    assert_eq!(shown[0], format!("s3://bucket|in/Patient.1.ndjson|{}|done", service.endpoint()));
    let other = S3Server::new();
    other.put("bucket", "in/Patient.1.ndjson", patients(6..=6));
    import(&mut client, &request("other", &other.endpoint(), SECRET_KEY, more.clone())).unwrap();
    assert_eq!(inputs(&finish(&mut client, "other")), ["finished 1"]);
    // Nor is the key kept after a cancel.
    let held = hold(&database, "p-7");
    service.put("bucket", "in/Patient.3.ndjson", patients(7..=7));
    import(&mut client, &request("cancelled", &service.endpoint(), SECRET_KEY, more)).unwrap();
    assert_eq!(count(&mut client, KEPT), 1);
    run(&mut client, "SELECT bulk_import_cancel('cancelled')");
    assert_eq!(count(&mut client, KEPT), 0);
    drop(held);
    wait_for_workers_to_end(&database);
    assert_eq!(value(&mut client, "SELECT count(*) FROM patient"), "6");
    assert_no_key(&told(&database, &mut client, "cancelled"));
}

#[test]
fn the_host_of_an_account_is_a_server_as_any_other() {
    // Nothing but public addresses by https; the objects of the server's own key; another server.
    for sources in ["", "s3://bucket", "http://127.0.0.2"] {
        let (service, _database, mut client) = place(sources);
        let refused = error(import(&mut client, &request("x", &service.endpoint(), SECRET_KEY, json!({}))));
        assert_error(&refused, "42501", &["permission denied", "s3://bucket/in/"]);
        assert!(refused.hint().unwrap().contains("allowed_sources"), "{refused:?}");
        assert_no_key(&format!("{refused:?}"));
        assert_eq!(count(&mut client, KEPT), 0);
    }
    // A prefix of the URL counts, too.
    let (service, _database, mut client) = place("");
    run(&mut client, &format!("SET fhir_bulk.allowed_sources = '{}/bucket/in'", service.endpoint()));
    let outside =
        json!({"inputs": [{"url": "s3://bucket/in/Patient.1.ndjson"}, {"url": "s3://other/in/Patient.1.ndjson"}]});
    import(&mut client, &request("outside", &service.endpoint(), SECRET_KEY, outside)).unwrap();
    let ended = finish(&mut client, "outside");
    assert_eq!(inputs(&ended), ["finished 3", "failed 0"], "{ended}");
    assert!(ended["inputs"][1]["error"].as_str().unwrap().contains("permission denied"), "{ended}");
}

#[test]
fn a_wrong_account_is_told_without_its_key() {
    let (service, database, mut client) = place("127.0.0.1");
    let wrong = error(import(&mut client, &request("x", &service.endpoint(), "wrong", json!({}))));
    assert_error(&wrong, "08006", &["403"]);
    assert_no_key(&format!("{wrong:?}"));
    for (member, value) in [
        ("accessKeyId", json!(1)),
        ("accessKeyId", json!("")),
        ("secretAccessKey", json!(null)),
        ("secretAccessKey", json!("a b")),
        ("region", json!("x.evil.example/")),
        ("region", json!("")),
        ("host", json!("user@127.0.0.1")),
        ("host", json!("file:///etc/passwd")),
        ("host", json!("http://127.0.0.1/?a")),
        ("host", json!("http://")),
        ("other", json!("x")),
    ] {
        let mut asked: Value = serde_json::from_str(&request("x", &service.endpoint(), SECRET_KEY, json!({}))).unwrap();
        asked["account"][member] = value;
        let refused = error(import(&mut client, &asked.to_string()));
        assert_error(&refused, "22023", &["account"]);
        assert_no_key(&format!("{refused:?}"));
    }
    let file = json!({"inputs": [{"url": "file:///x"}]});
    let refused = error(import(&mut client, &request("x", &service.endpoint(), SECRET_KEY, file)));
    assert_error(&refused, "22023", &["account", "s3://"]);
    assert_no_key(&told_log(&database));
    assert_eq!(count(&mut client, KEPT), 0);
}

fn told_log(database: &Database) -> String {
    database.cluster().log()
}
