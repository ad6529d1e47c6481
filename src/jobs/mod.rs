//! Background jobs: a role asks for them, workers of the server do them. A worker that ends early is replaced by the next one,
//! which goes on from the last commit.
//!
//! A job is a row of `bulk_job` with one row of `bulk_job_task` for each of its inputs. [`add`] writes them in the
//! caller's transaction and has workers started when it commits. A worker ([`work`]) holds a slot, of which there are
//! `fhir_bulk.import_workers`, and takes open tasks in order, each with a lock that ends with the process: an active
//! task whose lock nobody has is one whose worker died, and the next worker goes on with it.
//!
//! What a kind of job does, its own module says ([`Kind`]); nothing here knows of imports.

mod launcher;
mod own_jobs;
mod queue;
mod rows;
mod settings_of_caller;
mod task;
mod worker;

pub use launcher::{launch, start_launcher};
pub use own_jobs::{cancel, check_limit, find, forget_expired, input};
pub use rows::{Committed, Job, NewJob, Reached, TaskState};
pub use task::Task;
pub use worker::{Kind, start_worker, wake, work};

use fhir_bulk_pg::error::{Result, or_raise};
use fhir_bulk_pg::spi;
use pgrx::prelude::*;

/// Adds a job of the current role. It starts when the transaction commits, as soon as a worker is free.
///
/// # Errors
/// 42710 when the role has a job of that id.
pub fn add(job: &NewJob<'_>) -> Result<()> {
    own_jobs::add(job)?;
    worker::wake_at_commit(job.inputs.len());
    Ok(())
}

/// Takes back a job of the current role that has ended: it counts as cancelled, and what it made is removed by a worker
/// soon after the commit. False when there is none, or none that made anything.
///
/// # Errors
/// 22023 for claims that say not whose jobs are meant.
pub fn discard(kind: &str, id: &str) -> Result<bool> {
    let discarded = own_jobs::discard(kind, id)?;
    if discarded {
        worker::wake_at_commit(1);
    }
    Ok(discarded)
}

/// The `sub` of the token that the session works for, in `request.jwt.claims`; for the views on jobs.
#[pg_extern(stable, parallel_unsafe)]
fn bulk_job_subject() -> Option<String> {
    or_raise(own_jobs::subject())
}

/// An id for a job whose owner chose none.
pub fn random_id() -> String {
    spi::texts(c"SELECT pg_catalog.gen_random_uuid()", &[]).remove(0)
}
