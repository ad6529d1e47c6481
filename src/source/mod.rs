//! Where the bytes of a load come from, by the scheme of its URL.

mod file;
mod http;

use crate::error::{Error, Result};
use crate::pg::session;
use fhir_bulk_fetch::FetchError;
use std::io::{self, Read};

/// An open source.
pub struct Source {
    /// As messages name it.
    pub name: String,
    /// Its bytes as they are stored, compressed or not. Reading lets cancels and timeouts take effect.
    pub bytes: Box<dyn Read>,
}

/// Opens a source for the current role.
///
/// # Errors
/// 22023 for what is no URL of a known scheme; those of the scheme.
pub fn open(url: &str) -> Result<Source> {
    let known = "Sources are file:///path/on/the/server, https://host/path and http://host/path.";
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(Error::invalid_argument(format!("source \"{}\" is not a URL", shown(url))).hint(known));
    };
    match scheme {
        "file" => file::open(url, rest),
        "http" | "https" => http::open(url),
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

/// Bytes that a little may come to much of (compressed ones): looks for a cancel before each block of them.
pub struct Interruptible<R>(pub R);

impl<R: Read> Read for Interruptible<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        session::check_for_interrupts();
        self.0.read(buffer)
    }
}

/// A source's own failure behind an error of reading it; `None` for one of the file system or of a decoder.
pub fn failure(name: &str, error: &io::Error) -> Option<Error> {
    let inner = error.get_ref()?.downcast_ref::<FetchError>()?;
    Some(http::failure(name, inner))
}
