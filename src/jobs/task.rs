//! A task that a worker runs.

use super::queue::{self, Queue};
use super::rows::{Committed, Elsewhere, Reached, TaskRow};
use super::settings_of_caller;
use crate::extension;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::lock::Key;
use fhir_bulk_pg::progress::{self, Copying, Work};
use fhir_bulk_pg::session::{self, Identity};
use fhir_bulk_pg::spi::Parameter;
use fhir_bulk_pg::{transaction, worker};
use pgrx::{PgSqlErrorCode, pg_sys};
use serde_json::Value;
use std::cell::Cell;

/// A task of a job, with methods to run transactions with its owner's rights and to store its progress.
pub struct Task {
    row: TaskRow,
    /// The extension whose queue it is in. If the extension is dropped and created again, its OID changes, but job numbers
    /// may repeat.
    extension: pg_sys::Oid,
    /// The lock of the worker's slot, unless it has left it to others.
    slot: Cell<Option<Key>>,
    /// Those of the task.
    locks: Vec<Key>,
    over: Cell<bool>,
}

impl Task {
    pub(super) fn new(row: TaskRow, extension: pg_sys::Oid, slot: Key, locks: Vec<Key>) -> Task {
        Task { row, extension, slot: Cell::new(Some(slot)), locks, over: Cell::new(false) }
    }

    /// The row that the worker took.
    pub fn row(&self) -> &TaskRow {
        &self.row
    }

    pub(super) fn key(&self) -> (i64, i32) {
        (self.row.job, self.row.number)
    }

    /// The role whose rights it has.
    pub(super) fn role(&self) -> pg_sys::Oid {
        self.row.role.into()
    }

    /// Its name in messages and `pg_stat_activity`.
    pub fn title(&self) -> String {
        format!("fhir_bulk {} \"{}\", {} of {}", self.row.kind, self.row.id, self.row.number, self.row.tasks)
    }

    /// Runs `work` in a transaction of its own, with the owner's current rights, which it cannot leave, and under the
    /// settings of the session that added the job.
    ///
    /// # Errors
    /// 42704 if the owner no longer exists; the errors of `work`, and those that PostgreSQL raises in it or at the commit.
    pub fn transaction<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        worker::reload_if_asked();
        self.keeping_locks(|| transaction::run(|| self.as_owner(work)))
    }

    /// As [`Task::transaction`], with one snapshot for all of `work`, taken after `lock`.
    ///
    /// # Errors
    /// As for [`Task::transaction`], and the errors of `lock`.
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

    /// Runs a transaction. If it fails, takes this worker's locks again, or notes that the worker has lost the task; ends the
    /// worker if the server has ended.
    fn keeping_locks<T>(&self, transaction: impl FnOnce() -> Result<T>) -> Result<T> {
        let result = transaction();
        if result.is_err() {
            // Extensions may raise an error then, as Citus does: it is none of the task's.
            worker::end_without_server();
        }
        if result.is_err() && !self.locks.iter().copied().chain(self.slot.get()).all(Key::keep) {
            // Another worker has found the task without a lock and has taken it.
            self.over.set(true);
        }
        result
    }

    /// Shows the progress of the current transaction, before it commits, in the job's status and in `pg_stat_progress_copy`.
    /// Ends the worker if the server has ended.
    pub fn show(&self, copying: Copying, resources: u64) {
        worker::end_without_server();
        let (job, number) = self.key();
        progress::show(copying, resources, Work::Task(job, number));
    }

    /// Stores the progress of the current transaction; with `at_end` it is the task's last one.
    ///
    /// # Errors
    /// 57014 if the task was cancelled: then the transaction must not commit.
    pub fn advance(&self, reached: &Reached, at_end: bool) -> Result<()> {
        self.unless_cancelled(self.queue().is_some_and(|queue| queue.advance(self.key(), reached, at_end)))
    }

    /// As [`Task::advance`], in a transaction that stores only what another worker would begin anew: the workers that end
    /// without more count still.
    ///
    /// # Errors
    /// As for [`Task::advance`].
    pub fn hold(&self, read_bytes: u64, all_bytes: Option<u64>) -> Result<()> {
        self.unless_cancelled(self.queue().is_some_and(|queue| queue.hold(self.key(), read_bytes, all_bytes)))
    }

    /// Stores in the current transaction that the task has finished, its number of resources, and its result.
    ///
    /// # Errors
    /// As for [`Task::advance`].
    pub fn finish(&self, total: u64, result: &Value) -> Result<()> {
        self.unless_cancelled(self.queue().is_some_and(|queue| queue.finish(self.key(), total, result)))
    }

    /// Stores in the current transaction what the task's next worker must know.
    ///
    /// # Errors
    /// As for [`Task::advance`].
    pub fn note(&self, state: &Value) -> Result<()> {
        self.unless_cancelled(self.queue().is_some_and(|queue| queue.note(self.key(), state)))
    }

    /// Stores in the current transaction how far others have come that have the task's work.
    ///
    /// # Errors
    /// As for [`Task::advance`].
    pub fn mirror(&self, elsewhere: &Elsewhere) -> Result<()> {
        self.unless_cancelled(self.queue().is_some_and(|queue| queue.mirror(self.key(), elsewhere)))
    }

    /// Whether the job keeps a table without its indexes already.
    ///
    /// # Errors
    /// As for [`Task::advance`].
    pub fn holds_indexes(&self, table: pg_sys::Oid) -> Result<bool> {
        let queue = self.queue();
        self.unless_cancelled(queue.is_some())?;
        let held = |queue: Queue| -> Vec<bool> { queue.rows("holds_indexes($1, $2)", || self.and_table(table)) };
        Ok(queue.map(held).is_some_and(|held| !held.is_empty()))
    }

    /// Notes in the current transaction that the job keeps a table without its indexes until it ends.
    pub fn hold_indexes(&self, table: pg_sys::Oid) {
        if let Some(queue) = self.queue() {
            queue.call("hold_indexes($1, $2)", || self.and_table(table));
        }
    }

    /// Notes what makes an index of a table again that the current transaction drops: statements that come before it, and its
    /// own.
    pub fn note_dropped(&self, table: pg_sys::Oid, name: &str, made_by: [&[String]; 2], tablespace: &str) {
        let [before, statements] = made_by.map(|statements| Value::from(statements.to_vec()).to_string());
        if let Some(queue) = self.queue() {
            queue.call("add_dropped_index($1, $2, $3, $4, $5::jsonb, $6::jsonb, $7)", || {
                vec![
                    Parameter::string(&self.row.kind),
                    Parameter::oid(self.role()),
                    Parameter::oid(table),
                    Parameter::string(name),
                    Parameter::string(&before),
                    Parameter::string(&statements),
                    Parameter::string(tablespace),
                ]
            });
        }
    }

    /// What [`Added::keep`](super::Added::keep) keeps of the job.
    ///
    /// # Errors
    /// As for [`Task::advance`].
    pub fn secret(&self) -> Result<Value> {
        let kept = |queue: Queue| queue.rows::<Value>("job_secret($1)", || vec![Parameter::int8(self.row.job)]);
        let kept = self.queue().and_then(|queue| kept(queue).into_iter().next());
        self.unless_cancelled(kept.is_some())?;
        Ok(kept.unwrap_or_default())
    }

    fn and_table(&self, table: pg_sys::Oid) -> Vec<Parameter> {
        vec![Parameter::int8(self.row.job), Parameter::oid(table)]
    }

    fn unless_cancelled(&self, noted: bool) -> Result<()> {
        if noted {
            return Ok(());
        }
        self.over.set(true);
        Err(Error::new(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, format!("{} was cancelled", self.title())))
    }

    /// How much of the task is committed; `None` if this worker must stop: the task was cancelled, the extension was
    /// dropped, or another worker has the task.
    ///
    /// # Errors
    /// What PostgreSQL raises if the queue cannot be read.
    pub fn committed(&self) -> Result<Option<Committed>> {
        let mut committed = None;
        if !self.over.get() {
            let read = || Ok(self.queue().and_then(|queue| queue.committed(self.key())));
            committed = self.keeping_locks(|| transaction::run(read))?;
            self.over.set(self.over.get() || committed.is_none());
        }
        Ok(committed.filter(|_| !self.over.get()))
    }

    /// Whether this worker must stop. False if the queue cannot be read.
    pub fn is_over(&self) -> bool {
        matches!(self.committed(), Ok(None))
    }

    /// Whether the task is from this queue.
    pub(super) fn is_in(&self, queue: &Queue) -> bool {
        queue.extension() == self.extension
    }

    fn queue(&self) -> Option<Queue> {
        extension::find_this_extension().map(Queue::of).filter(|queue| self.is_in(queue))
    }

    /// Whether a second thread may help now. Each free slot allows one second thread, and workers with lower slots come
    /// first. Costs a look into shared memory.
    pub fn has_second_slot(&self) -> bool {
        let (free, taken): (Vec<Key>, Vec<Key>) = queue::slots(self.extension).partition(|slot| slot.is_free());
        taken.iter().position(|slot| Some(*slot) == self.slot.get()).is_some_and(|rank| rank < free.len())
    }

    /// Leaves the worker's slot to others for the rest of the task: it only watches what others do, some of which may wait for
    /// a slot of this server. Whoever adds such tasks limits how many of them are worked on at once.
    pub fn step_aside(&self) {
        if let Some(slot) = self.slot.take() {
            slot.release();
        }
    }

    /// Releases the task, so that another worker can take it.
    pub(super) fn release(&self) {
        self.locks.iter().for_each(|lock| lock.release());
    }
}
