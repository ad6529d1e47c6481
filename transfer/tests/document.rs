//! Small documents, which are read whole or not at all.

use fhir_bulk_tests::http::{Server, hold, ok, status, with_headers};
use fhir_bulk_transfer::{Authorities, Client, Document, Limits, Policy, TransferError};
use std::io::Write as _;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(100);

fn client(allowed: &str) -> Client {
    let limits = Limits { connect: PATIENCE, idle: PATIENCE, redirects: 0, retries: 0 };
    Client::new(Policy::parse(allowed).unwrap(), limits, Authorities::default())
}

fn fetch(server: &Server, most_bytes: u64) -> Result<Document, TransferError> {
    Document::fetch(&server.url("/"), client("127.0.0.1"), most_bytes, PATIENCE)
}

#[test]
fn a_document_is_whole_and_comes_with_what_is_said_about_keeping_it() {
    let plain = fetch(&Server::answering(ok("0123456789")), 10).unwrap();
    assert_eq!(plain, Document { bytes: b"0123456789".to_vec(), cache_control: None });
    let kept = with_headers("Cache-Control: public\r\nCache-Control: max-age=7\r\n", "x");
    assert_eq!(fetch(&Server::answering(kept), 10).unwrap().cache_control.as_deref(), Some("public,max-age=7"));
}

#[test]
fn what_is_too_long_cut_elsewhere_or_not_allowed_is_an_error_and_asked_for_once() {
    let other = Server::answering(ok("x"));
    for (answer, why) in [
        (ok("0123456789a"), "more than 10 bytes"),
        (ok("0123456789")[..45].to_vec(), "broke"),
        (status("302 Found", &format!("Location: {}\r\n", other.url("/"))), "it was redirected, which is not followed"),
        (status("503 Service Unavailable", "Retry-After: 0\r\n"), "503"),
        (status("204 No Content", ""), "204"),
    ] {
        let server = Server::answering(answer);
        let error = fetch(&server, 10).unwrap_err().to_string();
        assert!(error.contains(why), "{why}: {error}");
        assert_eq!(server.seen().len(), 1, "{why}");
    }
    assert!(other.seen().is_empty());
    let error = Document::fetch(&other.url("/"), client("10.0.0.0/8"), 10, PATIENCE).unwrap_err();
    assert!(matches!(error, TransferError::Refused(_)), "{error}");
    assert!(other.seen().is_empty());
}

#[test]
fn a_document_that_does_not_end_in_time_is_an_error() {
    let server = Server::new(|_, stream| {
        let _ = stream.write_all(&ok("0123456789")[..45]);
        hold(stream);
    });
    let error = Document::fetch(&server.url("/"), client("127.0.0.1"), 10, Duration::from_millis(300)).unwrap_err();
    assert!(error.to_string().contains("no whole answer within 300ms"), "{error}");
}
