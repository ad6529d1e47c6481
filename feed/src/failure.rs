//! The failures that end a source early.

use fhir_bulk_codec::ndjson::{Change, ReadError};

/// A failure that ends a source early.
#[derive(Debug)]
pub enum Failure {
    /// The source could not be read in this line.
    Source {
        /// The error.
        error: ReadError,
        /// Counted from 1.
        line: u64,
    },
    /// The source has changed before the position to start from.
    Changed(Change),
    /// The thread has ended because of a bug.
    Lost,
}
