//! An HTTP/1.1 server for tests: each connection gets a thread and one response, and is closed.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A server that sends part of an answer and then resets the connection; its URL.
pub fn resetting(part: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // What is left unread when a socket is closed makes the kernel send a reset (RFC 2525, 2.17).
            let _ = stream.read(&mut [0; 10]);
            let _ = stream.write_all(&part);
        }
    });
    format!("http://127.0.0.1:{port}/data")
}

/// The head of a request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// Path and query.
    pub path: String,
    /// All lines up to the empty one.
    pub head: String,
}

/// The server; it goes on until the process ends.
pub struct Server {
    address: String,
    port: u16,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Starts on 127.0.0.1, and gives all requests the same response.
    pub fn answering(answer: impl Into<Vec<u8>>) -> Server {
        let answer = answer.into();
        Server::new(move |_, stream| {
            let _ = stream.write_all(&answer);
        })
    }

    /// Starts on 127.0.0.1, and gives the responses that a function returns.
    pub fn new(answer: impl Fn(&Request, &mut TcpStream) + Send + Sync + 'static) -> Server {
        Server::at("127.0.0.1:0", answer)
    }

    /// As [`Server::new`], on another address.
    pub fn at(address: &str, answer: impl Fn(&Request, &mut TcpStream) + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind(address).unwrap();
        let bound = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answer, requests) = (Arc::new(answer), seen.clone());
        // It ends with the process, as all threads do.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(mut stream), answer, requests) = (stream, answer.clone(), requests.clone()) else { continue };
                thread::spawn(move || {
                    let Some(request) = read_head(&mut stream) else { return };
                    requests.lock().unwrap().push(request.clone());
                    answer(&request, &mut stream);
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        Server { address: bound.ip().to_string(), port: bound.port(), seen }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `path` starts with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}:{}{path}", self.address, self.port)
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

fn read_head(stream: &mut TcpStream) -> Option<Request> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let path = head.split(' ').nth(1)?.to_owned();
    Some(Request { path, head })
}

/// An answer with its Content-Length.
pub fn ok(body: impl AsRef<[u8]>) -> Vec<u8> {
    with_headers("", body)
}

/// As [`ok`], with more headers, each ended by `\r\n`.
pub fn with_headers(headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// An answer in chunks of `size` bytes; without the last one when `whole` is false.
pub fn chunked(body: &[u8], size: usize, whole: bool) -> Vec<u8> {
    let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in body.chunks(size) {
        answer.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        answer.extend_from_slice(chunk);
        answer.extend_from_slice(b"\r\n");
    }
    if whole {
        answer.extend_from_slice(b"0\r\n\r\n");
    }
    answer
}

/// An answer of another status, with an empty body.
pub fn status(line: &str, headers: &str) -> Vec<u8> {
    format!("HTTP/1.1 {line}\r\n{headers}Content-Length: 0\r\n\r\n").into_bytes()
}

/// What a server answered.
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body as it came.
    pub body: Vec<u8>,
}

/// Requests an http URL in the simplest way.
pub fn get(url: &str) -> Answer {
    let (host, path) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).expect("http://host/path");
    let mut stream = TcpStream::connect(host).unwrap();
    write!(stream, "GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a whole head");
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    assert!(!head.contains("chunked"), "{head}");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    Answer { status, body: answer[end + 4..].to_vec() }
}

/// Holds a connection until its other end closes it.
pub fn hold(stream: &mut TcpStream) {
    let mut rest = [0; 1024];
    while matches!(stream.read(&mut rest), Ok(count) if count > 0) {}
}
