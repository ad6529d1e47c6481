//! Downloads: whole files and parts of them, by signed URLs.

use crate::job::{done, download, dump, patients_and_observations, with_location};
use crate::support::{assert_error, assert_error_with_hint, fails, run, value};
use fhir_bulk_tests::{Client, Database, error, wait_for};
use serde_json::json;

/// The signature that a database gives a file until `expires`, by the secret that its superuser can read.
fn signature(client: &mut Client, job: &str, name: &str, expires: &str) -> String {
    let secret = value(client, "SELECT secret FROM fhir_bulk_internal.bulk_secret");
    let database: u32 =
        value(client, "SELECT oid FROM pg_database WHERE datname = current_database()").parse().unwrap();
    let mut signed = database.to_le_bytes().to_vec();
    for part in ["file", job, name, expires] {
        signed.extend_from_slice(&(part.len() as u64).to_le_bytes());
        signed.extend_from_slice(part.as_bytes());
    }
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    ring::hmac::sign(&key, &signed).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_url_gives_its_file_until_it_expires_and_not_after() {
    let (_database, mut client) = with_location();
    patients_and_observations(&mut client, 2);
    let status = done(&mut client, &json!({"_type": "Patient"}));
    let (id, url) = (status["jobId"].as_str().unwrap(), status["output"][0]["url"].as_str().unwrap());
    let now: i64 = value(&mut client, "SELECT floor(extract(epoch FROM clock_timestamp()))::bigint").parse().unwrap();
    let expires: i64 = url.split("expires=").nth(1).unwrap().split('&').next().unwrap().parse().unwrap();
    assert!((3500..=3600).contains(&(expires - now)), "{expires} {now}");
    let mut get = |expires: i64| {
        let signature = signature(&mut client, id, "Patient.1.ndjson", &expires.to_string());
        let url = format!("/export/{id}/Patient.1.ndjson?expires={expires}&signature={signature}");
        client.query("SELECT bulk_export_file($1)", &[&url])
    };
    assert_eq!(get(now + 1000).unwrap().len(), 1);
    for expires in [now - 1, now - 3600, 0, -1] {
        assert_error_with_hint(&error(get(expires)), "42501", &["the URL has expired"]);
    }
}

#[test]
fn only_signed_urls_give_files_and_only_of_their_database() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 2);
    run(&mut client, "SET fhir_bulk.export_url = 'https://example.org/files/'");
    let status = done(&mut client, &json!({"_type": "Patient"}));
    let url = status["output"][0]["url"].as_str().unwrap();
    assert!(url.starts_with("https://example.org/files/"), "{url}");
    let whole = download(&mut client, &url.into());
    // The function does not check the base of the URL.
    let path = url.strip_prefix("https://example.org/files/").unwrap();
    for base in ["", "/", "http://other/", "a/b/c/"] {
        assert_eq!(download(&mut client, &format!("{base}{path}").into()), whole);
    }
    let mut refused = |url: &str, piece: &str| {
        let result = client.query("SELECT bulk_export_file($1)", &[&url]);
        assert_error(&error(result), "42501", &[piece]);
    };
    let expires: i64 = url.split("expires=").nth(1).unwrap().split('&').next().unwrap().parse().unwrap();
    for bad in [
        url.replace("Patient.1", "Patient.2"),
        url.replace("Patient.1.ndjson", "../../../data/PG_VERSION"),
        url.replace(&format!("expires={expires}"), &format!("expires={}", expires + 1)),
        url.replace("expires=", "expires=0"),
        url.replace("signature=", "signature=0"),
        url.replace("signature=", "x="),
        format!("{}00", url),
        url[..url.len() - 2].to_owned(),
        url.split('?').next().unwrap().to_owned(),
        String::new(),
        "/etc/passwd".to_owned(),
        "?".to_owned(),
        "é/é?expires=é&signature=é".to_owned(),
    ] {
        refused(&bad, "not signed");
    }
    // Another database has another secret, although its files are in the same location.
    let other = Database::new();
    let location = value(&mut client, "SHOW fhir_bulk.export_location");
    let mut stranger = other.connect();
    run(&mut stranger, &format!("SET fhir_bulk.export_location = '{location}'"));
    assert_error(&error(stranger.query("SELECT bulk_export_file($1)", &[&url])), "42501", &["not signed"]);
    let role = database.role("nobody");
    let mut nobody = database.connect_as(&role);
    assert_error(&error(nobody.query("SELECT bulk_export_file($1)", &[&url])), "42501", &["bulk_export_file"]);
    assert_error(&fails(&mut nobody, "SELECT * FROM fhir_bulk_internal.bulk_secret"), "42501", &["fhir_bulk_internal"]);
    // A copy of a template does not sign with the template's secret, and a dump does not contain the secret.
    let dumped = "SELECT unnest(extconfig)::regclass FROM pg_extension WHERE extname = 'fhir_bulk'";
    assert_eq!(value(&mut client, dumped), "bulk_search_parameter");
}

/// A part of a file: its bytes, how many the file has, and the URL to read on with.
fn part(client: &mut Client, url: &str, start: i64, length: i32) -> Result<(Vec<u8>, i64, String), postgres::Error> {
    let row = client.query_one("SELECT * FROM bulk_export_file_part($1, $2, $3)", &[&url, &start, &length])?;
    Ok((row.get(0), row.get(1), row.get(2)))
}

#[test]
fn parts_of_a_file_are_the_file_for_whoever_may_have_it() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 100);
    let status = done(&mut client, &json!({"_type": "Patient"}));
    let url = status["output"][0]["url"].as_str().unwrap().to_owned();
    let whole = download(&mut client, &status["output"][0]["url"]);
    assert_eq!(whole.split_inclusive(|byte| *byte == b'\n').count(), dump(&mut client, "Patient").len());
    let (mut found, mut next) = (Vec::new(), url.clone());
    while found.len() < whole.len() {
        let (bytes, size, next_url) = part(&mut client, &next, found.len() as i64, 777).unwrap();
        assert!(!bytes.is_empty() && bytes.len() <= 777);
        assert_eq!(size, whole.len() as i64);
        found.extend(bytes);
        next = next_url;
    }
    assert!(found == whole);
    assert_eq!(part(&mut client, &url, 1_000_000_000_000, 10).unwrap().0, b"");
    for (start, length, piece) in [(-1, 10, "start"), (0, 0, "length"), (0, -1, "length"), (0, i32::MAX, "length")] {
        assert_error(&error(part(&mut client, &url, start, length)), "22023", &[piece]);
    }
    assert_error(&error(part(&mut client, &url.replace("Patient.1", "Patient.2"), 0, 1)), "42501", &["not signed"]);
    for call in ["NULL, 0, 1", "'', NULL, 1", "'', 0, NULL"] {
        assert_error(&fails(&mut client, &format!("SELECT * FROM bulk_export_file_part({call})")), "22004", &["NULL"]);
    }
    // The right to the one function is the right to the other, even if a role has another function with that name.
    let role = database.role("app");
    let mut app = database.connect_as(&role);
    run(
        &mut client,
        &format!(
            "CREATE SCHEMA {role}_own AUTHORIZATION {role}; SET ROLE {role};
             CREATE FUNCTION {role}_own.bulk_export_file(text) RETURNS SETOF bytea LANGUAGE sql AS 'SELECT NULL::bytea';
             RESET ROLE; ALTER ROLE {role} SET search_path = {role}_own, public"
        ),
    );
    let refused = error(part(&mut app, &url, 0, 1));
    assert_error_with_hint(&refused, "42501", &["permission denied for function bulk_export_file"]);
    run(&mut client, &format!("GRANT EXECUTE ON FUNCTION bulk_export_file(text) TO {role}"));
    assert_eq!(part(&mut app, &url, 0, 5).unwrap().0, whole[..5]);
}

#[test]
fn who_began_to_read_in_time_reads_on_when_the_url_has_expired() {
    let (_database, mut client) = with_location();
    patients_and_observations(&mut client, 2);
    let status = done(&mut client, &json!({"_type": "Patient"}));
    let whole = download(&mut client, &status["output"][0]["url"]);
    let id = status["jobId"].as_str().unwrap();
    let now: i64 = value(&mut client, "SELECT floor(extract(epoch FROM clock_timestamp()))::bigint").parse().unwrap();
    let expires = now + 2;
    let signature = signature(&mut client, id, "Patient.1.ndjson", &expires.to_string());
    let url = format!("/export/{id}/Patient.1.ndjson?expires={expires}&signature={signature}");
    let (first, _, next) = part(&mut client, &url, 0, 10).unwrap();
    wait_for("the URL to expire", || part(&mut client, &url, 0, 10).is_err());
    assert_error(&error(part(&mut client, &url, 0, 10)), "42501", &["the URL has expired"]);
    let (rest, _, _) = part(&mut client, &next, 10, 1 << 20).unwrap();
    assert!([first, rest].concat() == whole);
}
