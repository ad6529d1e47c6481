//! Runs the HTTP proxy as a process, and has a client that shows the bytes of responses.

use std::collections::HashMap;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::wait_for;

/// How long a test waits for bytes that must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program, built now unless it is up to date; as a release when `release`.
pub fn program(release: bool) -> PathBuf {
    static BUILT: [OnceLock<PathBuf>; 2] = [const { OnceLock::new() }; 2];
    BUILT[usize::from(release)].get_or_init(|| build(release)).clone()
}

fn build(release: bool) -> PathBuf {
    let mut cargo = Command::new(option_env!("CARGO").unwrap_or("cargo"));
    cargo.args(["build", "--quiet", "-p", "fhir_bulk_proxy", "--message-format=json"]);
    if release {
        cargo.arg("--release");
    }
    // Remove cargo's variables for this test: with them some build scripts would run again.
    let of_this_package =
        |name: &str| ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|p| name.starts_with(p));
    for name in std::env::vars().map(|(name, _)| name).filter(|name| of_this_package(name)) {
        cargo.env_remove(name);
    }
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).stderr(Stdio::inherit()).output().expect("cargo");
    assert!(output.status.success(), "the proxy cannot be built");
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let built = messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).next_back();
    built.expect("cargo names the program it built")
}

/// A running proxy, which ends with the test.
pub struct Proxy {
    process: Mutex<Child>,
    address: String,
    log: Arc<Mutex<String>>,
}

impl Proxy {
    /// Starts it at a free port with these flags.
    pub fn start(flags: &[&str]) -> Proxy {
        Proxy::spawn(Command::new(program(false)).args(["--listen", "127.0.0.1:0"]).args(flags))
    }

    /// Starts it by a command, and waits until it listens.
    pub fn spawn(command: &mut Command) -> Proxy {
        let mut process = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the proxy starts");
        end_with_this_process(process.id());
        let stderr = BufReader::new(process.stderr.take().expect("piped"));
        let log = Arc::new(Mutex::new(String::new()));
        let lines = log.clone();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                *lines.lock().unwrap() += &(line + "\n");
            }
        });
        let mut address = None;
        wait_for("the proxy to listen", || {
            let log = log.lock().unwrap();
            address =
                log.lines().find_map(|line| Some(line.split_once("listening at ")?.1.split_once("://")?.1.to_owned()));
            assert!(address.is_some() || process.try_wait().unwrap().is_none(), "the proxy ended: {log}");
            address.is_some()
        });
        let address = address.unwrap_or_default().trim_end_matches(['"', '}']).to_owned();
        Proxy { process: Mutex::new(process), address, log }
    }

    /// `127.0.0.1:` and its port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its log.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.lock().unwrap().id()
    }

    /// Asks it to stop, like systemd.
    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Makes it reload its files, and waits for the result in its log.
    pub fn reload(&self) {
        let said = |log: &str| log.matches("reloaded").count() + log.matches("stay as they were").count();
        let before = said(&self.log());
        self.signal("-HUP");
        wait_for("the proxy to read its files anew", || said(&self.log()) > before);
    }

    fn signal(&self, signal: &str) {
        Command::new("kill").args([signal, &self.pid().to_string()]).status().expect("kill");
    }

    /// Whether it has ended with success.
    pub fn ended(&self) -> Option<bool> {
        self.process.lock().unwrap().try_wait().unwrap().map(|status| status.success())
    }

    /// Sends a request and reads the whole answer.
    pub fn send(&self, request: &Request) -> Response {
        self.open(request).read()
    }

    /// Sends a request; what comes back is read by the caller.
    pub fn open(&self, request: &Request) -> Exchange {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // An answer may come before the whole request was taken.
        let _ = stream.write_all(&request.bytes());
        Exchange { reader: BufReader::new(stream), has_body: !request.line.starts_with("HEAD ") }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut process = self.process.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = process.kill();
        let _ = process.wait();
        if thread::panicking() {
            eprintln!("--- the proxy's log\n{}---", self.log());
        }
    }
}

/// Kills a process when this one has ended, however it did.
fn end_with_this_process(pid: u32) {
    let script =
        r#"while kill -0 "$1" 2>/dev/null && kill -0 "$2" 2>/dev/null; do sleep 0.5; done; kill "$2" 2>/dev/null"#;
    let (mine, its) = (std::process::id().to_string(), pid.to_string());
    let mut watcher = Command::new("setsid");
    watcher.args(["--fork", "/bin/sh", "-c", script, "sh", &mine, &its]).current_dir("/");
    watcher.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().expect("setsid from util-linux");
}

/// A request, built up.
#[derive(Clone)]
pub struct Request {
    line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    /// `method` and `path`, over HTTP/1.1, with the connection closed after the answer.
    pub fn new(method: &str, path: &str) -> Request {
        let headers = vec![("Host".into(), "fhir.example.org".into()), ("Connection".into(), "close".into())];
        Request { line: format!("{method} {path} HTTP/1.1"), headers, body: Vec::new() }
    }

    /// A GET request.
    pub fn get(path: &str) -> Request {
        Request::new("GET", path)
    }

    /// A POST request with a body of a type.
    pub fn post(path: &str, content_type: &str, body: impl AsRef<[u8]>) -> Request {
        let request = Request::new("POST", path).header("Content-Type", content_type);
        let length = body.as_ref().len().to_string();
        Request { body: body.as_ref().to_vec(), ..request.header("Content-Length", &length) }
    }

    /// A POST request with a JSON body.
    pub fn json(path: &str, body: &str) -> Request {
        Request::post(path, "application/json", body)
    }

    /// Speaks another version of HTTP.
    pub fn version(mut self, version: &str) -> Request {
        self.line = self.line.replace("HTTP/1.1", version);
        self
    }

    /// Adds a header, or replaces it.
    pub fn header(mut self, name: &str, value: &str) -> Request {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Adds a header beside one of its name.
    pub fn and_header(mut self, name: &str, value: &str) -> Request {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Takes a header away.
    pub fn without(mut self, name: &str) -> Request {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self
    }

    /// Basic credentials.
    pub fn basic(self, role: &str, password: &str) -> Request {
        self.header("Authorization", &format!("Basic {}", base64(format!("{role}:{password}").as_bytes(), true)))
    }

    /// As it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut text = self.line.clone() + "\r\n";
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        [text.as_bytes(), b"\r\n", &self.body].concat()
    }
}

/// Base64, with `+`, `/` and padding where `standard`, else as URLs and tokens have it.
pub fn base64(bytes: &[u8], standard: bool) -> String {
    let last = if standard { *b"+/" } else { *b"-_" };
    let digit = |value: u32| match value {
        0..26 => b'A' + value as u8,
        26..52 => b'a' + (value - 26) as u8,
        52..62 => b'0' + (value - 52) as u8,
        _ => last[(value - 62) as usize],
    };
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().enumerate().fold(0, |bits, (at, byte)| bits | u32::from(*byte) << (16 - 8 * at));
        for at in 0..4 {
            if at <= group.len() {
                text.push(char::from(digit(bits >> (18 - 6 * at) & 63)));
            } else if standard {
                text.push('=');
            }
        }
    }
    text
}

/// The bytes of base64 as standard has it.
pub fn base64_decoded(text: &str) -> Vec<u8> {
    let value = |digit: u8| match digit {
        b'A'..=b'Z' => u32::from(digit - b'A'),
        b'a'..=b'z' => u32::from(digit - b'a') + 26,
        b'0'..=b'9' => u32::from(digit - b'0') + 52,
        b'+' => 62,
        b'/' => 63,
        _ => panic!("{:?} is no digit of base64", char::from(digit)),
    };
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'=').collect();
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    for group in digits.chunks(4) {
        let bits = group.iter().enumerate().fold(0, |bits, (at, digit)| bits | value(*digit) << (18 - 6 * at));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    bytes
}

/// A request that has been sent.
pub struct Exchange {
    reader: BufReader<TcpStream>,
    has_body: bool,
}

impl Exchange {
    /// Ends this side of the connection, as `nc -N` does when it has sent all it has.
    pub fn end_own_side(&self) {
        self.reader.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// The head of the answer.
    pub fn head(&mut self) -> Response {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert!(self.reader.read_line(&mut line).unwrap() > 0, "no answer; so far: {lines:?}");
            if line == "\r\n" {
                break;
            }
            lines.push(line.trim_end().to_owned());
        }
        let status = lines[0].split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = HashMap::<String, Vec<String>>::new();
        for line in &lines[1..] {
            let (name, value) = line.split_once(": ").unwrap();
            headers.entry(name.to_lowercase()).or_default().push(value.to_owned());
        }
        Response { status, headers, body: Vec::new(), chunks: Vec::new(), is_whole: false }
    }

    /// Head and body, to the end or to the break; interim responses are skipped.
    pub fn read(mut self) -> Response {
        let mut response = self.head();
        while (100..200).contains(&response.status) {
            response = self.head();
        }
        if response.header("transfer-encoding") == Some("chunked") {
            while let Ok(Some(chunk)) = self.chunk() {
                response.chunks.push(chunk.len());
                if chunk.is_empty() {
                    response.is_whole = true;
                    break;
                }
                response.body.extend(chunk);
            }
        } else {
            let length = response.header("content-length").map(|length| length.parse::<u64>().unwrap());
            // To HEAD, and to a condition that fails, an answer has none.
            let length = if self.has_body && response.status != 304 { length } else { Some(0) };
            let _ = (&mut self.reader).take(length.unwrap_or(u64::MAX)).read_to_end(&mut response.body);
            response.is_whole = length.is_none_or(|length| length == response.body.len() as u64);
        }
        response
    }

    /// The next chunk; the last one is empty; None where the connection ends without it.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let length = usize::from_str_radix(line.trim_end(), 16).map_err(io::Error::other)?;
        let mut bytes = vec![0; length + 2];
        self.reader.read_exact(&mut bytes)?;
        assert_eq!(bytes.split_off(length), b"\r\n");
        Ok(Some(bytes))
    }

    /// The connection. Only the bytes that the methods above returned have been read from it.
    pub fn reader(&mut self) -> &mut BufReader<TcpStream> {
        &mut self.reader
    }
}

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    headers: HashMap<String, Vec<String>>,
    /// Its body, without the framing of its chunks.
    pub body: Vec<u8>,
    /// How long each chunk was.
    pub chunks: Vec<usize>,
    /// Whether the body came to its proper end.
    pub is_whole: bool,
}

impl Response {
    /// A header's first value, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.first().map(String::as_str)
    }

    /// All values of a header.
    pub fn headers(&self, name: &str) -> &[String] {
        self.headers.get(name).map_or(&[], Vec::as_slice)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::{base64, base64_decoded};

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(base64(bytes.as_bytes(), true), text);
            assert_eq!(base64_decoded(text), bytes.as_bytes());
            assert_eq!(base64(bytes.as_bytes(), false), text.trim_end_matches('='));
        }
        assert_eq!(base64(&[0xFB, 0xFF], true), "+/8=");
        assert_eq!(base64(&[0xFB, 0xFF], false), "-_8");
    }
}
