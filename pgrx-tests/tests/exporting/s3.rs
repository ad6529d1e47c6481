//! Exports into a bucket: objects appear whole, and their URLs lead to them.

mod duckdb;
mod endings;

use crate::job::{done, export, finish, gated, patients_and_observations, status, wait_for_readers};
use crate::support::{assert_error, assert_error_with_hint, count, fails, load, rows, run, value};
use fhir_bulk_tests::http::{Server, get, ok, status as status_line};
use fhir_bulk_tests::s3::{KEY_ID, S3Server, SECRET_KEY};
use fhir_bulk_tests::{Client, Cluster, Database, gunzip, wait_for};
use serde_json::{Value, json};
use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

const LOCATION: &str = "s3://bucket/exports/fhir";

fn server_with_key() -> Cluster {
    let id = format!("fhir_bulk.s3_access_key_id = '{KEY_ID}'");
    let secret = format!("fhir_bulk.s3_secret_access_key = '{SECRET_KEY}'");
    Cluster::start(&[&id, &secret, "max_worker_processes = 32"])
}

/// A database, on a server whose configuration has the key, that exports to the service at an address.
fn with_service(endpoint: &str) -> (Database, Client) {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    with_service_on(CLUSTER.get_or_init(server_with_key), endpoint)
}

fn with_service_on(cluster: &'static Cluster, endpoint: &str) -> (Database, Client) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let database = cluster.database(&format!("bucket_{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    set(&database, "s3_endpoint", endpoint);
    set(&database, "export_location", LOCATION);
    let client = database.connect();
    (database, client)
}

/// For later sessions.
fn set(database: &Database, setting: &str, to: &str) {
    run(&mut database.connect(), &format!("ALTER DATABASE {} SET fhir_bulk.{setting} = '{to}'", database.name()));
}

/// The names of the objects of an export.
fn objects(service: &S3Server, id: &str) -> Vec<String> {
    let name = |key: &String| Some(key.split_once(&format!("/{id}/"))?.1.to_owned());
    service.keys("bucket").iter().filter_map(name).collect()
}

/// Nothing of any export: neither objects nor parts nor notes.
#[track_caller]
fn assert_empty(service: &S3Server) {
    assert_eq!((service.keys("bucket"), service.unfinished()), (Vec::new(), Vec::new()));
}

fn wait_until_empty(service: &S3Server) {
    wait_for("the bucket to be empty", || service.keys("bucket").is_empty() && service.unfinished().is_empty());
}

/// What a plain HTTP client gets.
#[track_caller]
fn downloaded(url: &Value) -> Vec<u8> {
    let answer = get(url.as_str().unwrap_or_else(|| panic!("no URL: {url}")));
    assert_eq!(answer.status, 200, "{url}");
    answer.body
}

/// What a dump has, as exports write it.
fn dump(client: &mut Client, resource_type: &str) -> String {
    run(client, "SET fhir_bulk.version_id = string; SET TimeZone = 'UTC'");
    let lines = rows(client, &format!("SELECT bulk_dump('{resource_type}', fhir => true)"));
    lines.iter().flat_map(|line| [line, "\n"]).collect()
}

/// Patients of which each has so many bytes that nothing compresses.
fn large_patients(client: &mut Client, patients: usize, kilobytes: usize) {
    run(
        client,
        &format!(
            "SELECT bulk_create_table('Patient'); INSERT INTO patient (id, txid, status, resource)
             SELECT n, 1, 'created', jsonb_build_object('text', (SELECT string_agg(md5((n * 1000000 + i)::text), '')
               FROM generate_series(1, {}) i)) FROM generate_series(1, {patients}) n",
            kilobytes * 32
        ),
    );
}

#[test]
fn all_types_arrive_whole_and_are_read_by_url_without_a_key() {
    let service = S3Server::new();
    let (database, mut client) = with_service(&service.endpoint());
    patients_and_observations(&mut client, 1000);
    run(&mut client, "SELECT bulk_create_table('Device')");
    for encoding in ["plain", "gzip"] {
        let status = done(&mut client, &json!({"contentEncoding": encoding}));
        assert_eq!(status["requiresAccessToken"], false);
        let id = status["jobId"].as_str().unwrap();
        let end = if encoding == "gzip" { ".gz" } else { "" };
        let names = [format!("Observation.1.ndjson{end}"), format!("Patient.1.ndjson{end}")];
        assert_eq!(objects(&service, id), names);
        for (file, resource_type) in status["output"].as_array().unwrap().iter().zip(["Observation", "Patient"]) {
            assert_eq!((&file["type"], &file["count"]), (&json!(resource_type), &json!(1000)));
            let url = file["url"].as_str().unwrap();
            assert!(url.starts_with(&format!("{}/bucket/exports/fhir/", service.endpoint())), "{url}");
            assert!(url.contains("X-Amz-Expires=3600&") && !url.contains(SECRET_KEY), "{url}");
            let bytes = downloaded(&file["url"]);
            let bytes = if encoding == "gzip" { gunzip(&bytes) } else { bytes };
            assert!(String::from_utf8(bytes).unwrap() == dump(&mut client, resource_type), "{resource_type}");
            // Nobody signed for another object.
            assert_eq!(get(&url.replace("ndjson", "other")).status, 403);
        }
    }
    assert_eq!(service.unfinished(), [""; 0]);
    // What was exported loads elsewhere.
    let key = service.keys("bucket").into_iter().find(|key| key.ends_with("Patient.1.ndjson.gz")).unwrap();
    let before = rows(&mut client, "SELECT id, resource FROM patient ORDER BY id");
    run(&mut client, "TRUNCATE patient; SET fhir_bulk.allowed_sources = 's3://bucket/exports/'");
    assert_eq!(load(&mut client, &format!("s3://bucket/{key}"), "'Patient', fhir => true"), r#"{"total": 1000}"#);
    assert_eq!(rows(&mut client, "SELECT id, resource FROM patient ORDER BY id"), before);
    // Files of the server are another thing.
    let url = format!("/export/{key}?expires=9&signature=00");
    assert_error(&fails(&mut client, &format!("SELECT bulk_export_file('{url}')")), "42501", &["not signed"]);
    drop(database);
}

#[test]
fn deletions_and_one_file_of_all_types_have_urls_too() {
    let service = S3Server::new();
    let (_database, mut client) = with_service(&service.endpoint());
    patients_and_observations(&mut client, 50);
    let whole = done(&mut client, &json!({"resourceTypes": ["Patient", "Observation"]}));
    let expected = dump(&mut client, "Patient") + &dump(&mut client, "Observation");
    assert!(String::from_utf8(downloaded(&whole["downloadUrl"])).unwrap() == expected);
    assert_eq!(whole["count"], 100);
    run(&mut client, "SELECT bulk_create_table('Device')");
    let nothing = done(&mut client, &json!({"resourceTypes": ["Device"]}));
    assert_eq!(downloaded(&nothing["downloadUrl"]), b"");
    run(
        &mut client,
        "INSERT INTO patient_history (id, txid, ts, status, resource) VALUES ('gone', 2, '2025-06-01Z', 'deleted', '{}')",
    );
    let increment = done(&mut client, &json!({"_since": "2025-01-01T00:00:00Z"}));
    let bundle = String::from_utf8(downloaded(&increment["deleted"][0]["url"])).unwrap();
    assert!(bundle.contains("Patient/gone"), "{bundle}");
}

#[test]
fn objects_of_several_parts_and_processes_are_whole() {
    let service = S3Server::new();
    let (_database, mut client) = with_service(&service.endpoint());
    large_patients(&mut client, 30, 1024);
    run(
        &mut client,
        "SELECT bulk_create_table('Device'), bulk_create_table('Group');
         INSERT INTO device (id, txid, status, resource) SELECT id, txid, status, resource FROM patient;
         INSERT INTO \"group\" (id, txid, status, resource) SELECT id, txid, status, resource FROM patient LIMIT 1;
         SET fhir_bulk.export_file_size = '20MB'; SET fhir_bulk.export_workers = 2",
    );
    let status = done(&mut client, &json!({}));
    let files = status["output"].as_array().unwrap();
    assert_eq!(files.len(), 5, "{status}");
    for resource_type in ["Patient", "Device"] {
        let of_type = files.iter().filter(|file| file["type"] == resource_type);
        let bytes: Vec<u8> = of_type.flat_map(|file| downloaded(&file["url"])).collect();
        assert!(bytes == dump(&mut client, resource_type).as_bytes(), "{resource_type}");
    }
    assert_eq!(objects(&service, status["jobId"].as_str().unwrap()).len(), 5);
    assert_eq!(service.unfinished(), [""; 0]);
}

#[test]
fn objects_are_written_by_several_processes_side_by_side() {
    let service = S3Server::new();
    let (database, mut client) = with_service(&service.endpoint());
    patients_and_observations(&mut client, 100);
    let gate = gated(&mut client, &database, "Patient");
    std::mem::forget(gated(&mut client, &database, "Observation"));
    let id = export(&mut client, &json!({"_type": "Observation,Patient"}));
    wait_for_readers(&mut client, 2);
    gate.open();
    let status = finish(&mut client, &id);
    assert_eq!(status["status"], "completed", "{status}");
    for (file, resource_type) in status["output"].as_array().unwrap().iter().zip(["Observation", "Patient"]) {
        assert!(downloaded(&file["url"]) == dump(&mut client, resource_type).as_bytes(), "{resource_type}");
    }
}

#[test]
fn urls_lead_to_where_the_objects_were_put_whatever_is_set_by_then() {
    let (service, other) = (S3Server::new(), S3Server::new());
    let (database, mut client) = with_service(&service.endpoint());
    patients_and_observations(&mut client, 5);
    let id = export(&mut client, &json!({}));
    finish(&mut client, &id);
    set(&database, "s3_endpoint", &other.endpoint());
    set(&database, "export_location", "s3://elsewhere");
    let mut client = database.connect();
    let status = status(&mut client, &id);
    assert_eq!(downloaded(&status["output"][0]["url"]).split_inclusive(|byte| *byte == b'\n').count(), 5);
    // They are also removed from there.
    assert_eq!(value(&mut client, &format!("SELECT bulk_export_cancel('{id}')")), "t");
    wait_until_empty(&service);
    // A signed URL leads to where its file was put, whatever is set by then.
    set(&database, "export_location", &format!("file://{}", database.path("exports").display()));
    let mut client = database.connect();
    let status = done(&mut client, &json!({}));
    let url = status["output"][0]["url"].as_str().unwrap();
    run(&mut client, "SET fhir_bulk.export_location = 's3://bucket/exports'");
    let file = format!("SELECT bulk_export_file('{url}')");
    assert_eq!(rows(&mut client, &file).len(), 1);
    run(&mut client, &format!("SET fhir_bulk.export_location = 'file://{}'", database.path("other").display()));
    assert_eq!(rows(&mut client, &file).len(), 1);
    run(&mut client, "SET fhir_bulk.export_location = ''");
    assert_eq!(rows(&mut client, &file).len(), 1);
}

#[test]
fn what_the_service_refuses_fails_the_export_with_the_services_word() {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    let service = S3Server::new();
    let wrong = CLUSTER.get_or_init(|| {
        let id = format!("fhir_bulk.s3_access_key_id = '{KEY_ID}'");
        Cluster::start(&[&id, "fhir_bulk.s3_secret_access_key = 'wrong/secret'"])
    });
    let (database, mut client) = with_service_on(wrong, &service.endpoint());
    patients_and_observations(&mut client, 5);
    let id = export(&mut client, &json!({}));
    let status = finish(&mut client, &id);
    assert_eq!(status["status"], "failed", "{status}");
    let error = status["error"].as_str().unwrap();
    assert!(error.contains("s3://bucket/exports/fhir/") && error.contains("403: Forbidden (SignatureDoesNotMatch)"));
    let log = database.cluster().log();
    for secret in ["wrong/secret", KEY_ID, "X-Amz"] {
        assert!(!log.contains(secret) && !status.to_string().contains(secret), "{secret}");
    }
    let (_database, mut client) = with_service(&service.endpoint());
    patients_and_observations(&mut client, 5);
    run(&mut client, "SET fhir_bulk.export_location = 's3://missing'");
    let id = export(&mut client, &json!({}));
    let status = finish(&mut client, &id);
    assert_eq!(status["status"], "failed", "{status}");
    assert!(status["error"].as_str().unwrap().contains("404: Not Found (NoSuchBucket)"), "{status}");
    // Without the bucket there is nothing left to be removed from it.
    let remembered = "SELECT count(*) FROM fhir_bulk_internal.bulk_job_task WHERE worker IS NOT NULL";
    wait_for("nothing to be left of it", || count(&mut client, remembered) == 0);
    assert_empty(&service);
}

#[test]
fn a_service_that_redirects_elsewhere_does_not_get_the_data_there() {
    let elsewhere = Server::answering(ok(""));
    let to = format!("Location: {}\r\n", elsewhere.url("/bucket/x"));
    let redirecting = Server::new(move |request, stream| {
        let empty = r#"<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"></ListBucketResult>"#;
        let lists = request.head.starts_with("GET ");
        let _ = stream.write_all(&if lists { ok(empty) } else { status_line("307 Temporary Redirect", &to) });
    });
    let (_database, mut client) = with_service(&redirecting.url(""));
    patients_and_observations(&mut client, 5);
    let id = export(&mut client, &json!({}));
    let status = finish(&mut client, &id);
    assert_eq!(status["status"], "failed", "{status}");
    assert!(status["error"].as_str().unwrap().contains("307: Temporary Redirect"), "{status}");
    assert!(redirecting.seen().iter().any(|request| request.head.starts_with("PUT ")));
    assert_eq!(elsewhere.seen().len(), 0);
}

#[test]
fn a_location_that_cannot_be_one_is_refused_before_there_is_a_job() {
    let (_database, mut client) = with_service("http://127.0.0.1:1");
    patients_and_observations(&mut client, 1);
    for location in
        ["s3://", "s3:///a", "s3://buc ket", "s3://bucket/a/../b", "s3://b@d/x", "gs://bucket", "S3://bucket"]
    {
        run(&mut client, &format!("SET fhir_bulk.export_location = '{location}'"));
        assert_error_with_hint(&fails(&mut client, "SELECT bulk_export('{}')"), "22023", &[location]);
    }
    run(&mut client, "SET fhir_bulk.export_location = 's3://bucket'; SET fhir_bulk.s3_endpoint = 'nonsense'");
    assert_error(&fails(&mut client, "SELECT bulk_export('{}')"), "22023", &["fhir_bulk.s3_endpoint"]);
    let without_key = Database::new();
    let mut client = without_key.connect();
    patients_and_observations(&mut client, 1);
    run(&mut client, "SET fhir_bulk.export_location = 's3://bucket'");
    assert_error_with_hint(&fails(&mut client, "SELECT bulk_export('{}')"), "55000", &["access key"]);
    assert_eq!(count(&mut client, "SELECT count(*) FROM bulk_jobs"), 0);
}

#[test]
fn an_ordinary_role_exports_to_the_bucket_and_never_sees_a_key() {
    let service = S3Server::new();
    let (database, mut admin) = with_service(&service.endpoint());
    patients_and_observations(&mut admin, 10);
    let role = database.role("app");
    run(&mut admin, &format!("GRANT EXECUTE ON FUNCTION bulk_export TO {role}; GRANT SELECT ON patient TO {role}"));
    let mut client = database.connect_as(&role);
    let status = done(&mut client, &json!({"_type": "Patient"}));
    assert_eq!(downloaded(&status["output"][0]["url"]).split_inclusive(|byte| *byte == b'\n').count(), 10);
    // The id of the key is part of a presigned URL and of nothing else; the key itself is nowhere.
    let shown = [
        rows(&mut client, "SELECT * FROM bulk_jobs").concat(),
        rows(&mut client, "SELECT name, setting, boot_val, reset_val FROM pg_settings").concat(),
        rows(&mut admin, "SELECT t::text FROM fhir_bulk_internal.bulk_job t").concat(),
        rows(&mut admin, "SELECT t::text FROM fhir_bulk_internal.bulk_job_task t").concat(),
        rows(&mut admin, "SELECT query FROM pg_stat_activity").concat(),
        database.cluster().log(),
    ];
    for text in &shown {
        assert!(!text.contains(SECRET_KEY) && !text.contains(KEY_ID), "{text}");
    }
    assert!(!status.to_string().contains(SECRET_KEY));
    for sql in ["SET fhir_bulk.export_location = 's3://other'", "SET fhir_bulk.s3_endpoint = 'http://evil'"] {
        assert_error(&fails(&mut client, sql), "42501", &["permission denied"]);
    }
}

#[test]
fn tables_arrive_whole_and_their_urls_are_valid_for_a_day() {
    let service = S3Server::new();
    let (_database, mut client) = with_service(&service.endpoint());
    patients_and_observations(&mut client, 3);
    let view = json!({"resource": "Patient", "select": [{"column": [{"name": "id", "path": "id"}]}]});
    let subjects =
        json!([{"name": "patients", "view": view}, {"name": "none", "query": "SELECT 1 AS one WHERE false"}]);
    let status = done(&mut client, &json!({"subjects": subjects, "_outputFormat": "csv"}));
    let id = status["jobId"].as_str().unwrap();
    assert_eq!(objects(&service, id), ["none.part1.csv", "patients.part1.csv"]);
    for (file, text) in status["output"].as_array().unwrap().iter().zip(["id\n1\n2\n3\n", "one\n"]) {
        assert!(file["url"].as_str().unwrap().contains("X-Amz-Expires=86400&"), "{file}");
        assert_eq!(String::from_utf8(downloaded(&file["url"])).unwrap(), text);
    }
    assert_eq!(value(&mut client, &format!("SELECT bulk_export_cancel('{id}')")), "t");
    wait_until_empty(&service);
}
