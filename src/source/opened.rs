//! A source that is open, of whatever kind.

use fhir_bulk_feed as feed;
use fhir_bulk_pg::error::Result;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};

/// An open source.
pub struct Source {
    /// As messages name it.
    pub name: String,
    /// Its bytes as they are stored, compressed or not.
    pub bytes: Bytes,
    /// How far they have been read.
    pub progress: Progress,
}

/// The bytes of a source.
pub enum Bytes {
    /// To be read by any thread. Errors of reading: see [`super::failure`].
    Anywhere(feed::Source),
    /// To be read by the backend's own thread.
    Here(Box<dyn Arriving>),
}

/// Bytes that come when they come, and that only the backend's own thread can read.
pub trait Arriving {
    /// The next block, an empty one at their end; `None` while nothing has come. Does not wait.
    ///
    /// # Errors
    /// Why there are no more.
    fn next(&mut self) -> Result<Option<Vec<u8>>>;

    /// Readable when there may be a next block.
    fn fd(&self) -> BorrowedFd<'_>;
}

/// How far a source has been read; clones tell the same, on any thread.
#[derive(Clone, Default)]
pub struct Progress(Arc<Counts>);

#[derive(Default)]
struct Counts {
    read: AtomicU64,
    total: OnceLock<u64>,
}

impl Progress {
    /// Bytes read so far, as they are stored: compressed ones of a compressed source.
    pub fn read_bytes(&self) -> u64 {
        self.0.read.load(Relaxed)
    }

    /// Bytes in all; known once the first are read, of files and of servers that tell.
    pub fn total_bytes(&self) -> Option<u64> {
        self.0.total.get().copied()
    }

    pub(super) fn advance(&self, count: usize) {
        self.0.read.fetch_add(count as u64, Relaxed);
    }

    pub(super) fn set_total(&self, bytes: u64) {
        // What no bigint holds is no length. Told once; what a second answer says is the same, or the source has changed.
        if i64::try_from(bytes).is_ok() {
            let _ = self.0.total.set(bytes);
        }
    }
}

/// Bytes that are counted as they are read.
pub struct Counted<R> {
    /// The bytes.
    pub bytes: R,
    /// Is told how many there were.
    pub progress: Progress,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.bytes.read(buffer)?;
        self.progress.advance(count);
        Ok(count)
    }
}

/// A URL as messages may show it: what follows the path may be a signature, and what precedes the host a password.
pub fn shown(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let host_end = rest.find(['/', '\\']).unwrap_or(rest.len());
    let host_start = rest[..host_end].rfind('@').map_or(0, |at| at + 1);
    format!("{scheme}://{}", &rest[host_start..])
}
