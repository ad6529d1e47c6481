//! Transactions of a process of ours, which has no client that begins and ends them; and the end of a client's.

use super::session;
use pgrx::callbacks::{PgSubXactCallbackEvent, PgXactCallbackEvent, register_subxact_callback, register_xact_callback};
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
    run_in(None, work)
}

/// As [`run`], with one snapshot from its beginning to its end (`REPEATABLE READ`).
///
/// # Errors
/// As [`run`].
pub fn run_frozen<T, E: From<CaughtError>>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    run_in(Some(pg_sys::XACT_REPEATABLE_READ as i32), work)
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
    // SAFETY: outside of a transaction; the snapshot is for what runs without one of its own, such as TOAST. The level is
    // set before the first snapshot, as SET TRANSACTION has it.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        if let Some(level) = isolation {
            pg_sys::XactIsoLevel = level;
        }
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
    }
}

fn commit() {
    // SAFETY: the snapshot is the one pushed above. Statistics are sent as a client's backend does between statements.
    unsafe {
        pg_sys::PopActiveSnapshot();
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

/// How a subtransaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubtransactionEnd {
    /// What it did is its parent's now.
    Committed {
        /// The subtransaction.
        id: u32,
        /// Its parent.
        parent: u32,
    },
    /// What it did is undone.
    Aborted {
        /// The subtransaction.
        id: u32,
    },
}

/// The current (sub)transaction.
pub fn subtransaction() -> u32 {
    // SAFETY: inside a transaction.
    unsafe { pg_sys::GetCurrentSubTransactionId() }
}

/// Has `work` told of the end of each subtransaction of the current transaction. It must not fail.
pub fn at_subtransaction_end(work: fn(SubtransactionEnd)) {
    register_subxact_callback(PgSubXactCallbackEvent::CommitSub, move |id, parent| {
        work(SubtransactionEnd::Committed { id, parent });
    });
    register_subxact_callback(PgSubXactCallbackEvent::AbortSub, move |id, _| work(SubtransactionEnd::Aborted { id }));
}
