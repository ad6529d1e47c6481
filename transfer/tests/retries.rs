//! Downloads from a server that fails in all the ways that pass, and in those that do not.

use fhir_bulk_tests::http::{Request, Server, chunked, hold, ok, resetting, status, with_headers};
use fhir_bulk_tests::port::Port;
use fhir_bulk_transfer::{Authorities, Client, Download, Event, Limits, Origin, Policy, TransferError};
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

fn limits(retries: u32) -> Limits {
    Limits { connect: Duration::from_secs(10), idle: Duration::from_secs(10), redirects: 5, retries }
}

fn start(url: &str, limits: Limits) -> Download {
    Download::start(
        Origin::url(url).unwrap(),
        Client::new(Policy::parse("127.0.0.1").unwrap(), limits, Authorities::default()),
    )
    .unwrap()
}

/// The whole body and the length that was announced.
fn read(url: &str, retries: u32) -> Result<(Vec<u8>, Option<u64>), TransferError> {
    let download = start(url, limits(retries));
    let (mut body, mut length, since) = (Vec::new(), None, Instant::now());
    loop {
        match download.wait(Duration::ZERO) {
            Some(Event::Length(bytes)) => length = Some(bytes),
            Some(Event::Bytes(piece)) => body.extend_from_slice(&piece),
            Some(Event::End) => return Ok((body, length)),
            Some(Event::Failed(error)) => return Err(error),
            None => {
                assert!(since.elapsed() < PATIENCE, "no end after {} bytes", body.len());
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

/// Two MB in which no two places look alike.
fn body() -> Vec<u8> {
    (0..200_000).flat_map(|n: u32| format!("{n:09}\n").into_bytes()).collect()
}

/// A server that answers the n-th request, from 0, as told.
fn by_turn(answer: impl Fn(usize, &Request, &mut TcpStream) + Send + Sync + 'static) -> Server {
    let count = AtomicUsize::new(0);
    Server::new(move |request, stream| answer(count.fetch_add(1, Ordering::SeqCst), request, stream))
}

/// The first `part` bytes of an answer, as if the server had died then.
fn cut(answer: &[u8], part: usize) -> Vec<u8> {
    answer[..part].to_vec()
}

/// The value of a request's header.
fn header(request: &Request, name: &str) -> Option<String> {
    request.head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

/// The rest of `body` that a request asks for, as a good server answers.
fn rest(request: &Request, body: &[u8]) -> Vec<u8> {
    let range = header(request, "range").unwrap();
    let from: usize = range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{}/{}\r\nContent-Length: {}\r\n\r\n",
        body.len() - 1,
        body.len(),
        body.len() - from
    );
    [head.as_bytes(), &body[from..]].concat()
}

const DATES: &str = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nDate: Sun, 06 Nov 1994 08:49:38 GMT\r\n";

#[test]
fn a_body_that_breaks_goes_on_where_it_broke_by_a_range() {
    for (validator, expected) in [
        ("ETag: \"one\"\r\n", "\"one\""),
        ("ETag: \"one\"\r\nAccept-Ranges: bytes\r\n", "\"one\""),
        (DATES, "Sun, 06 Nov 1994 08:49:37 GMT"),
    ] {
        let whole = body();
        let first = with_headers(validator, &whole);
        let server = by_turn(move |turn, request, stream| {
            let answer = match turn {
                0 => cut(&first, 700_000),
                // Breaks once more, on the way of the rest.
                1 => cut(&rest(request, &body()), 500_000),
                _ => rest(request, &body()),
            };
            let _ = stream.write_all(&answer);
        });
        let (read, length) = read(&server.url("/"), 2).unwrap();
        assert!(read == whole, "{validator}: {} bytes", read.len());
        assert_eq!(length, Some(whole.len() as u64));
        let seen = server.seen();
        assert_eq!(seen.len(), 3, "{validator}");
        assert_eq!(header(&seen[0], "range"), None);
        for request in &seen[1..] {
            assert_eq!(header(request, "if-range").as_deref(), Some(expected));
        }
    }
}

#[test]
fn without_a_strong_validator_the_whole_is_read_again_and_compared() {
    let whole = body();
    for (name, first) in [
        ("none", ok(&whole)),
        ("weak", with_headers("ETag: W/\"one\"\r\n", &whole)),
        ("weak beside a date", with_headers(&format!("ETag: W/\"one\"\r\n{DATES}"), &whole)),
        ("changed in the same second", with_headers(&DATES.replace(":38", ":37"), &whole)),
        ("no ranges", with_headers("ETag: \"one\"\r\nAccept-Ranges: none\r\n", &whole)),
        ("no length", [&b"HTTP/1.0 200 OK\r\nETag: \"one\"\r\n\r\n"[..], &whole].concat()),
        ("chunked", chunked(&whole, 1000, true)),
    ] {
        // A body without a length ends where its connection does: there is nothing to see a break by.
        let breaks = name != "no length";
        let again = first.clone();
        let server = by_turn(move |turn, _, stream| {
            let answer = if turn < 2 && breaks { cut(&again, 300_000 * (turn + 1)) } else { again.clone() };
            let _ = stream.write_all(&answer);
        });
        let (read, _) = read(&server.url("/"), 2).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(read == whole, "{name}: {} bytes", read.len());
        let seen = server.seen();
        assert_eq!(seen.len(), if breaks { 3 } else { 1 }, "{name}");
        assert!(seen.iter().all(|request| header(request, "range").is_none()), "{name}");
    }
}

#[test]
fn a_server_that_ignores_or_garbles_the_range_is_read_from_the_start() {
    let whole = body();
    let length = whole.len();
    let wrong = [
        ("whole", with_headers("ETag: \"one\"\r\n", &whole), 2),
        ("other place", partial("bytes 5-14/2000000", &whole[5..15]), 3),
        ("other length", partial(&format!("bytes 700000-{length}/{}", length + 1), &whole[5..15]), 3),
        ("length unknown", partial(&format!("bytes 700000-{}/*", length - 1), &whole[5..15]), 3),
        ("no place", partial("", &whole[5..15]), 3),
        ("not satisfiable", status("416 Range Not Satisfiable", "Content-Range: bytes */5\r\n"), 3),
    ];
    for (name, second, requests) in wrong {
        let first = with_headers("ETag: \"one\"\r\n", &whole);
        let server = by_turn(move |turn, _, stream| {
            let answer = match turn {
                0 => cut(&first, 700_000),
                1 => second.clone(),
                _ => first.clone(),
            };
            let _ = stream.write_all(&answer);
        });
        let (read, _) = read(&server.url("/"), 3).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(read == whole, "{name}: {} bytes", read.len());
        assert_eq!(server.seen().len(), requests, "{name}");
    }
}

fn partial(range: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 206 Partial Content\r\nContent-Range: {range}\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[test]
fn a_source_that_changes_between_two_attempts_is_never_mixed() {
    let (whole, shorter) = (body(), body()[..600_000].to_vec());
    let mut other = body();
    other[100] = b'x';
    let longer = [&body()[..], b"more\n"].concat();
    for (name, validator, second) in [
        ("changed ETag", "ETag: \"one\"\r\n", with_headers("ETag: \"two\"\r\n", &other)),
        ("other bytes", "", ok(&other)),
        ("shorter", "", ok(&shorter)),
        ("longer", "", ok(&longer)),
        ("empty", "", ok("")),
    ] {
        let first = with_headers(validator, &whole);
        let server = by_turn(move |turn, _, stream| {
            let answer = if turn == 0 { cut(&first, 700_000) } else { second.clone() };
            let _ = stream.write_all(&answer);
        });
        assert_eq!(read(&server.url("/"), 5), Err(TransferError::Changed), "{name}");
        assert_eq!(server.seen().len(), 2, "{name}");
    }
}

#[test]
fn a_chunked_source_that_became_shorter_is_an_error_too() {
    let whole = body();
    let server = by_turn(move |turn, _, stream| {
        let answer =
            if turn == 0 { cut(&chunked(&whole, 1000, true), 700_000) } else { chunked(&whole[..100_000], 1000, true) };
        let _ = stream.write_all(&answer);
    });
    assert_eq!(read(&server.url("/"), 5), Err(TransferError::Changed));
}

#[test]
fn busy_and_broken_servers_are_asked_again_and_not_more_often_than_allowed() {
    for line in ["429 Too Many Requests", "500 Internal Server Error", "502 Bad Gateway", "503 Service Unavailable"] {
        let server = by_turn(move |turn, _, stream| {
            let answer = if turn < 2 { status(line, "Retry-After: 0\r\n") } else { ok("fine\n") };
            let _ = stream.write_all(&answer);
        });
        assert_eq!(read(&server.url("/"), 2).unwrap().0, b"fine\n", "{line}");
        let server = Server::answering(status(line, "Retry-After: 0\r\n"));
        let error = read(&server.url("/"), 2).unwrap_err();
        assert!(line.starts_with(&error.to_string().replace(':', "")), "{line}: {error}");
        assert_eq!(server.seen().len(), 3, "{line}");
        let server = Server::answering(status(line, ""));
        read(&server.url("/"), 0).unwrap_err();
        assert_eq!(server.seen().len(), 1, "{line}");
    }
}

#[test]
fn a_server_that_asks_for_patience_gets_it() {
    let server = by_turn(|turn, _, stream| {
        let answer = if turn == 0 { status("429 Too Many Requests", "Retry-After: 2\r\n") } else { ok("fine\n") };
        let _ = stream.write_all(&answer);
    });
    let start = Instant::now();
    assert_eq!(read(&server.url("/"), 1).unwrap().0, b"fine\n");
    assert!(start.elapsed() >= Duration::from_secs(2), "{:?}", start.elapsed());
}

#[test]
fn what_a_server_decided_is_asked_once() {
    for line in ["400 Bad Request", "401 Unauthorized", "403 Forbidden", "404 Not Found", "410 Gone", "204 No Content"]
    {
        let server = Server::answering(status(line, "Retry-After: 0\r\n"));
        let error = read(&server.url("/"), 5).unwrap_err();
        assert_eq!(error.to_string().replace(':', ""), line);
        assert_eq!(server.seen().len(), 1, "{line}");
    }
    let server = Server::answering(status("302 Found", "Location: http://127.0.0.2/\r\n"));
    assert!(matches!(read(&server.url("/"), 5), Err(TransferError::Refused(_))));
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn a_server_that_is_not_there_yet_is_found_when_it_is() {
    let port = Port::take();
    let address = format!("127.0.0.1:{}", port.number());
    let url = format!("http://{address}/");
    assert!(matches!(read(&url, 1), Err(TransferError::Network(_))));
    let later = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        Server::at(&address, |_, stream| {
            let _ = stream.write_all(&ok("fine\n"));
        })
    });
    assert_eq!(read(&url, 3).unwrap().0, b"fine\n");
    later.join().unwrap();
}

#[test]
fn a_reset_is_tried_again() {
    let whole = body();
    assert!(matches!(read(&resetting(ok(&whole)[..700_000].to_vec()), 0), Err(TransferError::Network(_))));
    let start = Instant::now();
    assert!(matches!(read(&resetting(ok(&whole)[..700_000].to_vec()), 1), Err(TransferError::Network(_))));
    assert!(start.elapsed() >= Duration::from_millis(500), "{:?}", start.elapsed());
}

#[test]
fn a_server_that_hangs_up_or_stalls_is_asked_again() {
    let server = by_turn(|turn, _, stream| match turn {
        0 => {}
        1 => hold(stream),
        _ => drop(stream.write_all(&ok("fine\n"))),
    });
    let download = start(&server.url("/"), Limits { idle: Duration::from_millis(200), ..limits(2) });
    let since = Instant::now();
    loop {
        match download.wait(Duration::ZERO) {
            Some(Event::Bytes(piece)) => assert_eq!(piece, b"fine\n"),
            Some(Event::End) => break,
            Some(Event::Failed(error)) => panic!("{error}"),
            Some(Event::Length(_)) | None => thread::sleep(Duration::from_millis(1)),
        }
        assert!(since.elapsed() < PATIENCE);
    }
}
