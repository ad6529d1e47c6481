//! Reads a source on the backend's own thread, for what is not NDJSON of resources.

use super::opened::{Bytes, Source};
use fhir_bulk_codec::gzip;
use fhir_bulk_feed as feed;
use fhir_bulk_pg::{session, worker};
use std::io::{self, Read};
use std::time::{Duration, Instant};

/// How long it waits between two looks for interrupts.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How much is read at once.
const READ_BYTES: usize = 64 << 10;

/// The bytes of a source that any thread can read, decompressed if they are gzip. A cancel takes effect while they are read.
///
/// # Errors
/// The errors of the source, which [`super::failure`] explains; those of reading what only this thread can read.
pub fn read(source: Source) -> io::Result<Box<dyn Read>> {
    read_until(source, None)
}

/// All bytes of a source, up to `most` and one more, which says that there are more; within a time.
///
/// # Errors
/// As for [`read`], and when the time is over.
pub fn read_whole(source: Source, most: u64, time: Duration) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    read_until(source, Some(Instant::now() + time))?.take(most + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn read_until(source: Source, end: Option<Instant>) -> io::Result<Box<dyn Read>> {
    let reader: Box<dyn Read> = match source.bytes {
        Bytes::Anywhere(feed::Source::Reader(reader)) => reader,
        Bytes::Anywhere(feed::Source::Blocks(blocks)) => Box::new(Waiting { blocks, block: Vec::new(), at: 0, end }),
        Bytes::Anywhere(feed::Source::Given) | Bytes::Here(_) => return Err(io::ErrorKind::Unsupported.into()),
    };
    Ok(Box::new(gzip::Reader::new(reader, READ_BYTES)?))
}

/// Reads blocks that arrive over time.
struct Waiting {
    blocks: Box<dyn feed::Blocks + Send>,
    block: Vec<u8>,
    /// How many bytes of `block` have been read.
    at: usize,
    /// After this there is no more waiting.
    end: Option<Instant>,
}

impl Read for Waiting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.block.len() {
            session::check_for_interrupts();
            worker::end_without_server();
            if self.end.is_some_and(|end| Instant::now() >= end) {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "it takes too long"));
            }
            let Some(block) = self.blocks.next(LOOK_EVERY) else { continue };
            self.blocks.reuse(std::mem::replace(&mut self.block, block?));
            self.at = 0;
            if self.block.is_empty() {
                return Ok(0);
            }
        }
        let count = buffer.len().min(self.block.len() - self.at);
        buffer[..count].copy_from_slice(&self.block[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}
