//! Redirects are followed by hand: a few, each checked anew, without anything of the request before.

use super::allowed;
use crate::support::{assert_error, load, load_fails, patients, run};
use fhir_bulk_tests::http::{Server, ok, status};
use std::io::Write as _;
use std::sync::Arc;

fn to(code: &str, location: &str) -> Vec<u8> {
    status(code, &format!("Location: {location}\r\nSet-Cookie: session=COOKIE\r\n"))
}

#[test]
fn redirects_of_every_kind_on_a_host_are_followed() {
    let (_database, mut client) = allowed();
    for (code, location) in [
        ("301 Moved Permanently", "/data"),
        ("302 Found", "data"),
        ("303 See Other", "./data"),
        ("307 Temporary Redirect", "?again"),
        ("308 Permanent Redirect", "//HOST/data"),
        ("302 Found", "http://HOST/data"),
        ("302 Found", "../../data"),
    ] {
        let server = Server::new(move |request, stream| {
            let host =
                request.head.lines().find_map(|line| line.to_lowercase().strip_prefix("host: ").map(str::to_owned));
            let answer = if request.path == "/start?sig=1" {
                to(code, &location.replace("HOST", &host.unwrap()))
            } else {
                ok(patients(1..=3))
            };
            let _ = stream.write_all(&answer);
        });
        assert_eq!(load(&mut client, &server.url("/start?sig=1"), "'Patient'"), r#"{"total": 3}"#, "{location}");
        let seen = server.seen();
        assert_eq!(seen.len(), 2, "{location}");
        let second = seen[1].head.to_lowercase();
        for forbidden in ["cookie", "referer", "authorization", "sig=1"] {
            assert!(!second.contains(forbidden), "{forbidden} in {second}");
        }
    }
}

#[test]
fn a_redirect_to_a_forbidden_address_is_refused_without_a_connection() {
    let (_database, mut client) = allowed();
    let forbidden = Server::at("127.0.0.2:0", |_, stream| {
        let _ = stream.write_all(&ok(patients(1..=3)));
    });
    let port = forbidden.port();
    for target in [
        format!("http://127.0.0.2:{port}/"),
        format!("http://2130706434:{port}/"),
        format!("http://[::ffff:127.0.0.2]:{port}/"),
        format!("//127.0.0.2:{port}/"),
    ] {
        let server = Server::answering(to("302 Found", &target));
        let error = load_fails(&mut client, &server.url("/"), "'Patient'");
        assert_error(&error, "42501", &["permission denied"]);
    }
    assert!(forbidden.seen().is_empty());
    // To where only its own rule would allow it.
    let (there, elsewhere) = (Server::answering(ok(patients(1..=3))), Server::answering(ok(patients(1..=3))));
    let server = Server::answering(to("302 Found", &elsewhere.url("/data")));
    run(&mut client, &format!("SET fhir_bulk.allowed_sources = '{}, {}'", server.url("/"), there.url("/data")));
    assert_error(&load_fails(&mut client, &server.url("/"), "'Patient'"), "42501", &[]);
    assert!(elsewhere.seen().is_empty());
    let server = Server::answering(to("302 Found", "file:///etc/passwd"));
    run(&mut client, "SET fhir_bulk.allowed_sources = '127.0.0.1'");
    assert_error(&load_fails(&mut client, &server.url("/"), "'Patient'"), "22023", &["could not read"]);
}

#[test]
fn five_redirects_are_followed_and_six_are_not() {
    let (_database, mut client) = allowed();
    let server = Arc::new(Server::new(|request, stream| {
        let left: u32 = request.path[1..].parse().unwrap();
        let answer = if left == 0 { ok(patients(1..=3)) } else { to("302 Found", &format!("/{}", left - 1)) };
        let _ = stream.write_all(&answer);
    }));
    assert_eq!(load(&mut client, &server.url("/5"), "'Patient'"), r#"{"total": 3}"#);
    assert_error(&load_fails(&mut client, &server.url("/6"), "'Patient'"), "08006", &["redirects"]);
    assert_eq!(server.seen().len(), 6 + 6);
    let looping = Server::answering(to("302 Found", "/"));
    assert_error(&load_fails(&mut client, &looping.url("/"), "'Patient'"), "08006", &["redirects"]);
    assert_eq!(looping.seen().len(), 6);
}

#[test]
fn a_redirect_to_nowhere_is_an_error() {
    let (_database, mut client) = allowed();
    let server = Server::answering(status("302 Found", ""));
    assert_error(&load_fails(&mut client, &server.url("/"), "'Patient'"), "08006", &["302"]);
    let server = Server::answering(to("302 Found", "http://h:99999/"));
    assert_error(&load_fails(&mut client, &server.url("/"), "'Patient'"), "22023", &["could not read"]);
}
