//! Why a source ends early.

use fhir_bulk_codec::ndjson::{Change, ReadError};

/// Why a source ends early.
#[derive(Debug)]
pub enum Failure {
    /// It can't be read on, in this line.
    Source {
        /// Why.
        error: ReadError,
        /// Counted from 1.
        line: u64,
    },
    /// It is not what it was when it was read to where to start.
    Changed(Change),
    /// The thread is gone, by a defect.
    Lost,
}
