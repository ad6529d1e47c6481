//! Where the bytes of a load come from, by the scheme of its URL.

mod file;
mod http;
mod s3;
pub mod staged;

use fhir_bulk_feed as feed;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_transfer::TransferError;
use std::io::{self, Read};
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
    /// To be read by any thread. Errors of reading: see [`failure`].
    Anywhere(feed::Source),
    /// To be read by the backend's own thread, block by block, the last of which is empty.
    Here(Box<dyn FnMut() -> io::Result<Vec<u8>>>),
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

    fn advance(&self, count: usize) {
        self.0.read.fetch_add(count as u64, Relaxed);
    }

    fn set_total(&self, bytes: u64) {
        // What no bigint holds is no length. Told once; what a second answer says is the same, or the source has changed.
        if i64::try_from(bytes).is_ok() {
            let _ = self.0.total.set(bytes);
        }
    }
}

/// Opens a source for the current role. What may pass (no connection, a broken one, status 429 and 5xx) is tried again
/// up to `retries` times, with ever longer waits between; a body that broke goes on where it broke.
///
/// # Errors
/// 22023 for what is no URL of a known scheme; those of the scheme.
pub fn open(url: &str, retries: u32) -> Result<Source> {
    match scheme(url)? {
        Scheme::File(rest) => file::open(url, rest),
        Scheme::Http => http::open(url, retries),
        Scheme::S3 => s3::open(url, retries),
        Scheme::Staged => staged::open(),
    }
}

/// Whether a URL is one that any session can open, of a known scheme, before anything is opened.
///
/// # Errors
/// 22023 when it is not.
pub fn check(url: &str) -> Result<()> {
    match scheme(url)? {
        Scheme::Staged => {
            Err(Error::invalid_argument("staged bytes can only be loaded by the transaction that has them"))
        }
        Scheme::File(_) | Scheme::Http | Scheme::S3 => Ok(()),
    }
}

enum Scheme<'a> {
    /// With what follows `file://`.
    File(&'a str),
    Http,
    S3,
    /// Only of the current transaction.
    Staged,
}

fn scheme(url: &str) -> Result<Scheme<'_>> {
    if url == staged::URL {
        return Ok(Scheme::Staged);
    }
    let known = "Sources are file:///path/on/the/server, https://host/path, http://host/path and s3://bucket/key.";
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(Error::invalid_argument(format!("source \"{}\" is not a URL", shown(url))).hint(known));
    };
    match scheme {
        "file" => Ok(Scheme::File(rest)),
        "http" | "https" => Ok(Scheme::Http),
        "s3" => Ok(Scheme::S3),
        _ => Err(Error::invalid_argument(format!("source \"{}\" has the unknown scheme \"{scheme}\"", shown(url)))
            .hint(known)),
    }
}

/// A URL as messages may show it: what follows the path may be a signature, and what precedes the host a password.
fn shown(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let host_end = rest.find(['/', '\\']).unwrap_or(rest.len());
    let host_start = rest[..host_end].rfind('@').map_or(0, |at| at + 1);
    format!("{scheme}://{}", &rest[host_start..])
}

/// Bytes that are counted as they are read.
struct Counted<R> {
    bytes: R,
    progress: Progress,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.bytes.read(buffer)?;
        self.progress.advance(count);
        Ok(count)
    }
}

/// A source's own failure behind an error of reading it; `None` for one of the file system or of a decoder.
pub fn failure(name: &str, error: &io::Error) -> Option<Error> {
    let inner = error.get_ref()?.downcast_ref::<TransferError>()?;
    Some(http::failure(name, inner))
}
