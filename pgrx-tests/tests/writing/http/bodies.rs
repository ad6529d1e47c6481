//! Complete bodies in every way a server may send them, and incomplete bodies.

use super::allowed;
use crate::support::{assert_error, count, load, load_fails, patients, rows, run, value};
use fhir_bulk_tests::http::{Server, chunked, hold, ok, resetting, status, with_headers};
use fhir_bulk_tests::port::Port;
use fhir_bulk_tests::{Client, DbError, gzip};
use std::io::Write as _;
use std::thread;
use std::time::Duration;

const LINES: usize = 3000;
const TOTAL: &str = r#"{"total": 3000}"#;

#[test]
fn a_body_is_the_same_however_it_is_sent() {
    let (database, mut client) = allowed();
    let body = patients(1..=LINES).into_bytes();
    let packed = gzip(&body);
    let members = [gzip(&body[..1000]), gzip(&body[1000..])].concat();
    let without_length = [b"HTTP/1.0 200 OK\r\n\r\n", &body[..]].concat();
    let answers = [
        ("plain", ok(&body)),
        ("chunked", chunked(&body, 1000, true)),
        ("tiny chunks", chunked(&body, 7, true)),
        ("one chunk", chunked(&body, body.len(), true)),
        ("gzip file", ok(&packed)),
        ("gzip members", ok(&members)),
        ("gzip encoding", with_headers("Content-Encoding: gzip\r\n", &packed)),
        (
            "gzip encoding of a gzip file",
            with_headers("Content-Type: application/gzip\r\nContent-Encoding: gzip\r\n", &packed),
        ),
        ("chunked gzip", chunked(&packed, 333, true)),
        ("until the connection ends", without_length),
        ("identity", with_headers("Content-Encoding: identity\r\nContent-Type: text/html; charset=latin1\r\n", &body)),
    ];
    let url = database.file("patients", &body);
    run(&mut client, "SELECT bulk_create_table('Patient')");
    // The same version and time for both, so that whole rows can be compared.
    let same = "CREATE TABLE by_file AS SELECT * FROM patient WITH NO DATA";
    run(&mut client, same);
    run(&mut client, "BEGIN");
    assert_eq!(load(&mut client, &url, "'Patient'"), TOTAL);
    run(&mut client, "INSERT INTO by_file SELECT * FROM patient; COMMIT; UPDATE by_file SET ts = NULL, cts = NULL");
    for (name, answer) in answers {
        let server = Server::answering(answer);
        run(&mut client, "TRUNCATE patient; ALTER SEQUENCE transaction_id_seq RESTART");
        assert_eq!(load(&mut client, &server.url("/patients.ndjson"), "'Patient'"), TOTAL, "{name}");
        run(&mut client, "UPDATE patient SET ts = NULL, cts = NULL");
        assert_eq!(
            count(&mut client, "SELECT count(*) FROM patient p JOIN by_file f ON p.* *= f.*"),
            LINES as i64,
            "{name}"
        );
        assert_eq!(server.seen().len(), 1, "{name}");
    }
}

#[test]
fn a_slow_drip_is_read_to_its_end() {
    let (_database, mut client) = allowed();
    let server = Server::new(|_, stream| {
        let body = patients(1..=3);
        stream.set_nodelay(true).unwrap();
        for byte in ok(&body) {
            stream.write_all(&[byte]).unwrap();
            thread::sleep(Duration::from_micros(500));
        }
    });
    run(&mut client, "SET fhir_bulk.idle_timeout = '5s'");
    assert_eq!(load(&mut client, &server.url("/"), "'Patient'"), r#"{"total": 3}"#);
}

#[test]
fn a_body_slower_than_the_load_and_a_load_slower_than_the_body_both_work() {
    let (_database, mut client) = allowed();
    // More than waits between the threads at once.
    let body = patients(1..=40_000);
    let server = Server::answering(ok(&body));
    run(
        &mut client,
        "SELECT bulk_create_table('Patient');
         CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.2); RETURN NULL; END';
         CREATE TRIGGER slow AFTER INSERT ON patient FOR EACH STATEMENT EXECUTE FUNCTION slow()",
    );
    assert_eq!(load(&mut client, &server.url("/"), "'Patient'"), r#"{"total": 40000}"#);
}

/// Nothing may be loaded from an answer that fails: 08006.
#[track_caller]
fn fails_to_connect(client: &mut Client, url: &str) -> DbError {
    let error = load_fails(client, url, "'Patient'");
    assert_error(&error, "08006", &[url.split('?').next().unwrap()]);
    assert_eq!(value(client, "SELECT to_regclass('patient') IS NULL"), "t");
    error
}

#[test]
fn an_answer_that_is_cut_off_is_an_error_and_never_a_shorter_file() {
    let (_database, mut client) = allowed();
    let body = patients(1..=LINES).into_bytes();
    let plain = ok(&body);
    let packed = ok(gzip(&body));
    // Behind a newline too, where the lines alone would look whole.
    let at_line = plain.len() - patients(LINES..=LINES).len();
    for (name, answer) in [
        ("Content-Length", plain[..plain.len() - 100].to_vec()),
        ("Content-Length at the end of a line", plain[..at_line].to_vec()),
        ("last chunk", chunked(&body, 1000, false)),
        ("within a chunk", {
            let whole = chunked(&body, 1000, true);
            whole[..whole.len() - 500].to_vec()
        }),
        ("gzip", packed[..packed.len() - 4].to_vec()),
        ("head", b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()),
        ("nothing at all", Vec::new()),
        ("garbage", b"\x16\x03\x01\x02\x00\x01\x00\x01garbage\r\n\r\n".to_vec()),
        ("not HTTP", b"220 mail.example.org ESMTP\r\n\r\n".to_vec()),
        ("bad length", b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n".to_vec()),
        ("bad chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec()),
        ("huge chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n".to_vec()),
        ("huge header", [b"HTTP/1.1 200 OK\r\nX: ", &vec![b'x'; 20 << 20][..], b"\r\n\r\n"].concat()),
        ("many headers", [&b"HTTP/1.1 200 OK\r\n"[..], &b"X: y\r\n".repeat(100_000), b"\r\n"].concat()),
    ] {
        let server = Server::answering(answer);
        let error = load_fails(&mut client, &server.url("/data"), "'Patient'");
        assert_error(&error, "08006", &[&server.url("/data")]);
        assert_eq!(value(&mut client, "SELECT to_regclass('patient') IS NULL"), "t", "{name}");
    }
    // A gzip file that is broken itself came whole: that is another error.
    let broken = gzip(&body);
    let server = Server::answering(ok(&broken[..broken.len() - 20]));
    assert_error(&load_fails(&mut client, &server.url("/"), "'Patient'"), "22P04", &["gzip"]);
}

#[test]
fn a_connection_that_breaks_in_the_middle_takes_back_what_was_read() {
    let (_database, mut client) = allowed();
    let server = Server::new(|_, stream| {
        let answer = ok(patients(1..=40_000));
        let _ = stream.write_all(&answer[..answer.len() / 2]);
    });
    let error = fails_to_connect(&mut client, &server.url("/data?sig=SECRET"));
    assert!(error.detail().is_some_and(|detail| detail.contains("line")), "{error:?}");
}

#[test]
fn a_connection_that_is_reset_takes_back_what_was_read() {
    let (_database, mut client) = allowed();
    let answer = ok(patients(1..=40_000));
    let error = fails_to_connect(&mut client, &resetting(answer[..answer.len() / 2].to_vec()));
    assert!(error.message().contains("the connection broke"), "{error:?}");
    fails_to_connect(&mut client, &resetting(Vec::new()));
    // Where nothing but the end of the connection says that the body is whole.
    let until_end = [&b"HTTP/1.0 200 OK\r\n\r\n"[..], patients(1..=40_000).as_bytes()].concat();
    let error = fails_to_connect(&mut client, &resetting(until_end));
    assert!(error.message().contains("reset"), "{error:?}");
}

#[test]
fn a_status_that_is_not_200_is_told_in_the_detail() {
    let (_database, mut client) = allowed();
    for (line, code) in [
        ("403 Forbidden", "403"),
        ("404 Not Found", "404"),
        ("401 Unauthorized", "401"),
        ("500 Internal Server Error", "500"),
        ("503 Come back later", "503"),
        ("204 No Content", "204"),
        ("206 Partial Content", "206"),
        ("304 Not Modified", "304"),
        ("599 ", "599"),
    ] {
        let server = Server::answering(status(line, ""));
        let error = fails_to_connect(&mut client, &server.url("/data"));
        assert!(error.detail().is_some_and(|detail| detail.contains(code)), "{error:?}");
    }
}

#[test]
fn a_server_that_is_not_there_or_goes_silent_is_an_error_in_time() {
    let (_database, mut client) = allowed();
    let port = Port::take();
    fails_to_connect(&mut client, &format!("http://127.0.0.1:{}/data", port.number()));
    run(&mut client, "SET fhir_bulk.idle_timeout = '300ms'");
    let silent = Server::new(|_, stream| hold(stream));
    fails_to_connect(&mut client, &silent.url("/data"));
    let stalls = Server::new(|_, stream| {
        let answer = ok(patients(1..=LINES));
        stream.write_all(&answer[..answer.len() / 2]).unwrap();
        hold(stream);
    });
    fails_to_connect(&mut client, &stalls.url("/data"));
}

#[test]
fn an_empty_body_is_an_empty_load() {
    let (_database, mut client) = allowed();
    for answer in [ok(""), chunked(b"", 1, true), ok(gzip(b"")), ok("\n\n\r\n")] {
        let server = Server::answering(answer);
        assert_eq!(load(&mut client, &server.url("/"), "'Patient'"), r#"{"total": 0}"#);
    }
}

#[test]
fn signatures_in_query_strings_never_show() {
    let (_database, mut client) = allowed();
    run(&mut client, "SET fhir_bulk.idle_timeout = '300ms'; SET fhir_bulk.connect_timeout = '300ms'");
    let refusing = Server::answering(status("403 Forbidden", ""));
    let cut = Server::answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{".to_vec());
    let silent = Server::new(|_, stream| hold(stream));
    let bad = Server::answering(ok("bad\n"));
    let garbage = Server::answering(b"garbage".to_vec());
    let redirecting = Server::answering(status("302 Found", "Location: http://127.0.0.2/?sig=SECRET\r\n"));
    let looping = Server::answering(status("302 Found", "Location: /again?sig=SECRET\r\n"));
    let elsewhere = Server::answering(status("302 Found", "Location: ftp://h/?sig=SECRET\r\n"));
    let nowhere = Server::answering(status("302 Found", "Location: http://h:99999/?sig=SECRET\r\n"));
    let mut urls: Vec<_> = [refusing, cut, silent, bad, garbage, redirecting, looping, elsewhere, nowhere]
        .iter()
        .map(|server| server.url("/data?sig=SECRET"))
        .collect();
    for url in [
        "http://127.0.0.2/data?sig=SECRET",
        "http://127.0.0.1:1/data?sig=SECRET",
        "http://127.0.0.1:99999/data?sig=SECRET",
        "http://user:SECRET@127.0.0.1/data",
        "http://no-such-host.invalid/data?sig=SECRET",
        "http://?sig=SECRET",
        "http://127.0.0.1:1/data#SECRET",
        "https:/127.0.0.1/data?sig=SECRET",
        "gopher://127.0.0.1/data?sig=SECRET",
        "s3://bucket/key?sig=SECRET",
    ] {
        urls.push(url.to_owned());
    }
    for url in urls {
        let error = load_fails(&mut client, &url, "'Patient'");
        assert!(!format!("{error:?}").contains("SECRET"), "{url}: {error:?}");
    }
    let bad = Server::answering(ok("bad\n"));
    load(&mut client, &bad.url("/data?sig=SECRET"), "'Patient', options => '{\"on_error\": \"skip\"}'");
    let reject = rows(&mut client, "SELECT r.* FROM bulk_load_reject r");
    assert!(reject.len() == 1 && reject[0].contains(&bad.url("/data")) && !reject[0].contains("SECRET"), "{reject:?}");
    // The server gets it, though.
    assert_eq!(bad.seen()[0].path, "/data?sig=SECRET");
}
