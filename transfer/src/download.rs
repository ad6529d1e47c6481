//! One download: a thread of its own that hands the body over.

use crate::body::Body;
use crate::error::TransferError;
use crate::origin::{Event, Origin};
use crate::request::Client;
use fhir_bulk_thread::{Hand, Thread};
use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

/// How many pieces are kept for what comes next.
const SPARE_PIECES: usize = 8;
/// How many events wait to be taken: their taker may be away for some milliseconds without the network having to wait
/// for it.
const EVENTS: usize = 32;

/// A body on its way. Dropped, it ends its connection and its thread.
pub struct Download {
    thread: Thread<Event>,
    client: Client,
    /// Takes the memory of pieces that are done with, for others to come.
    spare: SyncSender<Vec<u8>>,
}

impl Download {
    /// Starts to read, with a client of its own.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn start(origin: Origin, client: Client) -> io::Result<Download> {
        let of_thread = client.clone();
        let (spare, pieces) = sync_channel(SPARE_PIECES);
        let thread = Thread::start("fhir_bulk read", EVENTS, move |hand: Hand<Event>| {
            let mut body = Body::new(origin, pieces);
            // Until the body is whole or nobody wants it any more.
            let read = of_thread.again(|time| hand.wait(time), || body.attempt(&of_thread, &hand));
            hand.over(read.map_or_else(Event::Failed, |_| Event::End));
        })?;
        Ok(Download { thread, client, spare })
    }

    /// The next event, once it is there; `None` when it takes longer than so.
    pub fn wait(&self, time: Duration) -> Option<Event> {
        let gone = || Event::Failed(TransferError::Network("the download ended without a word".into()));
        self.thread.wait(time).unwrap_or_else(|_| Some(gone()))
    }
}

impl Download {
    /// Takes back the memory of a piece.
    pub fn reuse(&self, piece: Vec<u8>) {
        // There are enough, or nobody needs any more.
        let _ = self.spare.try_send(piece);
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.client.shut_down();
    }
}
