//! Where the bytes of a load come from, by the scheme of its URL.

mod file;
mod http;

use crate::error::{Error, Result};
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
        return Err(Error::invalid_argument(format!("source \"{url}\" is not a URL")).hint(known));
    };
    match scheme {
        "file" => file::open(url, rest),
        "http" | "https" => http::open(url),
        _ => Err(Error::invalid_argument(format!("source \"{url}\" has the unknown scheme \"{scheme}\"")).hint(known)),
    }
}

/// A source's own failure behind an error of reading it; `None` for one of the file system or of a decoder.
pub fn failure(name: &str, error: &io::Error) -> Option<Error> {
    let inner = error.get_ref()?.downcast_ref::<FetchError>()?;
    Some(http::failure(name, inner))
}
