//! Stores the lines that a load rejects, each with the reason, so that their sender can correct them.

use crate::store::{Reject, add_rejects};
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::session;
use pgrx::PgSqlErrorCode;

/// How many bytes of a rejected line are stored.
const LINE_BYTES: usize = 64 << 10;
/// How many rejected lines are buffered before they are written.
const HELD: usize = 100;

/// The rejected lines of one load.
pub struct Rejects {
    source: String,
    max_errors: u64,
    count: u64,
    held: Vec<Reject>,
}

impl Rejects {
    pub fn new(source: &str, max_errors: u64) -> Rejects {
        Rejects { source: source.to_owned(), max_errors, count: 0, held: Vec::new() }
    }

    /// Adds a rejected line.
    ///
    /// # Errors
    /// 22023 when there are more than `max_errors`, with the error of this one as DETAIL.
    pub fn take(&mut self, error: Error, line_number: u64, byte_offset: u64, line: &[u8]) -> Result<()> {
        self.count += 1;
        if self.count > self.max_errors {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("{} has more than {} lines that cannot be loaded", self.source, self.max_errors),
            )
            .detail(format!("The last error: {}.", error.message()))
            .hint("Correct the source, or raise max_errors."));
        }
        if !self.has_room() {
            session::check_for_interrupts();
            self.write();
        }
        self.held.push(Reject {
            line_number,
            byte_offset,
            sqlstate: error.sqlstate(),
            error: error.message().to_owned(),
            line: line[..line.len().min(LINE_BYTES)].to_vec(),
        });
        Ok(())
    }

    /// Whether the next line is buffered, and nothing is written.
    pub fn has_room(&self) -> bool {
        self.held.len() < HELD
    }

    /// Writes the buffered lines. Returns how many lines were rejected.
    pub fn finish(mut self) -> u64 {
        self.write();
        self.count
    }

    fn write(&mut self) {
        if !self.held.is_empty() {
            add_rejects(&self.source, &self.held.drain(..).collect::<Vec<_>>());
        }
    }
}
