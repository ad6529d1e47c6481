//! Requests that an import accepts, and errors for others.

use crate::job::{finish, import, import_sql, inputs, status, wait_for_workers_to_end};
use crate::support::{assert_error, assert_error_with_hint, count, fails, patients, rows, run, value};
use fhir_bulk_tests::{Database, gzip, wait_for};
use serde_json::json;

/// Aidbox's own example, with files in place of its URLs.
#[test]
fn the_body_that_aidbox_documents_is_taken_as_it_is() {
    let database = Database::new();
    let mut client = database.connect();
    let line = |name: &str, id: &str, more: &str| format!("{{\"resourceType\":\"{name}\",\"id\":\"{id}\"{more}}}\n");
    let encounters = line("Encounter", "e", ",\"subject\":{\"reference\":\"Patient/p\"}");
    let files = [
        ("Encounter", encounters),
        ("Organization", line("Organization", "o", "") + &line("Organization", "o2", "")),
        ("Patient", line("Patient", "p", ",\"deceasedBoolean\":false")),
    ]
    .map(|(name, lines)| (name, database.file(&format!("{name}.ndjson.gz"), gzip(lines.as_bytes()))));
    let inputs_of = files.iter().map(|(name, url)| json!({"resourceType": name, "url": url})).collect::<Vec<_>>();
    let body = json!({
        "id": "synthea",
        "inputFormat": "application/fhir+ndjson",
        "contentEncoding": "gzip",
        "mode": "bulk",
        "inputs": inputs_of,
    });
    assert_eq!(value(&mut client, &format!("SELECT bulk_import('{body}', fhir => true)")), "synthea");
    let status = finish(&mut client, "synthea");
    assert_eq!(inputs(&status), ["finished 1", "finished 2", "finished 1"], "{status}");
    assert_eq!(status["type"], "fhir");
    // In Aidbox's form.
    assert_eq!(
        rows(&mut client, "SELECT resource FROM encounter UNION ALL SELECT resource FROM patient"),
        [r#"{"subject": {"id": "p", "resourceType": "Patient"}}"#, r#"{"deceased": {"boolean": false}}"#]
    );
}

#[test]
fn what_a_transaction_takes_back_is_never_begun() {
    let database = Database::new();
    let mut client = database.connect();
    let url = database.file("one", patients(1..=10));
    let sql = |id: &str| import_sql(id, &[("Patient", &url)], json!({}));
    run(&mut client, &format!("BEGIN; {}; ROLLBACK", sql("whole")));
    run(
        &mut client,
        &format!(
            "BEGIN; SAVEPOINT s; {}; ROLLBACK TO s; {}; COMMIT",
            sql("part"),
            sql("kept").replace("Patient", "Person")
        ),
    );
    assert_eq!(finish(&mut client, "kept")["status"], "failed", "the lines are of patients");
    for id in ["whole", "part"] {
        assert_error(&fails(&mut client, &format!("SELECT bulk_import_status('{id}')")), "P0002", &[id]);
    }
    assert_eq!(rows(&mut client, "SELECT id FROM bulk_jobs"), ["kept"]);
    assert_eq!(value(&mut client, "SELECT to_regclass('patient') IS NULL"), "t");
    wait_for_workers_to_end(&database);
}

/// Transactions that a client sends in one message begin at the same microsecond.
#[test]
fn a_job_is_begun_though_another_of_the_same_message_was_taken_back() {
    let database = Database::new();
    let mut client = database.connect();
    let url = database.file("one", patients(1..=10));
    let sql = |id: &str| import_sql(id, &[("Patient", &url)], json!({}));
    run(&mut client, &format!("BEGIN; {}; ROLLBACK; BEGIN; {}; COMMIT", sql("back"), sql("kept")));
    // No status is asked for, which would have it begun.
    wait_for("the job", || rows(&mut client, "SELECT id, status FROM bulk_jobs") == ["kept|finished"]);
}

#[test]
fn an_id_is_a_job_of_its_owner_once_and_one_is_made_when_there_is_none() {
    let database = Database::new();
    let mut client = database.connect();
    let url = database.file("one", patients(1..=10));
    import(&mut client, "twice", &[("Patient", &url)]);
    let error = fails(&mut client, &import_sql("twice", &[("Patient", &url)], json!({})));
    assert_error_with_hint(&error, "42710", &["\"twice\" already"]);
    finish(&mut client, "twice");
    assert_error(&fails(&mut client, &import_sql("twice", &[("Patient", &url)], json!({}))), "42710", &["twice"]);
    // Once it is forgotten, its id is free again.
    run(&mut client, "SET fhir_bulk.job_retention = 0");
    import(&mut client, "twice", &[("Patient", &url)]);

    run(&mut client, "RESET fhir_bulk.job_retention");
    let request = json!({"inputs": [{"resourceType": "Patient", "url": url}]});
    let made = [0, 1].map(|_| value(&mut client, &format!("SELECT bulk_import('{request}')")));
    assert_ne!(made[0], made[1]);
    for id in made {
        assert_eq!(id.len(), 36, "a UUID: {id}");
        assert_eq!(finish(&mut client, &id)["status"], "finished");
    }
}

#[test]
fn a_request_that_is_not_understood_is_refused_with_what_is_wrong() {
    let database = Database::new();
    let mut client = database.connect();
    let input = json!({"resourceType": "Patient", "url": "file:///nowhere"});
    let with = |name: &str, value: serde_json::Value| {
        let mut request = json!({"id": "bad", "inputs": [input]});
        request[name] = value;
        request
    };
    let bad_input =
        |input: serde_json::Value| json!({"inputs": [{"resourceType": "Patient", "url": "file:///x"}, input]});
    let cases = [
        (json!([]), "not a JSON object"),
        (json!("x"), "not a JSON object"),
        (json!({}), "\"inputs\""),
        (with("inputs", json!([])), "\"inputs\""),
        (with("inputs", json!({})), "\"inputs\""),
        (with("inputs", json!(vec![input.clone(); 10_001])), "\"inputs\""),
        (with("id", json!("")), "\"id\""),
        (with("id", json!(7)), "\"id\""),
        (with("id", json!("a/b")), "\"id\""),
        (with("id", json!(".")), "\"id\""),
        (with("id", json!("..")), "\"id\""),
        (with("id", json!("ü")), "\"id\""),
        (with("id", json!("x".repeat(256))), "\"id\""),
        (with("inputFormat", json!("text/csv")), "\"inputFormat\""),
        (with("contentEncoding", json!("br")), "\"contentEncoding\""),
        (with("mode", json!("both")), "\"mode\""),
        (with("update", json!("yes")), "\"update\""),
        (with("skipUnchanged", json!(1)), "\"skipUnchanged\""),
        (with("onConflict", json!("ignore")), "\"onConflict\""),
        (json!({"onConflict": "error", "skipUnchanged": true, "inputs": [input]}), "skipUnchanged"),
        (json!({"onConflict": "error", "update": true, "inputs": [input]}), "update"),
        (with("allowedRetryCount", json!(-1)), "\"allowedRetryCount\""),
        (with("allowedRetryCount", json!(101)), "\"allowedRetryCount\""),
        (with("allowedRetryCount", json!(1.5)), "\"allowedRetryCount\""),
        (with("unknown", json!(1)), "\"unknown\""),
        (bad_input(json!("x")), "\"inputs[2]\""),
        (bad_input(json!({"resourceType": "Patient"})), "\"inputs[2].url\""),
        (bad_input(json!({"resourceType": 1, "url": "file:///x"})), "\"inputs[2].resourceType\""),
        (bad_input(json!({"resourceType": "a;b", "url": "file:///x"})), "a;b"),
        (bad_input(json!({"url": "file:///x", "etag": 1})), "\"inputs[2].etag\""),
        (bad_input(json!({"url": "nowhere"})), "nowhere"),
        (bad_input(json!({"url": "ftp://host/x"})), "ftp"),
    ];
    for (request, piece) in cases {
        let error = fails(&mut client, &format!("SELECT bulk_import($json${request}$json$)"));
        assert_error(&error, "22023", &[piece]);
    }
    for sql in ["SELECT bulk_import(NULL)", "SELECT bulk_import('{}', NULL)", "SELECT bulk_import_status(NULL)"] {
        assert_error(&fails(&mut client, sql), "22004", &["NULL"]);
    }
    run(&mut client, "SET request.jwt.claims = '[]'");
    assert_error(&fails(&mut client, &import_sql("bad", &[], json!({"inputs": [input]}))), "22023", &["claims"]);
    assert_eq!(count(&mut client, "SELECT count(*) FROM fhir_bulk_internal.bulk_job"), 0);
}

#[test]
fn an_unknown_import_has_no_status_and_cannot_be_cancelled() {
    let database = Database::new();
    let mut client = database.connect();
    assert_error_with_hint(&fails(&mut client, "SELECT bulk_import_status('none')"), "P0002", &["\"none\""]);
    assert_eq!(value(&mut client, "SELECT bulk_import_cancel('none')"), "f");
    let url = database.file("one", patients(1..=10));
    import(&mut client, "done", &[("Patient", &url)]);
    assert_eq!(finish(&mut client, "done")["status"], "finished");
    assert_eq!(value(&mut client, "SELECT bulk_import_cancel('done')"), "f");
    assert_eq!(status(&mut client, "done")["status"], "finished");
    run(&mut client, "SET default_transaction_read_only = on");
    for sql in [&import_sql("x", &[("Patient", &url)], json!({})), "SELECT bulk_import_cancel('done')"] {
        assert_error(&fails(&mut client, sql), "25006", &["read-only"]);
    }
    assert_eq!(status(&mut client, "done")["status"], "finished");
}
