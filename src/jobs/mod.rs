//! Background jobs: a role adds them, background workers run them. If a worker ends early, the next one continues from the
//! last commit.
//!
//! A job is a row of `bulk_job` with one row of `bulk_job_task` per input. [`add`] and [`Added::add`] insert them in the
//! caller's transaction and start workers when it commits. There are `fhir_bulk.import_workers` slots; a worker ([`work`]) holds one and takes
//! open tasks in order. It holds a lock on its task, which ends with the process. If no process holds the lock of an active
//! task, its worker has died, and the next worker continues the task.
//!
//! Each kind of job has a module of its own ([`Kind`]); this one knows nothing about imports.

mod launcher;
mod own_jobs;
mod part;
mod patience;
mod queue;
mod rows;
mod settings_of_caller;
mod task;
mod tries;
mod worker;

pub use launcher::{launch, start_launcher};
pub use own_jobs::{
    cancel_job, check_limit, find, forget_expired, input, is_at_work, states, subject, wait_for_additions,
    wait_for_end, withdraw_task,
};
pub use part::{Functions, Part, settings_elsewhere};
pub use patience::Patience;
pub use rows::{Committed, DroppedIndex, Elsewhere, EndedTask, Job, NewJob, Reached, Sums, TaskState};
pub use task::Task;
pub use tries::Tries;
pub use worker::{Kind, start_worker, wake, wake_at_commit, work};

use fhir_bulk_pg::error::{Result, or_raise};
use fhir_bulk_pg::spi;
use pgrx::prelude::*;
use serde_json::Value;

/// Adds a job for the current role. It starts after the commit, when a worker is free.
///
/// # Errors
/// 42710 if the role already has a job with this id.
pub fn add(job: &NewJob<'_>) -> Result<Added> {
    let number = own_jobs::add(job)?;
    worker::wake_at_commit(job.inputs.len());
    Ok(Added { number, tasks: job.inputs.len() as i32 })
}

/// A job that was just added, in the same transaction.
pub struct Added {
    number: i64,
    tasks: i32,
}

impl Added {
    /// Its number in the queue.
    pub fn number(&self) -> i64 {
        self.number
    }

    /// Keeps it open: others may add tasks to it until [`close`]. Only then, and after all of them, comes its last task, with
    /// this input.
    pub fn open(&mut self, last: &Value) {
        own_jobs::open(self.number, last);
        self.tasks += 1;
    }

    /// Adds a task for each of more inputs.
    pub fn add(&mut self, inputs: &[Value]) {
        if !inputs.is_empty() {
            own_jobs::add_tasks(self.number, self.tasks + 1, inputs);
            self.tasks += inputs.len() as i32;
            worker::wake_at_commit(inputs.len());
        }
    }

    /// Adds a task for each of more inputs with a `url` that no job of the current role has had so yet, and that later ones
    /// then pass over. `service` is the S3 service, and `data_schema` the schema that they are for.
    ///
    /// # Errors
    /// 22023 if `request.jwt.claims` cannot be read.
    pub fn add_new(&mut self, inputs: &[Value], service: &str, data_schema: &str) -> Result<()> {
        let added = own_jobs::add_new_tasks(self.number, self.tasks + 1, inputs, service, data_schema)?;
        self.tasks += added;
        worker::wake_at_commit(added as usize);
        Ok(())
    }

    /// Has a worker end the job, if it has no task.
    pub fn end_if_empty(&self) {
        if self.tasks == 0 {
            worker::wake_at_commit(1);
        }
    }

    /// Allows so many workers at once, and no more.
    pub fn limit(&self, workers: u16) {
        own_jobs::limit(self.number, workers);
    }

    /// Keeps what its tasks need ([`Task::secret`]) and nobody may see, until the job has ended.
    pub fn keep(&self, secret: &Value) {
        own_jobs::keep_secret(self.number, secret);
    }
}

/// Says that there will be no more tasks of a job that was kept open, by its number in the queue.
pub fn close(job: i64) {
    own_jobs::close(job);
    worker::wake_at_commit(1);
}

/// Ends a job of the current role where it stands: nothing more of it is committed once this transaction is. Soon after a
/// worker makes the indexes again that it has dropped. False when there is none that is still active.
///
/// # Errors
/// 22023 if `request.jwt.claims` cannot be read: then the owner of the jobs is not known.
pub fn cancel(kind: &str, id: &str) -> Result<bool> {
    let cancelled = own_jobs::cancel(kind, id)?;
    if cancelled.lacks_indexes {
        worker::wake_at_commit(1);
    }
    Ok(cancelled.jobs > 0)
}

/// Discards an ended job of the current role: its status becomes cancelled, and a worker removes its results soon after the
/// commit. False if there is no such job, or it has no results.
///
/// # Errors
/// 22023 if `request.jwt.claims` cannot be read: then the owner of the jobs is not known.
pub fn discard(kind: &str, id: &str) -> Result<bool> {
    let discarded = own_jobs::discard(kind, id)?;
    if discarded {
        worker::wake_at_commit(1);
    }
    Ok(discarded)
}

/// The `sub` of the session's token, from `request.jwt.claims`. The views on jobs use it.
#[pg_extern(stable, parallel_unsafe)]
fn bulk_job_subject() -> Option<String> {
    or_raise(own_jobs::subject())
}

/// A new id for a job whose owner chose none.
pub fn random_id() -> String {
    spi::texts(c"SELECT pg_catalog.gen_random_uuid()", &[]).remove(0)
}
