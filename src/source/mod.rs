//! Opens the source of a load: by the scheme of a URL a file, an HTTP URL or an S3 object; for COPY the client or a program too.

pub mod client;
pub mod file;
mod http;
mod opened;
pub mod program;
mod s3;

pub use opened::{Arriving, Bytes, Piece, Progress, Source};

use fhir_bulk_pg::client::Broken;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_transfer::TransferError;
use opened::shown;
use std::io;

/// Opens a source for the current role. Failures that may be temporary (no connection, a broken one, status 429 and 5xx) are
/// retried up to `retries` times, with a longer wait each time. A retry reads on where the body broke.
///
/// # Errors
/// 22023 if it is not a URL with a known scheme; the errors of the scheme.
pub fn open(url: &str, retries: u32) -> Result<Source> {
    match scheme(url)? {
        Scheme::File(rest) => file::open(url, rest),
        Scheme::Http => http::open(url, retries),
        Scheme::S3 => s3::open(url, retries),
    }
}

/// Checks, without opening it, that a URL has a known scheme.
///
/// # Errors
/// 22023 if not.
pub fn check(url: &str) -> Result<()> {
    scheme(url).map(|_| ())
}

enum Scheme<'a> {
    /// The text after `file://`.
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

/// The error of a download or of the client inside an I/O error; `None` for an error of the file system or the gzip decoder.
pub fn failure(name: &str, error: &io::Error) -> Option<Error> {
    let inner = error.get_ref()?;
    let of_transfer = inner.downcast_ref::<TransferError>().map(|why| http::failure(name, why));
    of_transfer.or_else(|| inner.downcast_ref::<Broken>().map(fhir_bulk_pg::client::failure))
}
