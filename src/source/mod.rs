//! Where the bytes of a load come from, by the scheme of its URL.

pub mod client;
pub mod file;
mod http;
mod opened;
pub mod program;
mod s3;

pub use opened::{Arriving, Bytes, Progress, Source};

use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_transfer::TransferError;
use opened::shown;
use std::io;

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
    }
}

/// Whether a URL is of a known scheme, before anything is opened.
///
/// # Errors
/// 22023 when it is not.
pub fn check(url: &str) -> Result<()> {
    scheme(url).map(|_| ())
}

enum Scheme<'a> {
    /// With what follows `file://`.
    File(&'a str),
    Http,
    S3,
}

fn scheme(url: &str) -> Result<Scheme<'_>> {
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

/// A source's own failure behind an error of reading it; `None` for one of the file system or of a decoder.
pub fn failure(name: &str, error: &io::Error) -> Option<Error> {
    let inner = error.get_ref()?.downcast_ref::<TransferError>()?;
    Some(http::failure(name, inner))
}
