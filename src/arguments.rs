//! What the SQL functions ask of their arguments alike.

use crate::error::{Error, Result};
use pgrx::PgSqlErrorCode;

/// An argument that may have a default but may not be NULL.
///
/// # Errors
/// 22004 with its name.
pub fn required<T>(argument: Option<T>, name: &str) -> Result<T> {
    argument.ok_or_else(|| {
        Error::new(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, format!("argument {name} must not be NULL"))
    })
}
