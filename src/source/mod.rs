//! Where the bytes of a load come from, by the scheme of its URL.

mod file;

use crate::error::{Error, Result};
use std::io::Read;

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
    let known = "A source is a file on the server: file:///path/to/Patient.ndjson.gz";
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(Error::invalid_argument(format!("source \"{url}\" is not a URL")).hint(known));
    };
    match scheme {
        "file" => file::open(url, rest),
        _ => Err(Error::invalid_argument(format!("source \"{url}\" has the unknown scheme \"{scheme}\"")).hint(known)),
    }
}
