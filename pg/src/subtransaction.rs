//! Runs work that may fail on a unique key without aborting the transaction.

use crate::whole;
use pgrx::pg_sys::panic::{CaughtError, ErrorReportWithLevel};
use pgrx::{PgSqlErrorCode, PgTryBuilder, pg_sys};
use std::panic::AssertUnwindSafe;

/// Runs `work` in a subtransaction. If it raises 23505, undoes all of it and returns `None`. Other errors are raised again.
///
/// What `work` opened and PostgreSQL tracks by resource owner (buffers, relations) must be closed when it returns.
pub fn unless_taken<T>(work: impl FnOnce() -> T) -> Option<T> {
    // SAFETY: the calls that PL/pgSQL makes around a block with EXCEPTION. Both exits restore context and owner.
    unsafe {
        let (context, owner) = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::CurrentMemoryContext = context;
        let back = move || {
            pg_sys::CurrentMemoryContext = context;
            pg_sys::CurrentResourceOwner = owner;
        };
        let roll_back = move |error: CaughtError| -> Option<T> {
            pg_sys::CurrentMemoryContext = context;
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
            back();
            let is_taken =
                |report: &ErrorReportWithLevel| report.sql_error_code() == PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION;
            match &error {
                CaughtError::PostgresError(report) if is_taken(report) => None,
                // The same, from a call through `whole`; our own errors are raised again.
                CaughtError::ErrorReport(report) if is_taken(report) && whole::forget() => None,
                _ => error.rethrow(),
            }
        };
        let done = PgTryBuilder::new(AssertUnwindSafe(|| Some(work())))
            .catch_others(roll_back)
            .catch_rust_panic(roll_back)
            .execute();
        if done.is_some() {
            pg_sys::ReleaseCurrentSubTransaction();
            back();
        }
        done
    }
}
