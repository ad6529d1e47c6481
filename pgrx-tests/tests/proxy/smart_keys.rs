//! Keys of SMART clients that are read from a URL.

use fhir_bulk_tests::http::{ok, status, with_headers};
use fhir_bulk_tests::proxy::Proxy;
use fhir_bulk_tests::tls::{Authority, Server};
use fhir_bulk_tests::wait_for;
use serde_json::json;

use crate::smart::{Signer, asking, line, oauth_error, service_of, token_of};
use crate::support::{Service, file};

/// A service whose client `nightly` has its keys at a URL, by the authority that it trusts.
fn reading(url: &str, authority: &Authority) -> Service {
    service_of(|database, reader| {
        let authority = file(database, "ca.pem", &authority.pem);
        (line("nightly", &json!(url), reader, "system/*.rs"), vec!["--ca-file".to_owned(), authority])
    })
}

fn served(authority: &Authority, answer: Vec<u8>) -> (Server, String) {
    let server = authority.server("localhost", answer, |_| {});
    let url = server.url("localhost", "/jwks?v=1");
    (server, url)
}

fn log_in(proxy: &Proxy, signer: &Signer, id: &str) -> u16 {
    let answer = proxy.send(&asking(&signer.assertion("nightly", id), "system/*.rs"));
    match answer.status {
        200 => drop(token_of(&answer)),
        status => drop(oauth_error(&answer, status, "invalid_client")),
    }
    answer.status
}

#[test]
fn keys_at_a_url_are_read_when_they_are_needed_and_not_again_for_a_minute() {
    let (authority, old, new) = (Authority::new("Hospital"), Signer::elliptic(), Signer::rsa());
    let (server, url) = served(&authority, ok(old.jwks("old").to_string()));
    let service = reading(&url, &authority);
    assert_eq!(server.answered(), 0);
    assert_eq!((log_in(&service.proxy, &old, "old"), log_in(&service.proxy, &old, "old")), (200, 200));
    // A key that the URL has by now is not looked for yet: naming keys makes nobody ask the server.
    server.set_answer(ok(json!({"keys": [old.jwk("old"), new.jwk("new")]}).to_string()));
    assert_eq!((log_in(&service.proxy, &new, "new"), log_in(&service.proxy, &old, "none")), (401, 401));
    assert_eq!(server.answered(), 1);
    // A reload forgets what was read.
    service.proxy.reload();
    assert_eq!((log_in(&service.proxy, &new, "new"), log_in(&service.proxy, &old, "old")), (200, 200));
    server.set_answer(ok(new.jwks("new").to_string()));
    service.proxy.reload();
    assert_eq!((log_in(&service.proxy, &old, "old"), log_in(&service.proxy, &new, "new")), (401, 200));
    assert_eq!(server.answered(), 3);
}

#[test]
fn keys_are_not_taken_from_elsewhere_nor_from_answers_that_are_too_long_or_late() {
    let (authority, signer) = (Authority::new("Hospital"), Signer::elliptic());
    let set = || signer.jwks("k").to_string();
    let (good, other) = served(&authority, ok(set()));
    let mut long = signer.jwks("k");
    long["padding"] = json!("x".repeat(66_000));
    for (what, answer, why) in [
        ("a redirect", status("302 Found", &format!("Location: {other}\r\n")), "redirected"),
        ("an error", status("500 Internal Server Error", ""), "500"),
        ("nothing", ok(""), "EOF"),
        ("no key", ok(r#"{"keys": []}"#), "no key for RS384 or ES384"),
        ("too long", ok(long.to_string()), "more than 65536 bytes"),
        ("less than it says", with_headers("", set()).iter().copied().take(200).collect(), "broke"),
    ] {
        let (server, url) = served(&authority, answer);
        let service = reading(&url, &authority);
        assert_eq!(log_in(&service.proxy, &signer, "k"), 401, "{what}");
        let tells = |line: &str| line.contains("the keys of a client cannot be read") && line.contains(why);
        wait_for(&format!("the log to tell of {what}"), || service.proxy.log().lines().any(tells));
        assert_eq!(log_in(&service.proxy, &signer, "k"), 401, "{what}");
        assert_eq!(server.answered(), 1, "{what}");
    }
    assert_eq!(good.answered(), 0);
    let (_server, url) = served(&Authority::new("Stranger"), ok(set()));
    let service = reading(&url, &authority);
    assert_eq!(log_in(&service.proxy, &signer, "k"), 401);
    wait_for("the reason in the log", || service.proxy.log().contains("authority that is not trusted"));
}

#[test]
fn a_server_of_keys_that_never_answers_holds_up_its_own_client_for_a_while_and_nobody_else() {
    let (authority, signer) = (Authority::new("Hospital"), Signer::elliptic());
    // It accepts connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}/jwks", silent.local_addr().unwrap().port());
    let service = service_of(|database, reader| {
        let authority = file(database, "ca.pem", &authority.pem);
        let lines = line("nightly", &json!(url), reader, "system/*.rs")
            + &line("other", &signer.jwks("k"), reader, "system/*.rs");
        (lines, vec!["--ca-file".to_owned(), authority])
    });
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| log_in(&service.proxy, &signer, "k"));
        token_of(&service.proxy.send(&asking(&signer.assertion("other", "k"), "system/*.rs")));
        assert_eq!(waits.join().unwrap(), 401);
    });
    wait_for("the reason in the log", || service.proxy.log().contains("no whole answer within 5s"));
}
