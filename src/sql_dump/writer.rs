//! What every format of `dump_sql` does.

use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::query::QueryRow;
use fhir_bulk_pg::value::Column;
use pgrx::PgSqlErrorCode;

/// A buffer that a huge value made larger than this is given back.
pub const KEEP_BYTES: usize = 4 << 20;

/// How a format writes rows. What ends with a newline in the body is appended without it, and answered with `true`.
pub trait Writer {
    /// What goes before the first row.
    fn start(&mut self, _out: &mut Vec<u8>) -> bool {
        false
    }

    /// A row.
    ///
    /// # Errors
    /// 22004 and 22023 for a value that the format cannot have.
    fn row(&mut self, row: &QueryRow<'_>, out: &mut Vec<u8>) -> Result<bool>;

    /// What goes behind the last row.
    fn end(&mut self, _out: &mut Vec<u8>) -> bool {
        false
    }
}

/// Sees that all columns have different names.
///
/// # Errors
/// 42701 with a name that two columns have.
pub fn different(columns: &[&str]) -> Result<()> {
    Column::repeated(columns.iter().copied()).map_or(Ok(()), |name| {
        Err(Error::new(
            PgSqlErrorCode::ERRCODE_DUPLICATE_COLUMN,
            format!("column \"{name}\" appears more than once in the query"),
        )
        .hint("Give each column a name of its own with AS."))
    })
}
