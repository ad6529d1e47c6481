//! Answers of servers, from a real socket: whatever one sends, reading it ends, with a document of its bytes or an error.

use fhir_bulk_transfer::{Authorities, Client, Document, Limits, Policy};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

/// The longest document.
const MOST: u64 = 1 << 16;
/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(5);

/// A server on the loopback address, which sends the same bytes to whoever asks.
struct Server {
    address: SocketAddr,
    answer: Arc<Mutex<Vec<u8>>>,
}

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let answer = Arc::<Mutex<Vec<u8>>>::default();
    let sent = answer.clone();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            // Whoever asks may go away at any time.
            let Ok(mut client) = client else { continue };
            let (mut request, mut buffer) = (Vec::new(), [0; 1024]);
            while !request.ends_with(b"\r\n\r\n") {
                match client.read(&mut buffer) {
                    Ok(count @ 1..) => request.extend_from_slice(&buffer[..count]),
                    _ => break,
                }
            }
            let answer = sent.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let _ = client.write_all(&answer).and_then(|()| client.shutdown(Shutdown::Write));
            // Closed by the other side first: else bytes that it has not read are lost.
            let _ = client.read(&mut buffer);
        }
    });
    Server { address, answer }
});

/// Checks what a server sends: all of it, from the status line on.
pub fn check(data: &[u8]) {
    let Server { address, answer } = &*SERVER;
    *answer.lock().unwrap_or_else(PoisonError::into_inner) = data.to_vec();
    let limits = Limits { connect: PATIENCE, idle: PATIENCE, redirects: 2, retries: 0 };
    let policy = Policy::parse(&format!("http://{address}")).expect("an address");
    let client = Client::new(policy, limits, Authorities::default());
    match Document::fetch(&format!("http://{address}/"), client, MOST, PATIENCE * 2) {
        Ok(document) => {
            assert!(document.bytes.len() as u64 <= MOST && document.bytes.len() <= data.len());
            // Empty lines before it are passed over, as HTTP has it for requests.
            assert!(data.trim_ascii_start().starts_with(b"HTTP/1."), "a document without a status line");
            // A body comes whole, or not at all.
            let is_part = |part: &[u8]| part.is_empty() || data.windows(part.len()).any(|window| window == part);
            let is_chunked = data.to_ascii_lowercase().windows(17).any(|window| window == b"transfer-encoding");
            assert!(is_chunked || is_part(&document.bytes), "other bytes than the server's");
        }
        Err(error) => assert!(!error.to_string().contains("no whole answer"), "reading it does not end"),
    }
}
