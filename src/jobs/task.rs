//! A task in the hands of its worker.

use super::queue::{self, Queue};
use super::rows::{Committed, Reached, TaskRow};
use super::settings_of_caller;
use crate::extension;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::lock::Key;
use fhir_bulk_pg::progress::{self, Copying, Work};
use fhir_bulk_pg::session::{self, Identity};
use fhir_bulk_pg::{transaction, worker};
use pgrx::{PgSqlErrorCode, pg_sys};
use serde_json::Value;
use std::cell::Cell;

/// What there is to do, and the ways to do it with its owner's rights.
pub struct Task {
    row: TaskRow,
    /// The extension whose queue it is in: one that is dropped and made again has another, with the same numbers.
    extension: pg_sys::Oid,
    /// The worker's slot and the task itself.
    locks: [Key; 2],
    over: Cell<bool>,
}

impl Task {
    pub(super) fn new(row: TaskRow, extension: pg_sys::Oid, slot: Key, lock: Key) -> Task {
        Task { row, extension, locks: [slot, lock], over: Cell::new(false) }
    }

    /// What the worker took over.
    pub fn row(&self) -> &TaskRow {
        &self.row
    }

    pub(super) fn key(&self) -> (i64, i32) {
        (self.row.job, self.row.number)
    }

    /// Whose rights it has.
    pub(super) fn role(&self) -> pg_sys::Oid {
        self.row.role.into()
    }

    /// As messages and `pg_stat_activity` name it.
    pub fn title(&self) -> String {
        format!("fhir_bulk {} \"{}\", {} of {}", self.row.kind, self.row.id, self.row.number, self.row.tasks)
    }

    /// Runs `work` in a transaction of its own, with the owner's rights as they are now, confined to them, and under
    /// the settings of the session that asked.
    ///
    /// # Errors
    /// 42704 when the owner is gone; those of `work`, and what PostgreSQL raised in it or at the commit.
    pub fn transaction<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        worker::reload_if_asked();
        self.keeping_locks(|| transaction::run(|| self.as_owner(work)))
    }

    /// As [`Task::transaction`], with one snapshot for all of `work`, taken after `lock`.
    ///
    /// # Errors
    /// As [`Task::transaction`], and those of `lock`.
    pub fn frozen_transaction<L, T>(
        &self,
        lock: impl FnOnce() -> Result<L>,
        work: impl FnOnce(L) -> Result<T>,
    ) -> Result<T> {
        worker::reload_if_asked();
        self.keeping_locks(|| transaction::run_frozen(|| self.as_owner(lock), |locked| self.as_owner(|| work(locked))))
    }

    fn as_owner<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if !session::role_exists(self.role()) {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                format!("the role that asked for the bulk {} \"{}\" no longer exists", self.row.kind, self.row.id),
            ));
        }
        settings_of_caller::apply(&self.row.settings);
        Identity::confined_to(self.role()).restore();
        let result = work();
        progress::end();
        result
    }

    /// A transaction after whose failure the task is still this worker's, or over for it.
    fn keeping_locks<T>(&self, transaction: impl FnOnce() -> Result<T>) -> Result<T> {
        let result = transaction();
        if result.is_err() && !self.locks.iter().all(|lock| lock.keep()) {
            // Another worker saw the task without a lock and goes on with it.
            self.over.set(true);
        }
        result
    }

    /// Shows how far the current transaction is, before anything of it is committed: for the status, and in
    /// `pg_stat_progress_copy`. A worker whose server is gone ends here.
    pub fn show(&self, copying: Copying, resources: u64) {
        worker::end_without_server();
        let (job, number) = self.key();
        progress::show(copying, resources, Work::Task(job, number));
    }

    /// Notes in the current transaction what it adds, and with `at_end` that it is the last.
    ///
    /// # Errors
    /// 57014 when the task was cancelled: the transaction must not commit then.
    pub fn advance(&self, reached: &Reached, at_end: bool) -> Result<()> {
        self.unless_cancelled(self.queue().is_some_and(|queue| queue.advance(self.key(), reached, at_end)))
    }

    /// Notes in the current transaction that the task is done, how many resources it came to, and what else there is to
    /// say of it.
    ///
    /// # Errors
    /// As [`Task::advance`].
    pub fn finish(&self, total: u64, result: &Value) -> Result<()> {
        self.unless_cancelled(self.queue().is_some_and(|queue| queue.finish(self.key(), total, result)))
    }

    fn unless_cancelled(&self, noted: bool) -> Result<()> {
        if noted {
            return Ok(());
        }
        self.over.set(true);
        Err(Error::new(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, format!("{} was cancelled", self.title())))
    }

    /// How far the task is committed; `None` when there is nothing more to do for this worker: the task was cancelled,
    /// the extension is gone, or another worker has it.
    ///
    /// # Errors
    /// When the queue can't be read.
    pub fn committed(&self) -> Result<Option<Committed>> {
        let mut committed = None;
        if !self.over.get() {
            let read = || Ok(self.queue().and_then(|queue| queue.committed(self.key())));
            committed = self.keeping_locks(|| transaction::run(read))?;
            self.over.set(self.over.get() || committed.is_none());
        }
        Ok(committed.filter(|_| !self.over.get()))
    }

    /// Whether there is nothing more to do for this worker, as far as can be told.
    pub fn is_over(&self) -> bool {
        matches!(self.committed(), Ok(None))
    }

    /// Whether a queue is the one that it was taken from.
    pub(super) fn is_in(&self, queue: &Queue) -> bool {
        queue.extension() == self.extension
    }

    fn queue(&self) -> Option<Queue> {
        extension::find_this_extension().map(Queue::of).filter(|queue| self.is_in(queue))
    }

    /// Whether a second thread may help now: there is a slot that no worker has, and those who would like it too and
    /// have a slot before this one's have one each. Costs a look into shared memory.
    pub fn has_second_slot(&self) -> bool {
        let (free, taken): (Vec<Key>, Vec<Key>) = queue::slots(self.extension).partition(|slot| slot.is_free());
        taken.iter().position(|slot| *slot == self.locks[0]).is_some_and(|rank| rank < free.len())
    }

    /// Leaves the task to others.
    pub(super) fn release(&self) {
        self.locks[1].release();
    }
}
