//! Rows that come while they are written, of a load of one type: how a writer asks for them.

use fhir_bulk_pg::error::Result;

/// Gives the next row to a writer; false if there is none, or none that the writer may take. It runs no statement.
pub type Next<'n> = dyn FnMut(&mut dyn Taker) -> Result<bool> + 'n;

/// A writer that asks for a row.
pub trait Taker {
    /// Whether it may take this row, too.
    fn has_room(&self, id: &str, resource: &[u8]) -> bool;

    /// Takes a row: its id, its resource as jsonb bytes without their length header, and its creation time.
    ///
    /// # Errors
    /// 53200 if there is no memory for it. Errors of writing are raised.
    fn take(&mut self, id: &str, resource: &[u8], created_at: Option<i64>) -> Result<()>;
}
