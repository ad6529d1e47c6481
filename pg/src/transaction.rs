//! Runs transactions in a background worker, which has no client to begin and end them. Registers work for the end of a
//! transaction or subtransaction.

use super::session;
use pgrx::callbacks::{PgXactCallbackEvent, register_xact_callback};
use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgTryBuilder, pg_sys};
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe};

/// Runs `work` in a transaction of its own, and commits if it succeeds. An error, also one of PostgreSQL, rolls it back.
///
/// Afterwards the current role is the same as before.
///
/// # Errors
/// The errors of `work`, and those that PostgreSQL raises in it or at the commit.
pub fn run<T, E: From<CaughtError>>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    run_in(None, || {
        push_snapshot();
        let result = work();
        pop_snapshot_of(&result);
        result
    })
}

/// As [`run`], with one snapshot for all of `work` (`REPEATABLE READ`). `lock` runs before that snapshot is taken, and sees
/// what is committed when `lock` begins. It must not run statements that take a snapshot of their own.
///
/// # Errors
/// As for [`run`], and the errors of `lock`.
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

/// Runs `work` under a snapshot of what is committed now, without taking the transaction's snapshot.
pub fn in_catalog_snapshot<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: inside a transaction; the snapshot is copied. After an error the transaction's end drops it.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetCatalogSnapshot(pg_sys::InvalidOid)) }
    let result = work();
    // SAFETY: pushed above.
    unsafe { pg_sys::PopActiveSnapshot() }
    result
}

/// Pushes a snapshot for code that takes none of its own, such as TOAST.
fn push_snapshot() {
    // SAFETY: inside a transaction.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) }
}

/// Pops the snapshot after success. After a failure the transaction's end drops it.
fn pop_snapshot_of<T, E>(result: &Result<T, E>) {
    if result.is_ok() {
        // SAFETY: push_snapshot() has pushed it.
        unsafe { pg_sys::PopActiveSnapshot() }
    }
}

/// Runs `work` outside of any transaction. It may wait without holding locks or a snapshot.
///
/// # Errors
/// The errors of `work`, and those that PostgreSQL raises in it, such as an interrupt.
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
    // SAFETY: outside of a transaction. The level is set before the first snapshot, as SET TRANSACTION requires.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        if let Some(level) = isolation {
            pg_sys::XactIsoLevel = level;
        }
    }
}

fn commit() {
    // SAFETY: inside a transaction. A client's backend reports its statistics between statements, too.
    unsafe {
        pg_sys::CommitTransactionCommand();
        pg_sys::pgstat_report_stat(false);
    }
}

fn abort() {
    // SAFETY: does nothing if the transaction has already ended. Out of subtransactions, too: the rollback of one may have failed,
    // as Citus's does when one of its servers has ended.
    unsafe {
        pg_sys::AbortOutOfAnyTransaction();
        pg_sys::pgstat_report_stat(false);
    }
}

/// Runs `work` after the current transaction has committed, and not at all if it aborts. `work` must not fail: PostgreSQL
/// can no longer undo the commit.
pub fn at_commit(work: impl FnOnce() + UnwindSafe + RefUnwindSafe + 'static) {
    register_xact_callback(PgXactCallbackEvent::Commit, work);
}
