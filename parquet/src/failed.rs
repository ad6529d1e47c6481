//! The error.

use parquet::errors::ParquetError;
use std::fmt;

/// A file could not be written.
#[derive(Debug)]
pub struct Failed(pub(crate) String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

impl From<ParquetError> for Failed {
    fn from(error: ParquetError) -> Failed {
        Failed(error.to_string())
    }
}
