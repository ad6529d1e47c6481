//! Downloads a body on a thread of its own.

use crate::body::Body;
use crate::error::TransferError;
use crate::origin::{Event, Origin};
use crate::request::Client;
use fhir_bulk_thread::{Hand, Thread};
use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

/// How many used pieces are kept for reuse.
const SPARE_PIECES: usize = 8;
/// How many events wait to be taken: their taker may be away for some milliseconds without the network having to wait
/// for it.
const EVENTS: usize = 32;

/// A running download. Drop ends its connection and its thread.
pub struct Download {
    thread: Thread<Event>,
    client: Client,
    /// Returns the memory of used pieces to the thread.
    spare: SyncSender<Vec<u8>>,
}

impl Download {
    /// Starts to read, with its own client.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(origin: Origin, client: Client) -> io::Result<Download> {
        let of_thread = client.clone();
        let (spare, pieces) = sync_channel(SPARE_PIECES);
        let thread = Thread::start("fhir_bulk read", EVENTS, move |hand: Hand<Event>| {
            let mut body = Body::new(origin, pieces);
            // Runs until the body is complete or the download is dropped.
            let read = of_thread.again(|time| hand.wait(time), || body.attempt(&of_thread, &hand));
            hand.over(read.map_or_else(Event::Failed, |_| Event::End));
        })?;
        Ok(Download { thread, client, spare })
    }

    /// Waits for the next event; `None` if it takes longer than `time`.
    pub fn wait(&self, time: Duration) -> Option<Event> {
        let gone = || Event::Failed(TransferError::Network("the download's thread ended unexpectedly".into()));
        self.thread.wait(time).unwrap_or_else(|_| Some(gone()))
    }
}

impl Download {
    /// Takes the memory of a piece for reuse.
    pub fn reuse(&self, piece: Vec<u8>) {
        // Not needed: there are enough, or the thread has ended.
        let _ = self.spare.try_send(piece);
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.client.shut_down();
    }
}
