//! Transactions of a process of ours, which has no client that begins and ends them; and the end of a client's.

use super::session;
use pgrx::callbacks::{PgXactCallbackEvent, register_xact_callback};
use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgTryBuilder, pg_sys};
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe};

/// Runs `work` in a transaction of its own, committed when it succeeds. An error, PostgreSQL's too, undoes all of it.
///
/// The current role is that of before again afterwards.
///
/// # Errors
/// Those of `work`, and what PostgreSQL raised in it or at the commit.
pub fn run<T, E: From<CaughtError>>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    run_in(None, || {
        push_snapshot();
        let result = work();
        pop_snapshot_of(&result);
        result
    })
}

/// As [`run`], with one snapshot for all of `work` (`REPEATABLE READ`). It is taken after `lock`, which sees what is
/// committed when it begins and must not run statements that take a snapshot of their own.
///
/// # Errors
/// As [`run`], and those of `lock`.
pub fn run_frozen<L, T, E: From<CaughtError>>(
    lock: impl FnOnce() -> Result<L, E>,
    work: impl FnOnce(L) -> Result<T, E>,
) -> Result<T, E> {
    run_in(Some(pg_sys::XACT_REPEATABLE_READ as i32), || {
        let locked = lock()?;
        push_snapshot();
        let result = work(locked);
        pop_snapshot_of(&result);
        result
    })
}

/// Runs `work` under what is committed now, without taking the transaction's snapshot.
pub fn in_catalog_snapshot<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: inside a transaction; it is copied. After an error the transaction's end drops it.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetCatalogSnapshot(pg_sys::InvalidOid)) }
    let result = work();
    // SAFETY: pushed above.
    unsafe { pg_sys::PopActiveSnapshot() }
    result
}

/// For what runs without a snapshot of its own, such as TOAST.
fn push_snapshot() {
    // SAFETY: inside a transaction.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) }
}

/// After a failure the transaction's end drops it.
fn pop_snapshot_of<T, E>(result: &Result<T, E>) {
    if result.is_ok() {
        // SAFETY: the one of push_snapshot().
        unsafe { pg_sys::PopActiveSnapshot() }
    }
}

/// Runs `work`, which may wait, outside of any transaction, so that it holds nothing up.
///
/// # Errors
/// Those of `work`, and what PostgreSQL raised in it: an interrupt, say.
pub fn between<T, E: From<CaughtError>>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    PgTryBuilder::new(AssertUnwindSafe(work))
        .catch_others(|error| Err(E::from(error)))
        .catch_rust_panic(|error| Err(E::from(error)))
        .execute()
}

fn run_in<T, E: From<CaughtError>>(isolation: Option<i32>, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let role = session::Identity::current();
    let failed = move |error: CaughtError| -> Result<T, E> {
        abort();
        Err(E::from(error))
    };
    let result = PgTryBuilder::new(AssertUnwindSafe(|| {
        begin(isolation);
        let result = work();
        if result.is_ok() {
            commit();
        } else {
            abort();
        }
        result
    }))
    .catch_others(failed)
    .catch_rust_panic(failed)
    .execute();
    role.restore();
    result
}

fn begin(isolation: Option<i32>) {
    // SAFETY: outside of a transaction. The level is set before the first snapshot, as SET TRANSACTION has it.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        if let Some(level) = isolation {
            pg_sys::XactIsoLevel = level;
        }
    }
}

fn commit() {
    // SAFETY: inside a transaction. Statistics are sent as a client's backend does between statements.
    unsafe {
        pg_sys::CommitTransactionCommand();
        pg_sys::pgstat_report_stat(false);
    }
}

fn abort() {
    // SAFETY: does nothing when the transaction has ended already.
    unsafe {
        pg_sys::AbortCurrentTransaction();
        pg_sys::pgstat_report_stat(false);
    }
}

/// Has `work` done when the current transaction has committed; not at all when it does not. It must not fail: PostgreSQL
/// can't undo anything by then.
pub fn at_commit(work: impl FnOnce() + UnwindSafe + RefUnwindSafe + 'static) {
    register_xact_callback(PgXactCallbackEvent::Commit, work);
}
