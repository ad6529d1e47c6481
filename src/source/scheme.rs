//! The schemes of sources.

use super::opened::shown;
use fhir_bulk_pg::error::{Error, Result};

/// The scheme of a source.
pub enum Scheme<'a> {
    /// The text after `file://`.
    File(&'a str),
    Http,
    S3,
}

/// The scheme of a URL.
///
/// # Errors
/// 22023 if it has none that is known.
pub fn scheme(url: &str) -> Result<Scheme<'_>> {
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
