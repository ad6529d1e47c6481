//! The trait that each format of `dump_sql` implements.

use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::query::QueryRow;
use fhir_bulk_pg::value::Column;
use pgrx::PgSqlErrorCode;

/// A buffer that a huge value made larger than this is shrunk to this size.
pub const KEEP_BYTES: usize = 4 << 20;

/// Writes rows in one format. After the end of a body it begins another one. A method that completes a line appends it without
/// its newline, and returns true. So does one that completes a part of a binary format.
pub trait Writer {
    /// Writes what comes before the first row.
    fn start(&mut self, _out: &mut Vec<u8>) -> bool {
        false
    }

    /// Writes a row.
    ///
    /// # Errors
    /// 22004 and 22023 for a value that the format cannot hold.
    fn row(&mut self, row: &QueryRow<'_>, out: &mut Vec<u8>) -> Result<bool>;

    /// Writes what comes after the last row.
    ///
    /// # Errors
    /// 53200 if there is no memory for it.
    fn end(&mut self, _out: &mut Vec<u8>) -> Result<bool> {
        Ok(false)
    }
}

/// Checks that all columns have different names.
///
/// # Errors
/// 42701 for a name that two columns have.
pub fn different(columns: &[&str]) -> Result<()> {
    Column::repeated(columns.iter().copied()).map_or(Ok(()), |name| {
        Err(Error::new(
            PgSqlErrorCode::ERRCODE_DUPLICATE_COLUMN,
            format!("column \"{name}\" appears more than once in the query"),
        )
        .hint("Give each column a name of its own with AS."))
    })
}
