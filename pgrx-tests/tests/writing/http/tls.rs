//! https: which servers are trusted, and what is said of those that are not.

use crate::support::{assert_error, assert_error_with_hint, load, load_fails, patients, run, value};
use fhir_bulk_tests::http::{Server, ok, status};
use fhir_bulk_tests::tls::Authority;
use fhir_bulk_tests::{Client, Database, DbError};
use rcgen::{ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};
use std::io::Write as _;
use std::net::TcpListener;
use std::thread;

/// What the servers have.
const PATH: &str = "/Patient.ndjson";

/// A database and a superuser's session that may read from localhost and trusts an authority.
fn trusting(authority: &Authority) -> (Database, Client) {
    let database = Database::new();
    let mut client = database.connect();
    let file = trusted_file(&database, &authority.pem);
    run(&mut client, &format!("SET fhir_bulk.allowed_sources = '127.0.0.0/8, ::1'; SET fhir_bulk.ca_file = '{file}'"));
    (database, client)
}

fn trusted_file(database: &Database, pem: &str) -> String {
    let url = database.file("ca.pem", pem);
    url.strip_prefix("file://").unwrap().to_owned()
}

/// 08006, and nothing is loaded.
#[track_caller]
fn refused(client: &mut Client, url: &str, why: &str) -> DbError {
    let error = load_fails(client, url, "'Patient'");
    assert_error(&error, "08006", &[url, why]);
    assert_eq!(value(client, "SELECT to_regclass('patient') IS NULL"), "t");
    error
}

#[test]
fn servers_of_an_own_authority_are_read_once_it_is_named() {
    let authority = Authority::new("Hospital A");
    let (database, mut client) = trusting(&authority);
    let by_name = authority.server("localhost", ok(patients(1..=3000)), |_| {});
    let by_address = authority.server("127.0.0.1", ok(patients(1..=3000)), |_| {});
    for url in [by_name.url("localhost", PATH), by_address.url("127.0.0.1", PATH)] {
        assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 3000}"#);
    }
    // Among others, with text between them.
    let other = Authority::new("Hospital B");
    trusted_file(&database, &format!("# ours\n{}\n{}", other.pem, authority.pem));
    assert_eq!(load(&mut client, &by_name.url("localhost", PATH), "'Patient'"), r#"{"total": 3000}"#);
    let second = other.server("localhost", ok(patients(1..=3)), |_| {});
    assert_eq!(load(&mut client, &second.url("localhost", PATH), "'Patient'"), r#"{"total": 3}"#);
}

#[test]
fn servers_that_are_not_who_they_say_are_not_read_and_the_error_says_why() {
    let authority = Authority::new("Hospital A");
    let (_database, mut client) = trusting(&authority);
    let answer = || ok(patients(1..=3));
    for name in ["Hospital A", "Hospital B"] {
        let stranger = Authority::new(name).server("localhost", answer(), |_| {});
        let error = refused(&mut client, &stranger.url("localhost", PATH), "authority that is not trusted");
        assert!(error.hint().unwrap().contains("fhir_bulk.ca_file"), "{error:?}");
    }
    let expired = authority.server("localhost", answer(), |params| params.not_after = date_time_ymd(2020, 1, 1));
    refused(&mut client, &expired.url("localhost", PATH), "certificate has expired");
    let early = authority.server("localhost", answer(), |params| params.not_before = date_time_ymd(2990, 1, 1));
    refused(&mut client, &early.url("localhost", PATH), "certificate is not valid yet");
    let other = authority.server("other.example", answer(), |_| {});
    refused(&mut client, &other.url("localhost", PATH), "is not for host \"localhost\" but for other.example");
    refused(&mut client, &other.url("127.0.0.1", PATH), "is not for host \"127.0.0.1\" but for other.example");
    let for_clients = authority.server("localhost", answer(), |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    refused(&mut client, &for_clients.url("localhost", PATH), "certificate is not valid");
    refused(&mut client, &plain_text(), "does not speak TLS");
    // Without the setting, the authority is a stranger too.
    run(&mut client, "RESET fhir_bulk.ca_file");
    let good = authority.server("localhost", answer(), |_| {});
    refused(&mut client, &good.url("localhost", PATH), "authority that is not trusted");
}

/// The https URL of a server that answers whatever comes with HTTP.
fn plain_text() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(&status("400 Bad Request", ""));
            fhir_bulk_tests::http::hold(&mut stream);
        }
    });
    format!("https://127.0.0.1:{port}/Patient.ndjson")
}

#[test]
fn a_body_that_ends_in_the_middle_of_tls_is_an_error() {
    let authority = Authority::new("Hospital A");
    let (_database, mut client) = trusting(&authority);
    let whole = ok(patients(1..=3000));
    let cut = authority.server("localhost", whole[..whole.len() / 2].to_vec(), |_| {});
    refused(&mut client, &cut.url("localhost", PATH), "the connection broke");
    // Without a length, what says that it is whole is the end of TLS, not that of the connection.
    let until_end = [&b"HTTP/1.0 200 OK\r\n\r\n"[..], patients(1..=3000).as_bytes()].concat();
    let mut cut = authority.server("localhost", until_end.clone(), |_| {});
    cut.break_off();
    refused(&mut client, &cut.url("localhost", PATH), "the connection broke");
    cut = authority.server("localhost", until_end, |_| {});
    assert_eq!(load(&mut client, &cut.url("localhost", PATH), "'Patient'"), r#"{"total": 3000}"#);
}

#[test]
fn redirects_between_http_and_https_go_where_the_list_allows() {
    let authority = Authority::new("Hospital A");
    let (_database, mut client) = trusting(&authority);
    let redirect = |to: &str| status("302 Found", &format!("Location: {to}\r\n"));
    let secure = authority.server("localhost", ok(patients(1..=3)), |_| {});
    let plain = Server::answering(ok(patients(1..=3)));
    let up = Server::answering(redirect(&secure.url("localhost", PATH)));
    let down = authority.server("localhost", redirect(&plain.url("/")), |_| {});
    for url in [up.url("/"), down.url("localhost", PATH)] {
        assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 3}"#, "{url}");
    }
    // A rule for https allows no way down.
    let only = format!("https://localhost:{}, http://127.0.0.1:{}", down.port(), up.port());
    run(&mut client, &format!("SET fhir_bulk.allowed_sources = '{only}'"));
    for url in [up.url("/"), down.url("localhost", PATH)] {
        assert_error(&load_fails(&mut client, &url, "'Patient'"), "42501", &["permission denied"]);
    }
    assert_eq!(plain.seen().len(), 1);
}

#[test]
fn a_file_of_authorities_that_cannot_be_used_is_named() {
    let authority = Authority::new("Hospital A");
    let (database, mut client) = trusting(&authority);
    let server = authority.server("localhost", ok(patients(1..=3)), |_| {});
    let mut fails = |setting: &str, state: &str, why: &str| {
        run(&mut client, &format!("SET fhir_bulk.ca_file = '{setting}'"));
        let error = load_fails(&mut client, &server.url("localhost", PATH), "'Patient'");
        assert_error_with_hint(&error, state, &["fhir_bulk.ca_file", setting, why]);
    };
    fails("/nowhere/ca.pem", "58P01", "No such file");
    fails("nowhere.pem", "58P01", "No such file");
    fails("/tmp", "58030", "not a regular file");
    fails("/dev/zero", "58030", "not a regular file");
    for (name, content, why) in [
        ("empty", String::new(), "no certificate"),
        ("text", "Hospital A".into(), "no certificate"),
        ("key", KeyPair::generate().unwrap().serialize_pem(), "no certificate"),
        ("cut", authority.pem[..authority.pem.len() / 2].to_owned(), "PEM"),
        (
            "garbage",
            format!("{}-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n", authority.pem),
            "certificate 2",
        ),
    ] {
        let url = database.file(name, content);
        fails(url.strip_prefix("file://").unwrap(), "22023", why);
    }
    let role = database.role("loader");
    let error =
        crate::support::fails(&mut database.connect_as(&role), "LOAD 'fhir_bulk'; SET fhir_bulk.ca_file = '/tmp/x'");
    assert_error(&error, "42501", &[]);
}
