//! Where the bytes of submissions come from, and who gets the headers that come with them.

use super::{BASE, Source, add, allowed, finish, outcomes, status, stu3, submit, texts};
use crate::support::{count, patients, rows, run, value};
use fhir_bulk_tests::{Database, http, wait_for};
use serde_json::json;

const SECRET: &str = "Bearer geheim-1234";

#[test]
fn headers_go_to_the_servers_of_manifest_and_files_and_never_after_a_redirect_elsewhere() {
    let (_database, mut client) = allowed();
    let (source, files, elsewhere) = (Source::new(), Source::new(), Source::new());
    let at_files = files.file("/p1", patients(1..=2));
    let target = elsewhere.file("/p2", patients(3..=4));
    let away = files.answer("/away", http::status("307 Temporary Redirect", &format!("Location: {target}\r\n")));
    let back = files.answer("/back", http::status("302 Found", "Location: /p3\r\n"));
    files.file("/p3", patients(5..=6));
    let through =
        elsewhere.answer("/through", http::status("302 Found", &format!("Location: {}\r\n", files.url("/p4"))));
    files.file("/p4", patients(7..=8));
    let first = files.answer("/first", http::status("302 Found", &format!("Location: {through}\r\n")));
    let manifest = stu3(&[("Patient", &at_files), ("Patient", &away), ("Patient", &back), ("Patient", &first)]);
    let url = source.manifest("/m.json", &manifest);
    let headers = json!([{"headerName": "Authorization", "headerValue": SECRET}]);
    submit(&mut client, "s", json!({"manifestUrl": url, "fhirBaseUrl": BASE, "fileRequestHeader": headers}));
    finish(&mut client, "s");
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 8);
    let has_secret = |heads: Vec<String>| {
        assert_eq!(heads.len(), 1);
        heads[0].contains(SECRET)
    };
    assert!(has_secret(source.seen("/m.json")));
    for path in ["/p1", "/away", "/back", "/p3", "/first", "/p4"] {
        assert!(has_secret(files.seen(path)), "{path}");
    }
    for path in ["/p2", "/through"] {
        assert!(!has_secret(elsewhere.seen(path)), "{path}");
    }
}

/// Everything that a superuser can read of the extension's tables and of the server's log has no secret.
fn assert_forgotten(database: &Database, secret: &str) {
    let mut admin = database.connect();
    let tables = "SELECT c.oid::regclass FROM pg_class c WHERE relnamespace = 'fhir_bulk_internal'::regnamespace AND relkind = 'r'";
    for table in rows(&mut admin, tables) {
        let found = format!("SELECT count(*) FROM {table} t WHERE t::text LIKE '%{secret}%'");
        assert_eq!(count(&mut admin, &found), 0, "{table}");
    }
    assert!(!database.cluster().log().contains(secret));
}

#[test]
fn headers_are_kept_while_they_are_needed_and_shown_nowhere() {
    let (database, mut client) = allowed();
    let source = Source::new();
    let stalling = crate::source::Stalling::new(patients(1..=5), 0.5);
    let good = source.manifest("/good", &stu3(&[("Patient", &stalling.url())]));
    // What is bad is in the outcomes and in the log.
    let bad = source.manifest("/bad", &stu3(&[("Patient", &source.url("/gone"))]));
    let secret = format!("geheim-{}", database.name());
    let headers = json!([{"headerName": "x-key", "headerValue": secret}]);
    for url in [&good, &bad] {
        submit(&mut client, "s", json!({"manifestUrl": url, "fhirBaseUrl": BASE, "fileRequestHeader": headers}));
    }
    wait_for("bytes to be asked for", || stalling.requests() == 1);
    wait_for("the other one to be given up", || status(&mut client, "s")["manifestsFetched"] == 1);
    let shown = [
        status(&mut client, "s").to_string(),
        rows(&mut client, "SELECT j::text FROM bulk_jobs j").join(""),
        rows(&mut client, "SELECT a::text FROM pg_stat_activity a WHERE backend_type = 'fhir_bulk job worker'")
            .join(""),
    ];
    assert!(!shown.join("").contains(&secret), "{shown:?}");
    let kept = "SELECT count(*) FROM fhir_bulk_internal.bulk_submission_manifest WHERE headers IS NOT NULL";
    assert_eq!(count(&mut client, kept), 1);
    stalling.go_on();
    super::fetched(&mut client, "s");
    assert_forgotten(&database, &secret);
    finish(&mut client, "s");
    assert_forgotten(&database, &secret);
}

#[test]
fn sources_are_those_that_the_setting_allows_and_of_them_those_of_the_submitter() {
    let (database, mut client) = allowed();
    let source = Source::new();
    let other = Source::new();
    let inside = source.file("/in/p", patients(1..=2));
    let outside = source.file("/out/p", patients(3..=4));
    let elsewhere = other.file("/p", patients(5..=6));
    let redirected = source.answer("/in/away", http::status("302 Found", &format!("Location: {elsewhere}\r\n")));
    let allowed_sources = json!([source.url("/in/")]);
    let mut expected = Vec::new();
    for (name, file) in [("a", &outside), ("b", &elsewhere), ("c", &redirected)] {
        let url = source.manifest(&format!("/in/{name}.json"), &stu3(&[("Patient", &inside), ("Patient", file)]));
        submit(&mut client, "s", json!({"manifestUrl": url, "fhirBaseUrl": BASE, "allowedSources": allowed_sources}));
        expected.push(url);
    }
    let mut paged = stu3(&[("Patient", &inside)]);
    paged["link"] = json!([{"relation": "next", "url": source.manifest("/out/page", &stu3(&[]))}]);
    let url = source.manifest("/in/paged.json", &paged);
    submit(&mut client, "s", json!({"manifestUrl": url, "fhirBaseUrl": BASE, "allowedSources": allowed_sources}));
    expected.push(url);
    // A manifest cannot name what only the server may read, whoever submits.
    let secret = database.file("secret", patients(7..=8));
    let url = source.manifest("/in/file.json", &stu3(&[("Patient", &secret)]));
    add(&mut client, "s", &url);
    expected.push(url);
    let status = finish(&mut client, "s");
    assert_eq!(status["total"], 0, "{status}");
    let outcomes = outcomes(&mut client, &status);
    for url in &expected {
        let text = texts(&outcomes[url])[0];
        assert!(text.contains("permission denied") || text.contains("file:// cannot be read"), "{url}: {text}");
    }
    assert_eq!(other.seen("/p").len() + source.seen("/out/p").len() + source.seen("/out/page").len(), 0);
    run(&mut client, "SET fhir_bulk.allowed_sources = ''");
    let refused = crate::support::fails(
        &mut client,
        &super::sql("t", json!({"manifestUrl": source.url("/in/a.json"), "fhirBaseUrl": BASE})),
    );
    crate::support::assert_error(&refused, "42501", &["permission denied"]);
}

#[test]
fn what_breaks_for_a_moment_is_read_again() {
    let (_database, mut client) = allowed();
    let source = Source::new();
    let file = source.file("/p", patients(1..=3));
    source.answer_first("/p", http::status("503 Service Unavailable", "Retry-After: 0\r\n"));
    let url = source.manifest("/m.json", &stu3(&[("Patient", &file)]));
    add(&mut client, "s", &url);
    finish(&mut client, "s");
    assert_eq!(value(&mut client, "SELECT count(*) FROM patient"), "3");
    assert_eq!(source.seen("/p").len(), 2);
}
