//! Errors of export locations of any kind.

use fhir_bulk_pg::error::Error;
use pgrx::PgSqlErrorCode;

/// The HINT that lists the kinds of locations.
pub const KNOWN: &str = "It is file:///folder/on/the/server or s3://bucket/prefix.";

/// The error for a file that was removed (58P01). It shows no path of the server to the holder of a URL.
pub fn gone(job: &str, name: &str) -> Error {
    let message = format!("the exported file \"{job}/{name}\" no longer exists");
    Error::new(PgSqlErrorCode::ERRCODE_UNDEFINED_FILE, message)
        .hint("Files are kept for fhir_bulk.export_retention, and until bulk_export_cancel().")
}
