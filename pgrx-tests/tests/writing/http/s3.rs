//! Objects of an S3 service: read with the server's keys, so only those that a superuser allows.

use crate::support::{
    assert_error, assert_error_with_hint, fails, load, load_fails, load_sql, patients, rows, run, value,
};
use fhir_bulk_tests::http::{Server, status};
use fhir_bulk_tests::s3::{Fault, KEY_ID, S3Server, SECRET_KEY};
use fhir_bulk_tests::{Client, Cluster, Database, gzip};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

const TOTAL: &str = r#"{"total": 3000}"#;

/// A server whose configuration has the key of the service.
fn with_key() -> Database {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    let settings = [
        format!("fhir_bulk.s3_access_key_id = '{KEY_ID}'"),
        format!("fhir_bulk.s3_secret_access_key = '{SECRET_KEY}'"),
    ];
    database(CLUSTER.get_or_init(|| Cluster::start(&settings.each_ref().map(String::as_str))))
}

fn database(cluster: &'static Cluster) -> Database {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    cluster.database(&format!("s3_{}", COUNT.fetch_add(1, Ordering::Relaxed)))
}

/// A session that may read bucket `bucket` of a service.
fn allowed(database: &Database, endpoint: &str) -> Client {
    let mut client = database.connect();
    run(
        &mut client,
        &format!("SET fhir_bulk.s3_endpoint = '{endpoint}'; SET fhir_bulk.allowed_sources = 's3://bucket/'"),
    );
    client
}

#[test]
fn objects_load_like_files() {
    let (database, service) = (with_key(), S3Server::new());
    let mut client = allowed(&database, &service.endpoint());
    let body = patients(1..=3000);
    for (key, content) in [
        ("Patient.ndjson", body.clone().into_bytes()),
        ("in/2026/Patient.ndjson.gz", gzip(body.as_bytes())),
        ("in/a b+c&d=e%2F?f/Zoë.ndjson", body.clone().into_bytes()),
    ] {
        service.put("bucket", key, &content);
        assert_eq!(load(&mut client, &format!("s3://bucket/{key}"), "'Patient'"), TOTAL, "{key}");
    }
    service.put("bucket", "empty", "");
    assert_eq!(load(&mut client, "s3://bucket/empty", "'Patient'"), r#"{"total": 0}"#);
}

#[test]
fn a_role_reads_the_objects_that_a_superuser_allows_and_no_others() {
    let (database, service) = (with_key(), S3Server::new());
    let mut admin = database.connect();
    let role = database.role("loader");
    run(
        &mut admin,
        &format!(
            "GRANT EXECUTE ON FUNCTION bulk_load TO {role}; GRANT CREATE ON SCHEMA public TO {role};
             ALTER DATABASE {0} SET fhir_bulk.s3_endpoint = '{1}';
             ALTER DATABASE {0} SET fhir_bulk.allowed_sources = 's3://bucket/in/'",
            database.name(),
            service.endpoint()
        ),
    );
    for (bucket, key) in [("bucket", "in/a"), ("bucket", "secret"), ("bucket", "inner"), ("other", "in/a")] {
        service.put(bucket, key, patients(1..=3000));
    }
    let mut client = database.connect_as(&role);
    assert_eq!(load(&mut client, "s3://bucket/in/a", "'Patient'"), TOTAL);
    for mut client in [client, database.connect()] {
        for url in
            ["s3://bucket/secret", "s3://bucket/inner", "s3://other/in/a", "s3://bucket/IN/a", "s3://bucket//in/a"]
        {
            let error = load_fails(&mut client, url, "'Patient'");
            assert_error_with_hint(&error, "42501", &["permission denied", url]);
        }
        for url in ["s3://bucket/in/../secret", "s3://bucket/in/../../other/in/a", "s3://bucket/in/./a", "s3://bucket/"]
        {
            assert_error(&load_fails(&mut client, url, "'Patient'"), "22023", &[url]);
        }
        // The rule for objects opens no way to the service by http.
        let url = format!("{}/bucket/in/a", service.endpoint());
        assert_error(&load_fails(&mut client, &url, "'Patient'"), "42501", &["permission denied"]);
    }
    // Nor does any rule for URLs open one to objects.
    run(&mut admin, "SET fhir_bulk.allowed_sources = '127.0.0.1, 0.0.0.0/0, http://bucket, *.bucket'");
    assert_error(&load_fails(&mut admin, "s3://bucket/in/a", "'Patient'"), "42501", &["permission denied"]);
}

#[test]
fn no_role_sees_or_sets_the_keys_and_no_superuser_stores_them_where_all_can_read() {
    let database = with_key();
    let role = database.role("curious");
    let mut client = database.connect_as(&role);
    // Any function loads the library, and with it the settings.
    fails(&mut client, "SELECT bulk_dump('Patient')");
    for setting in ["s3_access_key_id", "s3_secret_access_key", "s3_session_token"] {
        assert_error(&fails(&mut client, &format!("SHOW fhir_bulk.{setting}")), "42501", &["fhir_bulk"]);
        let error = fails(&mut client, &format!("SELECT current_setting('fhir_bulk.{setting}')"));
        assert_error(&error, "42501", &[]);
    }
    for sql in ["SHOW ALL", "SELECT * FROM pg_settings"] {
        assert!(!rows(&mut client, sql).iter().any(|row| row.contains(SECRET_KEY) || row.contains(KEY_ID)), "{sql}");
    }
    for setting in ["s3_endpoint", "s3_region", "s3_path_style"] {
        assert_error(&fails(&mut client, &format!("SET fhir_bulk.{setting} = 'on'")), "42501", &[]);
    }
    let mut admin = database.connect();
    for sql in [
        "SET fhir_bulk.s3_secret_access_key = 'x'".to_owned(),
        format!("ALTER DATABASE {} SET fhir_bulk.s3_secret_access_key = 'x'", database.name()),
        format!("ALTER ROLE {role} SET fhir_bulk.s3_access_key_id = 'x'"),
    ] {
        run(&mut admin, "LOAD 'fhir_bulk'");
        assert_error(&fails(&mut admin, &sql), "55P02", &["fhir_bulk.s3_"]);
    }
}

/// Neither in what the client gets nor in the server's log.
#[track_caller]
fn refused(database: &Database, client: &mut Client, url: &str, state: &str, why: &str) {
    let error = load_fails(client, url, "'Patient'");
    assert_error(&error, state, &[url, why]);
    for shown in [format!("{error:?}"), database.cluster().log()] {
        for secret in ["X-Amz", "Signature=", KEY_ID, SECRET_KEY, "wrong-secret"] {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
    }
    assert_eq!(value(client, "SELECT to_regclass('patient') IS NULL"), "t");
}

#[test]
fn an_object_that_cannot_be_read_is_an_error_that_says_why_without_signatures() {
    let (database, service) = (with_key(), S3Server::new());
    let mut client = allowed(&database, &service.endpoint());
    refused(&database, &mut client, "s3://bucket/missing", "08006", "404: Not Found (NoSuchKey)");
    service.put("bucket", "cut", patients(1..=3000));
    let cut = service.behind(|_| Fault::CutAnswer(5000));
    run(&mut client, &format!("SET fhir_bulk.s3_endpoint = '{}'", cut.endpoint()));
    refused(&database, &mut client, "s3://bucket/cut", "08006", "the connection broke");
    assert_eq!(cut.connections(), 1);
    let elsewhere = Server::answering(status("307 Temporary Redirect", "Location: http://127.0.0.2/\r\n"));
    run(&mut client, &format!("SET fhir_bulk.s3_endpoint = '{}'", elsewhere.url("")));
    refused(&database, &mut client, "s3://bucket/cut", "42501", "permission denied");
    run(&mut client, "SET fhir_bulk.s3_endpoint = 'http://127.0.0.1:1'");
    refused(&database, &mut client, "s3://bucket/cut", "08006", "refused");
    run(&mut client, "SET fhir_bulk.s3_endpoint = 'nonsense'");
    assert_error(&load_fails(&mut client, "s3://bucket/cut", "'Patient'"), "22023", &["fhir_bulk.s3_endpoint"]);
}

#[test]
fn the_key_may_come_from_the_servers_environment_but_never_half_of_it() {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    static WRONG: OnceLock<Cluster> = OnceLock::new();
    static HALF: OnceLock<Cluster> = OnceLock::new();
    let service = S3Server::new();
    service.put("bucket", "a", patients(1..=3000));
    let environment = format!(
        "export AWS_ACCESS_KEY_ID={KEY_ID} AWS_SECRET_ACCESS_KEY={SECRET_KEY} AWS_ENDPOINT_URL_S3={} AWS_REGION=eu-central-1",
        service.endpoint()
    );
    let allow = "fhir_bulk.allowed_sources = 's3://bucket'";
    let right = database(CLUSTER.get_or_init(|| Cluster::start_after(&environment, &[allow])));
    assert_eq!(load(&mut right.connect(), "s3://bucket/a", "'Patient'"), TOTAL);
    // The settings' key wins.
    let key = ["fhir_bulk.s3_access_key_id = 'TESTKEYID'", "fhir_bulk.s3_secret_access_key = 'wrong-secret'", allow];
    let wrong = database(WRONG.get_or_init(|| Cluster::start_after(&environment, &key)));
    refused(&wrong, &mut wrong.connect(), "s3://bucket/a", "08006", "403: Forbidden (SignatureDoesNotMatch)");
    let half = database(HALF.get_or_init(|| Cluster::start_after(&environment, &key[1..])));
    let error = load_fails(&mut half.connect(), "s3://bucket/a", "'Patient'");
    assert_error_with_hint(&error, "22023", &["fhir_bulk.s3_access_key_id"]);
}

#[test]
fn without_a_key_the_error_says_where_it_belongs() {
    let (database, service) = (Database::new(), S3Server::new());
    let mut client = allowed(&database, &service.endpoint());
    let error = fails(&mut client, &load_sql("s3://bucket/a", "'Patient'"));
    assert_error_with_hint(&error, "55000", &["access key"]);
}
