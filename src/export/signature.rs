//! Signed URLs of exported files: how long they are valid, and the errors of those that are not.

use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_transfer::{SignedFile, Signer, Unsigned};
use pgrx::PgSqlErrorCode;

/// How long a URL is valid.
pub const VALID_SECONDS: i64 = 3600;
/// How long a URL of a table is valid: SQL on FHIR wants a day, counted from the end of the export.
pub const TABLE_VALID_SECONDS: i64 = 24 * 3600;

/// The file that a URL names. The base of the URL does not matter.
///
/// # Errors
/// 42501 for a URL that was not signed here or that has expired.
pub fn verify<'a>(signer: &Signer, url: &'a str, now: i64) -> Result<SignedFile<'a>> {
    let denied = |message| Error::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, message);
    signer.verify(url, now).map_err(|why| match why {
        Unsigned::Foreign => denied("the URL is not signed by this database"),
        Unsigned::Expired => {
            denied("the URL has expired").hint("bulk_export_status() returns a new one, which is valid for an hour.")
        }
    })
}
