//! What a load does with ids that the table has.

use super::batch::Batch;
use super::statements::Statements;
use fhir_bulk_pg::error::{Error, Result};
use pgrx::PgSqlErrorCode;

/// What becomes of a row whose id comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It is replaced.
    Replace {
        /// The replaced version goes to the history table.
        keep_history: bool,
        /// If it is live and has the same resource, it stays as it is.
        skip_unchanged: bool,
    },
    /// It is an error.
    Refuse,
}

impl Default for Known {
    fn default() -> Known {
        Known::Replace { keep_history: false, skip_unchanged: false }
    }
}

impl Known {
    /// Whether replaced versions are kept.
    pub fn keeps_history(self) -> bool {
        matches!(self, Known::Replace { keep_history: true, .. })
    }

    /// Whether rows with the same resource stay as they are.
    pub fn skips_unchanged(self) -> bool {
        matches!(self, Known::Replace { skip_unchanged: true, .. })
    }

    /// The rows of a batch that statements write, with different ids, and how many are left out because the table has
    /// them as they are.
    ///
    /// # Errors
    /// 23505 for an id that is known, or comes twice, if that is an error.
    pub(super) fn rows(self, batch: &Batch, statements: &Statements) -> Result<(Vec<usize>, u64)> {
        let rows = batch.last_of_each_id(batch.all());
        match self {
            Known::Replace { skip_unchanged: false, .. } => Ok((rows, 0)),
            Known::Replace { skip_unchanged: true, .. } => Ok(statements.without_unchanged(batch, rows)),
            Known::Refuse => {
                check_repeated(batch, &rows)?;
                match statements.known(batch, &rows).into_iter().min() {
                    None => Ok((rows, 0)),
                    Some(id) => Err(taken(batch, &id)),
                }
            }
        }
    }
}

/// Inserts rows, all of which must be new.
///
/// # Errors
/// 23505 if another session has inserted one of them meanwhile, or policies hide a row with one of the ids.
pub(super) fn insert_all(batch: &Batch, rows: &[usize], statements: &Statements) -> Result<()> {
    if statements.insert_others(batch, rows) == rows.len() as u64 {
        return Ok(());
    }
    let message = format!("there is a {} with one of the ids already", batch.resource_type());
    Err(Error::new(PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION, message)
        .detail("Another session has just stored it, row level security hides it from the current role, or a trigger keeps it out."))
}

/// # Errors
/// 23505 if more than one row of a batch has an id, of which these are the last.
pub(super) fn check_repeated(batch: &Batch, rows: &[usize]) -> Result<()> {
    match batch.repeated_id() {
        Some(id) if rows.len() < batch.len() => Err(taken(batch, id)),
        _ => Ok(()),
    }
}

/// The error for an id that the table has, or another line before.
pub(super) fn taken(batch: &Batch, id: &str) -> Error {
    let message = format!("there is a {} with id \"{id}\" already", batch.resource_type());
    Error::new(PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION, message)
        .detail("An id may come only once, and must be new, because onConflict is \"error\".")
        .hint("Without onConflict, a known resource is replaced.")
}
