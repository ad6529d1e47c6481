//! The jobs of a role, and of its token's `sub`: asked for, shown, ended by it. What is said to the tables stands in
//! `sql/own_jobs.sql`.

use super::queue::Queue;
use super::rows::{CancelledTask, Job, NewJob};
use super::settings_of_caller as caller;
use crate::extension;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::lock::Key;
use fhir_bulk_pg::spi::Parameter;
use fhir_bulk_pg::{guc, session, transaction, worker};
use pgrx::PgSqlErrorCode;
use serde_json::Value;
use std::time::{Duration, Instant};

/// How often somebody who waits for the end of a job looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often he looks at the tables, if somebody works on the job.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How many tasks of a job are shown at once, so that its status stays readable.
const SHOWN_TASKS: i32 = 1000;

/// The current token's `sub`, when the session has claims (`request.jwt.claims`) with one.
///
/// # Errors
/// 22023 for claims that are no JSON object: whose jobs to show could not be told.
pub fn subject() -> Result<Option<String>> {
    let claims = guc::get(c"request.jwt.claims").unwrap_or_default();
    let claims = claims.to_string_lossy();
    if claims.is_empty() {
        return Ok(None);
    }
    match serde_json::from_str::<Value>(&claims) {
        Ok(Value::Object(claims)) => Ok(match claims.get("sub") {
            None | Some(Value::Null) => None,
            Some(Value::String(subject)) => Some(subject.clone()),
            Some(other) => Some(other.to_string()),
        }),
        _ => Err(Error::invalid_argument("setting request.jwt.claims is not a JSON object")),
    }
}

/// Adds a job of the current role. Returns its number.
///
/// # Errors
/// 42710 when the role has a job of that id.
pub fn add(job: &NewJob<'_>) -> Result<i64> {
    let (role, subject) = (session::role(), subject()?);
    let settings = caller::settings();
    let queue = Queue::of(extension::this_extension());
    let added: Vec<i64> = queue.rows("add_job($1, $2, $3, $4, $5::jsonb, $6::jsonb, $7::jsonb)", || {
        vec![
            Parameter::string(job.kind),
            Parameter::string(job.id),
            Parameter::oid(role),
            Parameter::string_or_null(subject.as_deref()),
            Parameter::string(&job.request.to_string()),
            Parameter::string(&settings.to_string()),
            Parameter::string(&Value::Array(job.inputs.to_vec()).to_string()),
        ]
    });
    added.first().copied().ok_or_else(|| {
        let message = format!("there is a bulk {} \"{}\" already", job.kind, job.id);
        Error::new(PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT, message)
            .hint("Choose another id, or leave it out and one is made.")
    })
}

/// Adds tasks to a job, the first of them with a number.
pub fn add_tasks(job: i64, first: i32, inputs: &[Value]) {
    Queue::of(extension::this_extension()).call("add_tasks($1, $2, $3::jsonb)", || {
        vec![
            Parameter::int8(job),
            Parameter::int4(first),
            Parameter::string(&Value::Array(inputs.to_vec()).to_string()),
        ]
    });
}

/// Adds the last task of a job that was just added: it waits until the job is closed, and its other tasks are over.
pub fn open(job: i64, input: &Value) {
    Queue::of(extension::this_extension())
        .call("open_job($1, $2::jsonb)", || vec![Parameter::int8(job), Parameter::string(&input.to_string())]);
}

/// Says that there will be no more tasks of a job that was opened.
pub fn close(job: i64) {
    Queue::of(extension::this_extension()).call("close_job($1)", || vec![Parameter::int8(job)]);
}

/// Takes back a task of a job that goes on. Its worker commits nothing more of it once this transaction is.
pub fn withdraw_task(job: i64, number: i32) {
    let queue = Queue::of(extension::this_extension());
    let parameters = || vec![Parameter::int8(job), Parameter::int4(number)];
    interrupt_workers(&queue, job, queue.rows("withdraw_task($1, $2)", parameters));
}

/// Adds tasks to a job for those inputs that the current role has not had so yet. Returns how many. Until the transaction
/// ends nobody else does it for the same role: it would wait for some of the inputs in any case, and two could for each other.
///
/// # Errors
/// Those of [`subject`].
pub fn add_new_tasks(job: i64, first: i32, inputs: &[Value], service: &str, data_schema: &str) -> Result<i32> {
    let (role, subject) = (session::role(), subject()?);
    let queue = Queue::of(extension::this_extension());
    queue.files_lock(role, subject.as_deref()).wait_in_transaction();
    let added: Vec<i32> = queue.rows("add_new_tasks($1, $2, $3::jsonb, $4, $5)", || {
        vec![
            Parameter::int8(job),
            Parameter::int4(first),
            Parameter::string(&Value::Array(inputs.to_vec()).to_string()),
            Parameter::string(service),
            Parameter::string(data_schema),
        ]
    });
    Ok(added.into_iter().next().unwrap_or_default())
}

/// See [`super::Added::limit`].
pub fn limit(job: i64, workers: u16) {
    let parameters = || vec![Parameter::int8(job), Parameter::int4(workers.into())];
    Queue::of(extension::this_extension()).call("limit_job($1, $2)", parameters);
}

/// See [`super::Added::keep`].
pub fn keep_secret(job: i64, secret: &Value) {
    let parameters = || vec![Parameter::int8(job), Parameter::string(&secret.to_string())];
    Queue::of(extension::this_extension()).call("keep_secret($1, $2::jsonb)", parameters);
}

/// Sees that the current role, and its token's `sub`, has fewer than `most` unfinished jobs of a kind; for 0, any number.
/// Until the transaction ends nobody else adds one for the same: all that are asked for at once count.
///
/// # Errors
/// 53400; those of [`subject`].
pub fn check_limit(kind: &str, most: u32) -> Result<()> {
    if most == 0 {
        return Ok(());
    }
    wait_for_additions()?;
    let (role, subject) = (session::role(), subject()?);
    let queue = Queue::of(extension::this_extension());
    let unfinished: Vec<u32> = queue.rows("unfinished_jobs($1, $2, $3)", || {
        vec![Parameter::string(kind), Parameter::oid(role), Parameter::string_or_null(subject.as_deref())]
    });
    if unfinished.first().is_some_and(|count| *count < most) {
        return Ok(());
    }
    let message = format!("there are {most} unfinished {kind}s of this role already");
    Err(Error::new(PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, message).hint(format!(
        "Wait for one to end, or cancel one: SELECT * FROM bulk_jobs; shows them. A superuser can raise \
             fhir_bulk.max_{kind}s_per_role."
    )))
}

/// Waits until nobody else adds a job for the current role, and its token's `sub`, and keeps others from it until the
/// transaction ends.
///
/// # Errors
/// Those of [`subject`].
pub fn wait_for_additions() -> Result<()> {
    let (role, subject) = (session::role(), subject()?);
    Queue::of(extension::this_extension()).additions_lock(role, subject.as_deref()).wait_in_transaction();
    Ok(())
}

/// A job of the current role, and of its token's `sub` if it has one.
///
/// # Errors
/// Those of [`subject`].
pub fn find(kind: &str, id: &str) -> Result<Option<Job>> {
    let own = own(kind, id)?;
    let parameters = || own().into_iter().chain([Parameter::int4(SHOWN_TASKS)]).collect();
    let found = Queue::of(extension::this_extension()).rows("find_job($1, $2, $3, $4, $5)", parameters);
    Ok(found.into_iter().next())
}

/// What the first task of a job works on, whoever's it is: for kinds whose ids are random, and known to no one else.
pub fn input(kind: &str, id: &str) -> Option<Value> {
    let parameters = || vec![Parameter::string(kind), Parameter::string(id)];
    Queue::of(extension::this_extension()).rows("first_input($1, $2)", parameters).into_iter().next()
}

/// What is noted of the tasks that are at work of a job of the current role ([`Task::note`](super::Task::note)).
///
/// # Errors
/// Those of [`subject`].
pub fn states(kind: &str, id: &str) -> Result<Vec<Value>> {
    let own = own(kind, id)?;
    Ok(Queue::of(extension::this_extension()).rows("own_task_states($1, $2, $3, $4)", own))
}

/// Waits until a job of the current role has ended, at most so long. Returns at once if there is none.
///
/// # Errors
/// Those of [`subject`].
pub fn wait_for_end(kind: &str, id: &str, most: Duration) -> Result<()> {
    let begun = Instant::now();
    let wait = || match most.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
        Some(left) => {
            session::wait_for_latch(left.min(LOOK_EVERY));
            session::check_for_interrupts();
            true
        }
        None => false,
    };
    while begun.elapsed() < most {
        // A job on whose first task somebody works has not ended. Locks are in memory, and looked at by no query.
        let (tasks, looked) = (first_tasks(kind, id)?, Instant::now());
        while looked.elapsed() < LOOK_AGAIN && tasks.iter().any(|task| !task.is_free()) {
            if !wait() {
                return Ok(());
            }
        }
        if find(kind, id)?.is_none_or(|job| job.status != "active") || !wait() {
            break;
        }
    }
    Ok(())
}

/// Whether a process works on the first task of a job of the current role.
///
/// # Errors
/// Those of [`subject`].
pub fn is_at_work(kind: &str, id: &str) -> Result<bool> {
    Ok(first_tasks(kind, id)?.iter().any(|task| !task.is_free()))
}

/// The locks of the first tasks of a job of the current role: who works on one has its lock.
fn first_tasks(kind: &str, id: &str) -> Result<Vec<Key>> {
    let own = own(kind, id)?;
    let queue = Queue::of(extension::this_extension());
    let numbers: Vec<i64> = queue.rows("own_jobs($1, $2, $3, $4)", own);
    Ok(numbers.into_iter().map(|number| queue.task_lock((number, 1))).collect())
}

/// What [`cancel`] has ended.
pub struct Cancelled {
    pub jobs: usize,
    /// Whether indexes have to be made again.
    pub lacks_indexes: bool,
}

/// Ends a job of the current role where it stands: nothing more of it is committed once this transaction is.
///
/// # Errors
/// Those of [`subject`].
pub fn cancel(kind: &str, id: &str) -> Result<Cancelled> {
    let queue = Queue::of(extension::this_extension());
    let cancelled: Vec<i64> = queue.rows("cancel_jobs($1, $2, $3, $4)", own(kind, id)?);
    let mut lacks_indexes = false;
    for number in &cancelled {
        interrupt_workers(&queue, *number, queue.rows("cancel_tasks($1)", || vec![Parameter::int8(*number)]));
        let lacks: Vec<bool> = queue.rows("lacks_indexes($1)", || vec![Parameter::int8(*number)]);
        lacks_indexes |= lacks == [true];
    }
    Ok(Cancelled { jobs: cancelled.len(), lacks_indexes })
}

/// Ends a job by its number, as [`cancel`] does. The caller has checked whose it is.
pub fn cancel_job(job: i64) {
    let queue = Queue::of(extension::this_extension());
    queue.call("cancel_job($1)", || vec![Parameter::int8(job)]);
    interrupt_workers(&queue, job, queue.rows("cancel_tasks($1)", || vec![Parameter::int8(job)]));
}

/// Interrupts those who work on tasks that were just cancelled, once this transaction is committed.
fn interrupt_workers(queue: &Queue, job: i64, tasks: Vec<CancelledTask>) {
    for task in tasks {
        let (lock, Some(pid)) = (queue.task_lock((job, task.number)), task.worker) else { continue };
        // The number of a worker that has died may be another process's by now.
        transaction::at_commit(move || {
            if !lock.is_free() {
                worker::interrupt(pid);
            }
        });
    }
}

/// Takes back a job of the current role that has ended: it counts as cancelled, and what it made is a worker's to remove.
/// False when there is none, or none that made anything.
///
/// # Errors
/// Those of [`subject`].
pub fn discard(kind: &str, id: &str) -> Result<bool> {
    let queue = Queue::of(extension::this_extension());
    let discarded: Vec<i64> = queue.rows("discard_jobs($1, $2, $3, $4)", own(kind, id)?);
    Ok(!discarded.is_empty())
}

/// Forgets a job of the current role that ended longer ago than so many minutes, so that its id can be taken again. For
/// kinds of jobs that leave nothing outside of the database; others are forgotten by workers.
///
/// # Errors
/// Those of [`subject`].
pub fn forget_expired(kind: &str, id: &str, minutes: i32) -> Result<()> {
    let own = own(kind, id)?;
    let parameters = || own().into_iter().chain([Parameter::int4(minutes)]).collect();
    Queue::of(extension::this_extension()).call("forget_expired_job($1, $2, $3, $4, $5)", parameters);
    Ok(())
}

/// Whose jobs are meant, as the functions' first parameters: kind, id, role and sub.
fn own(kind: &str, id: &str) -> Result<impl Fn() -> Vec<Parameter>> {
    let (role, subject) = (session::role(), subject()?);
    Ok(move || {
        vec![
            Parameter::string(kind),
            Parameter::string(id),
            Parameter::oid(role),
            Parameter::string_or_null(subject.as_deref()),
        ]
    })
}
