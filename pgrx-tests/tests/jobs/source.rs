//! Sources that stop where a test wants it.

use fhir_bulk_tests::http::{Server, ok};
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// A server that sends a part of its body, and the rest when it is told to.
pub struct Stalling {
    server: Server,
    go_on: Arc<AtomicBool>,
}

impl Stalling {
    /// Sends the head of an answer, and later a blank line.
    pub fn silent() -> Stalling {
        Stalling::new("\n", 0.0)
    }

    /// Sends `share` (0 to 1) of the body at first.
    pub fn new(body: impl AsRef<[u8]>, share: f64) -> Stalling {
        let (answer, length) = (ok(&body), body.as_ref().len());
        let first = answer.len() - length + (length as f64 * share) as usize;
        let go_on = Arc::new(AtomicBool::new(false));
        let told = go_on.clone();
        let server = Server::new(move |_, stream| {
            if stream.write_all(&answer[..first]).is_err() {
                return;
            }
            while !told.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(5));
            }
            let _ = stream.write_all(&answer[first..]);
        });
        Stalling { server, go_on }
    }

    pub fn url(&self) -> String {
        self.server.url("/source")
    }

    pub fn go_on(&self) {
        self.go_on.store(true, Ordering::Relaxed);
    }

    /// How often it was asked.
    pub fn requests(&self) -> usize {
        self.server.seen().len()
    }
}
