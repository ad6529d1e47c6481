//! `POST /rpc`: loads from buckets, and imports.

use fhir_bulk_tests::proxy::{Request, Response};
use fhir_bulk_tests::s3::{KEY_ID, S3Server, SECRET_KEY};
use fhir_bulk_tests::{gzip, wait_for};
use serde_json::{Value, json};

use crate::support::{PASSWORD, Service, role, value};

/// A service whose database may read from this machine.
fn service() -> Service {
    Service::with(|database| {
        let set = format!("ALTER DATABASE {} SET fhir_bulk.allowed_sources = '127.0.0.1'", database.name());
        database.connect().batch_execute(&set).unwrap();
        Vec::new()
    })
}

fn request(method: &str, params: Value) -> Request {
    Request::json("/rpc", &json!({"method": format!("aidbox.bulk/{method}"), "params": params}).to_string())
}

#[track_caller]
fn result(response: &Response) -> Value {
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/json"));
    response.json()["result"].clone()
}

/// The message of an error.
#[track_caller]
fn error(response: &Response, status: u16) -> String {
    assert_eq!(response.status, status, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/json"));
    response.json()["error"]["message"].as_str().unwrap().to_owned()
}

fn lines(resource_type: &str, numbers: std::ops::RangeInclusive<usize>) -> String {
    numbers.map(|n| format!("{{\"resourceType\":\"{resource_type}\",\"id\":\"x-{n}\"}}\n")).collect()
}

#[test]
fn a_load_from_a_bucket_takes_what_is_new_and_is_followed_by_its_bucket() {
    let (service, bucket) = (service(), S3Server::new());
    bucket.put("bucket", "fhir/1/Patient.ndjson.gz", gzip(lines("Patient", 1..=3).as_bytes()));
    bucket.put("bucket", "fhir/1/observation-01.ndjson", "{\"id\": \"o-1\"}\n");
    bucket.put("bucket", "fhir/2/Patient/a.Patient.ndjson", lines("Patient", 4..=4));
    bucket.put("bucket", "fhir/2/Encounter.ndjson", "broken");
    bucket.put("bucket", "fhir/1/import.ndjson", "no type in its name");
    let account = json!({"access-key-id": KEY_ID, "secret-access-key": SECRET_KEY, "region": "us-east-1", "host": bucket.endpoint()});
    let params = |more: Value| {
        let mut params = json!({"bucket": "s3://bucket", "account": account});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        params
    };
    let load = |more: Value| service.send(request("load-from-bucket", params(more)));
    let ended = || {
        let mut last = json!(null);
        wait_for("the load to end", || {
            last = result(&service.send(request("load-from-bucket-status", json!({"bucket": "s3://bucket"}))));
            last["state"] != "in-progress"
        });
        last
    };
    let started = |count: u64| {
        json!({"message": format!("Upload from bucket <s3://bucket> started. {count} new files added."),
            "progress": {"total": count}, "new-files-count": count})
    };
    let prefixes = json!({"prefixes": ["fhir/1/", "fhir/2/Patient"], "thread-num": 1, "scheduler": "by-last-modified",
        "connect-timeout": 5000, "read-timeout": 0, "disable-idx?": true, "drop-primary-key?": false});
    assert_eq!(result(&load(prefixes)), started(3));
    assert_eq!(ended(), json!({"state": "completed", "progress": {"total": 3, "pending": 0, "done": 3}}));
    assert_eq!(result(&load(json!({}))), started(1));
    ended();
    let files =
        "SELECT string_agg(concat_ws(' ', file, resource_type, loaded, status), E'\\n' ORDER BY file) FROM bulk_files";
    let mut client = service.connect();
    assert_eq!(
        value(&mut client, files),
        "fhir/1/Patient.ndjson.gz Patient 3 done\nfhir/1/observation-01.ndjson Observation 1 done\n\
         fhir/2/Encounter.ndjson Encounter 0 error\nfhir/2/Patient/a.Patient.ndjson Patient 1 done"
    );
    assert_eq!(result(&load(json!({}))), started(0));
    assert_eq!(ended()["progress"]["total"], 0);
    // A known id fails its file, of which nothing is stored; with upsert? it is replaced.
    bucket.put("bucket", "fhir/3/Patient.ndjson", lines("Patient", 3..=9));
    assert_eq!(result(&load(json!({}))), started(1));
    ended();
    assert_eq!(value(&mut client, "SELECT count(*) FROM patient"), "4");
    assert_eq!(value(&mut client, "SELECT message LIKE '%x-3%' FROM bulk_files WHERE file ~ '/3/'"), "true");
    client.batch_execute("DELETE FROM bulk_files WHERE file ~ '/3/'").unwrap();
    assert_eq!(result(&load(json!({"upsert?": true}))), started(1));
    ended();
    assert_eq!(value(&mut client, "SELECT count(*) FROM patient"), "9");
    // Nobody is told the key, and others nothing at all.
    let told = service.proxy.log() + &service.database.cluster().log();
    for key in [KEY_ID, SECRET_KEY, "test%2FSECRET"] {
        assert!(!told.contains(key), "{key}: {told}");
    }
    let other = role(&service.database, "other");
    let of_other = |method: &str| request(method, json!({"bucket": "s3://bucket"})).basic(&other, PASSWORD);
    error(&service.proxy.send(&of_other("load-from-bucket-status")), 404);
    error(&service.proxy.send(&of_other("load-from-bucket")), 403);
    // A key that the service does not know, and a service that may not be asked.
    let mut wrong = params(json!({}));
    wrong["account"]["secret-access-key"] = "WRONG".into();
    let message = error(&service.send(request("load-from-bucket", wrong.clone())), 422);
    assert!(message.contains("403") && !message.contains("WRONG") && !message.contains(KEY_ID), "{message}");
    wrong["account"]["host"] = "http://127.0.0.2:1".into();
    let message = error(&service.send(request("load-from-bucket", wrong)), 403);
    assert!(message.contains("permission denied"), "{message}");
    // Without an account, objects are the server's own, and not allowed here.
    error(&service.send(request("load-from-bucket", json!({"bucket": "s3://bucket"}))), 403);
}

#[test]
fn what_a_caller_sends_by_mistake_or_on_purpose_is_refused() {
    let service = service();
    let rpc = |body: &str| service.send(Request::json("/rpc", body));
    for method in
        ["aidbox.bulk/load-from-buckets", "aidbox.bulk/Import-start", "", "\u{0}", "a".repeat(100_000).as_str()]
    {
        let message = error(&rpc(&json!({"method": method, "params": {}}).to_string()), 404);
        assert!(message.starts_with("there is no method") && message.len() < 1000, "{message}");
    }
    for body in ["", "[]", "{", "{}", r#"{"method": 1}"#, r#"{"method": null}"#, "\u{0}", r#"{"method": "\ud800"}"#] {
        error(&rpc(body), 400);
    }
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    error(&rpc(&format!(r#"{{"method": "aidbox.bulk/import-start", "params": {deep}}}"#)), 400);
    for params in [
        json!(1),
        json!({"bucket": "s3://b\u{0}"}),
        json!({"bucket": "s3://b", "prefixes": ["../../etc/"], "account": null, "thread-num": "\u{0}"}),
        json!({"bucket": "s3://b", "account": {"access-key-id": "SECRET\u{0}", "secret-access-key": "a", "region": "r"}}),
        json!({"bucket": "s3://b", "drop-primary-key?": true}),
        json!({"bucket": "s3://b", "x": "SECRET"}),
    ] {
        let message = error(&service.send(request("load-from-bucket", params)), 422);
        assert!(!message.contains("SECRET"), "{message}");
    }
    for number in ["1e999999", "99999999999999999999999999", "-0.5", "1E1000000000000"] {
        let body = format!(
            r#"{{"method": "aidbox.bulk/load-from-bucket", "params": {{"bucket": "s3://b", "thread-num": {number}}}}}"#
        );
        let response = rpc(&body);
        assert!([400, 422].contains(&response.status), "{number}: {}", response.text());
    }
    for (params, named) in
        [(json!({"meta": {}}), "meta"), (json!({"id_prefix": "a"}), "id_prefix"), (json!({}), "input")]
    {
        let message = error(&service.send(request("import-start", params)), 422);
        assert!(message.contains(named), "{message}");
    }
    for method in ["import-status", "import-errors", "import-cancel", "load-from-bucket-status"] {
        let params = if method.starts_with("load") { json!({"bucket": "s3://b"}) } else { json!({}) };
        error(&service.send(request(method, params)), 404);
        error(&service.send(request(method, json!({"bucket": "s3://b", "more": 1}))), 422);
    }
    error(&service.send(Request::get("/rpc")), 405);
    error(&service.proxy.send(&request("import-status", json!({}))), 401);
    assert_eq!(value(&mut service.connect(), "SELECT count(*) FROM bulk_jobs"), "0");
}

#[test]
fn an_import_is_started_followed_and_ended_and_tells_its_errors() {
    let service = service();
    let good = service.database.file("good", lines("Patient", 1..=3));
    let bad = service.database.file("bad", lines("Patient", 4..=5) + "{\n");
    let call = |method: &str, params: Value| service.send(request(method, params));
    let start = json!({"format": "aidbox", "on-conflict": "update",
        "input": [{"url": good}, {"url": bad, "resourceType": "Patient"}]});
    let started = result(&call("import-start", start));
    assert_eq!((&started["format"], &started["status"]), (&json!("aidbox"), &json!("in-progress")));
    let mut status = json!(null);
    wait_for("the import to end", || {
        status = result(&call("import-status", json!({})));
        status["status"] != "in-progress"
    });
    assert_eq!((&status["id"], &status["status"], &status["errors"]), (&started["id"], &json!("failed"), &json!(1)));
    let input = &status["input"][0];
    assert_eq!((&input["url"], &input["status"], &input["count"]), (&json!(good), &json!("loaded"), &json!(3)));
    assert_eq!((&status["input"][1]["status"], &status["input"][1]["errors"]), (&json!("failed"), &json!(1)));
    let errors = result(&call("import-errors", json!({"omit-resources?": true})));
    assert_eq!(
        (&errors[0]["input_no"], &errors[0]["line_no"], &errors[0]["type"]),
        (&json!(1), &json!(3), &json!("Patient"))
    );
    assert!(errors[0]["errors"][0]["message"].as_str().unwrap().starts_with("line 3 "), "{errors}");
    assert_eq!(errors.as_array().unwrap().len(), 1);
    error(&call("import-cancel", json!({})), 409);
    // One that waits for a row of another session.
    let mut holder = service.connect();
    holder.batch_execute("BEGIN; LOCK TABLE patient").unwrap();
    let id = result(&call("import-start", json!({"format": "aidbox", "input": [{"url": good}]})))["id"].clone();
    let cancelled = result(&call("import-cancel", json!({"id": id})));
    assert_eq!(
        (&cancelled["message"], &cancelled["import"]["status"]),
        (&json!("Import canceled"), &json!("canceled"))
    );
    drop(holder);
    assert_eq!(result(&call("import-status", json!({})))["id"], id);
    assert_eq!(result(&call("import-status", json!({"id": started["id"]})))["id"], started["id"]);
    let other = role(&service.database, "other");
    error(&service.proxy.send(&request("import-status", json!({"id": id})).basic(&other, PASSWORD)), 404);
}
