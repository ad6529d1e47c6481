//! Runs work that may fail in an expected way without aborting the transaction.

use crate::whole;
use pgrx::pg_sys::panic::{CaughtError, ErrorReportWithLevel};
use pgrx::{PgSqlErrorCode, PgTryBuilder, pg_sys};
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;

/// As [`unless`], if a key is taken (23505).
pub fn unless_taken<T>(work: impl FnOnce() -> T) -> Option<T> {
    unless(&[PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION], work)
}

/// Runs `work` in a subtransaction. If it raises one of these errors, undoes all of it and returns `None`. Other errors are
/// raised again.
///
/// What `work` opened and PostgreSQL tracks by resource owner (buffers, relations) must be closed when it returns.
pub fn unless<T>(expected: &[PgSqlErrorCode], work: impl FnOnce() -> T) -> Option<T> {
    run(expected, || Ok::<T, Infallible>(work())).ok()
}

/// Runs `work` in a subtransaction, and undoes all of it if it fails. The errors that PostgreSQL raises in it are raised again,
/// when it is undone.
///
/// What `work` opened and PostgreSQL tracks by resource owner (buffers, relations) must be closed when it returns.
///
/// # Errors
/// Those of `work`.
pub fn attempt<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    run(&[], work).map_err(|error| error.expect("no raised error is expected"))
}

/// The error is that of `work`, or `None` for an expected one that was raised.
fn run<T, E>(expected: &[PgSqlErrorCode], work: impl FnOnce() -> Result<T, E>) -> Result<T, Option<E>> {
    // SAFETY: the calls that PL/pgSQL makes around a block with EXCEPTION. Both exits restore context and owner.
    unsafe {
        let (context, owner) = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::CurrentMemoryContext = context;
        let back = move || {
            pg_sys::CurrentMemoryContext = context;
            pg_sys::CurrentResourceOwner = owner;
        };
        let undo = move || {
            pg_sys::CurrentMemoryContext = context;
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
            back();
        };
        let roll_back = move |error: CaughtError| {
            undo();
            let is_expected = |report: &ErrorReportWithLevel| expected.contains(&report.sql_error_code());
            match &error {
                CaughtError::PostgresError(report) if is_expected(report) => Err(None),
                // The same, from a call through `whole`; our own errors are raised again.
                CaughtError::ErrorReport(report) if is_expected(report) && whole::forget() => Err(None),
                _ => error.rethrow(),
            }
        };
        let done = PgTryBuilder::new(AssertUnwindSafe(|| work().map_err(Some)))
            .catch_others(roll_back)
            .catch_rust_panic(roll_back)
            .execute();
        match &done {
            Ok(_) => {
                pg_sys::ReleaseCurrentSubTransaction();
                back();
            }
            Err(Some(_)) => undo(),
            // It was undone when the error was caught.
            Err(None) => {}
        }
        done
    }
}
