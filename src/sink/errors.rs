//! What is wrong with places for exports, whatever kind they are of.

use fhir_bulk_pg::error::Error;
use pgrx::PgSqlErrorCode;

/// What a location can be.
pub const KNOWN: &str = "It is file:///folder/on/the/server or s3://bucket/prefix.";

/// The error for a file that was removed (58P01). Who has its URL learns no path of the server by it.
pub fn gone(job: &str, name: &str) -> Error {
    let message = format!("the exported file \"{job}/{name}\" is not there any more");
    Error::new(PgSqlErrorCode::ERRCODE_UNDEFINED_FILE, message)
        .hint("Files are kept for fhir_bulk.export_retention, and until bulk_export_cancel().")
}
