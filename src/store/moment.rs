//! Whether a transaction's only snapshot shows a table as it is.

use fhir_bulk_pg::cursor::Cursor;
use fhir_bulk_pg::error::{Error, Result};
use pgrx::PgSqlErrorCode;

/// Fails with 40001 if a query reads a table as empty because it was truncated or rewritten after the transaction's
/// snapshot.
pub(super) fn check_moment(cursor: &Cursor) -> Result<()> {
    cursor.missed_table().map_or(Ok(()), |table| Err(written_anew(&table)))
}

/// The error for such a table.
pub fn written_anew(table: &str) -> Error {
    let message = format!("table {table} was truncated or rewritten after the export began");
    Error::new(PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE, message)
        .hint("Export again when no session truncates or rewrites it.")
}
