//! An open source: its name, its bytes, and how many of them have been read.

use fhir_bulk_feed as feed;
use fhir_bulk_pg::error::Result;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};

/// An open source.
pub struct Source {
    /// The name of the source in messages.
    pub name: String,
    /// Its bytes as they are stored, compressed or not.
    pub bytes: Bytes,
    /// How many of them have been read.
    pub progress: Progress,
}

/// The bytes of a source.
pub enum Bytes {
    /// Any thread can read them. [`super::failure`] explains its errors.
    Anywhere(feed::Source),
    /// Only the backend's thread can read them.
    Here(Box<dyn Arriving>),
}

/// Bytes that arrive over time, and that only the backend's thread can read, at least at first.
pub trait Arriving {
    /// The next piece, without waiting; `None` means that none has come yet.
    ///
    /// # Errors
    /// The source failed.
    fn next(&mut self) -> Result<Option<Piece>>;

    /// Becomes readable when there may be a next block.
    fn fd(&self) -> BorrowedFd<'_>;
}

/// A piece of a source.
pub enum Piece {
    /// A block. An empty one is the end.
    Block(Vec<u8>),
    /// All the rest, which any thread can read.
    Rest(Box<dyn feed::Blocks + Send>),
}

/// How many bytes of a source have been read. Clones share the count, on any thread.
#[derive(Clone, Default)]
pub struct Progress(Arc<Counts>);

#[derive(Default)]
struct Counts {
    read: AtomicU64,
    total: OnceLock<u64>,
}

impl Progress {
    /// Bytes read so far; compressed bytes if the source is compressed.
    pub fn read_bytes(&self) -> u64 {
        self.0.read.load(Relaxed)
    }

    /// The size of the source in bytes. It is known once reading has begun, if the file or the server tells it.
    pub fn total_bytes(&self) -> Option<u64> {
        self.0.total.get().copied()
    }

    pub(super) fn advance(&self, count: usize) {
        self.0.read.fetch_add(count as u64, Relaxed);
    }

    pub(super) fn set_total(&self, bytes: u64) {
        // Ignores a length that does not fit in bigint. A second response has the same length, or the source has changed.
        if i64::try_from(bytes).is_ok() {
            let _ = self.0.total.set(bytes);
        }
    }
}

/// A reader that counts the bytes it reads.
pub struct Counted<R> {
    /// The bytes.
    pub bytes: R,
    /// The count.
    pub progress: Progress,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.bytes.read(buffer)?;
        self.progress.advance(count);
        Ok(count)
    }
}

/// A URL as messages may show it: without the query, which may hold a signature, and without user and password.
pub fn shown(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let host_end = rest.find(['/', '\\']).unwrap_or(rest.len());
    let host_start = rest[..host_end].rfind('@').map_or(0, |at| at + 1);
    format!("{scheme}://{}", &rest[host_start..])
}
