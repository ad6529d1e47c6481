//! Opens the source of a load: by the scheme of a URL a file, an HTTP URL or an S3 object; for COPY the client or a program too.

pub mod client;
pub mod file;
mod found;
pub mod here;
mod http;
mod listing;
mod opened;
mod pattern;
pub mod program;
mod reach;
mod s3;
mod scheme;
mod walk;

pub use found::Found;
pub use http::{Terms, open_under, open_without_redirects};
pub use listing::Listing;
pub use opened::{Arriving, Bytes, Piece, Progress, Source, shown};
pub use reach::Reach;
pub use s3::service_of;

use fhir_bulk_pg::client::Broken;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_transfer::TransferError;
use scheme::{Scheme, scheme};
use std::io;

/// Opens a source for the current role. Failures that may be temporary (no connection, a broken one, status 429 and 5xx) are
/// retried, with a longer wait each time. A retry reads on where the body broke.
///
/// # Errors
/// 22023 if it is not a URL with a known scheme; the errors of the scheme.
pub fn open(url: &str, reach: &Reach) -> Result<Source> {
    match scheme(url)? {
        Scheme::File(rest) => file::open(url, rest),
        Scheme::Http => http::open(url, reach.retries),
        Scheme::S3 => s3::open(url, reach),
    }
}

/// As [`open`], for a source of a listing: a file must be in the folder that was listed, a URL as [`Listing::within`] gives
/// it.
///
/// # Errors
/// As for [`open`], and 42501 if it is not there.
pub fn open_listed(url: &str, within: Option<&str>, reach: &Reach) -> Result<Source> {
    match within {
        Some(folder) => file::open_within(url, folder),
        None => open(url, reach),
    }
}

/// The error of a download or of the client inside an I/O error; `None` for an error of the file system or the gzip decoder.
pub fn failure(name: &str, error: &io::Error) -> Option<Error> {
    let inner = error.get_ref()?;
    let of_transfer = inner.downcast_ref::<TransferError>().map(|why| http::failure(name, why));
    of_transfer.or_else(|| inner.downcast_ref::<Broken>().map(fhir_bulk_pg::client::failure))
}
