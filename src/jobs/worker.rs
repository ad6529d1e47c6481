//! The process that works on jobs.

use super::queue::Queue;
use super::task::Task;
use crate::error::Result;
use crate::pg::catalog::Extension;
use crate::pg::lock::Key;
use crate::pg::worker::{self, Worker};
use crate::pg::{catalog, session, transaction};
use pgrx::pg_sys;
use serde_json::Value;
use std::cell::Cell;

/// A kind of job and what does its tasks.
pub struct Kind {
    /// As in [`NewJob`](super::NewJob).
    pub name: &'static str,
    /// Does a task to its end. The error is kept with the task as its reason.
    pub run: fn(&Task) -> std::result::Result<(), String>,
    /// Removes what a task with this input left outside of the database: when it failed or was cancelled, and when it
    /// is long over. May come again for the same input.
    pub forget: fn(&Value) -> Result<()>,
    /// How long jobs are remembered after they ended.
    pub retention_minutes: fn() -> i32,
}

thread_local! {
    /// When the last transaction that added tasks began, and how many it has added so far.
    static ADDED: Cell<(i64, usize)> = const { Cell::new((i64::MIN, 0)) };
}

/// Starts workers for so many tasks when the transaction has committed, as far as slots are free.
pub(super) fn wake_at_commit(tasks: usize) {
    let transaction = session::transaction_start();
    let (of, before) = ADDED.get();
    if of == transaction {
        ADDED.set((transaction, before + tasks));
        return;
    }
    ADDED.set((transaction, tasks));
    let slots: Vec<Key> = Queue::of(catalog::this_extension()).slots().collect();
    transaction::at_commit(move || start(slots.iter().filter(|slot| slot.is_free()).count().min(ADDED.get().1)));
}

/// Starts workers for tasks that nobody works on: after a restart of the server, or when it had no process left.
pub fn wake() {
    if session::is_standby() {
        return;
    }
    let queue = Queue::of(catalog::this_extension());
    let free = queue.slots().filter(|slot| slot.is_free()).count();
    if free > 0 {
        let tidies = queue.has_open_ends() || !queue.left_behind().is_empty();
        start(queue.free_tasks().len().max(usize::from(tidies)).min(free));
    }
}

/// Starts a worker for what is to be forgotten.
pub fn start_worker() {
    if !session::is_standby() {
        start(1);
    }
}

fn start(workers: usize) {
    let started = (0..workers).take_while(|_| start_one(session::database()));
    started.count();
}

/// Starts a worker in a database; false when the server has no process left.
pub(super) fn start_one(database: pg_sys::Oid) -> bool {
    Worker { name: "fhir_bulk job worker", function: c"fhir_bulk_job_worker", argument: database.to_u32() }.start()
}

/// A worker's life, in a database:
/// 1. take a slot, or leave the work to those who have them
/// 2. take the first task that nobody works on, do it, and forget what it left in the session; again until there is none
/// 3. give the slot up; go on if a task has come between that last look and now
pub fn work(database: pg_sys::Oid, kinds: &[Kind]) {
    worker::connect(Some(database));
    while let Some(slot) = in_queue(|queue| queue.slots().find(|slot| slot.try_take())).flatten() {
        tidy(kinds);
        while let Some(task) = in_queue(|queue| take_task(queue, slot)).flatten() {
            run(&task, kinds);
            tidy(kinds);
        }
        slot.release();
        if in_queue(|queue| queue.free_tasks()).is_none_or(|tasks| tasks.is_empty()) {
            break;
        }
    }
}

/// Has `work` look into the queue in a transaction; `None` when that fails, or the extension is gone.
fn in_queue<T>(work: impl FnOnce(&Queue) -> T) -> Option<T> {
    worker::reload_if_asked();
    let found: Result<Option<T>> =
        transaction::run(|| Ok(catalog::find_this_extension().map(|extension| work(&Queue::of(extension)))));
    found.unwrap_or_else(|error| {
        worker::log(&format!("fhir_bulk job worker: {}", error.message()));
        None
    })
}

/// The first task that can be had.
fn take_task(queue: &Queue, slot: Key) -> Option<Task> {
    if !slot.keep() {
        return None;
    }
    queue.free_tasks().into_iter().find_map(|key| {
        let lock = queue.task_lock(key);
        if !lock.try_take() {
            return None;
        }
        let row = queue.begin(key);
        if row.is_none() {
            lock.release();
        }
        row.map(|row| Task::new(row, slot, lock))
    })
}

fn run(task: &Task, kinds: &[Kind]) {
    worker::report(Some(&task.title()));
    worker::become_role(task.role());
    let kind = kinds.iter().find(|kind| kind.name == task.row().kind);
    let result = kind.map_or_else(|| Err(format!("no such kind of job: {}", task.row().kind)), |kind| (kind.run)(task));
    worker::leave_role();
    if let Err(reason) = result
        && !task.is_over()
    {
        worker::log(&format!("{} failed: {reason}", task.title()));
        in_queue(|queue| queue.fail(task.key(), &reason));
    }
    task.release();
    if let (Ok(None), Some(kind)) = (extension(), kind) {
        // Nobody else remembers the task.
        forget(kind, &task.row().input);
    }
    worker::report(None);
}

fn extension() -> Result<Option<Extension>> {
    transaction::run(|| Ok(catalog::find_this_extension()))
}

/// Ends jobs whose tasks are over, and forgets what is to be forgotten.
fn tidy(kinds: &[Kind]) {
    in_queue(|queue| {
        queue.close_jobs();
        for task in queue.left_behind() {
            if kinds.iter().filter(|kind| kind.name == task.kind).all(|kind| forget(kind, &task.input)) {
                queue.forget_worker(task.key());
            }
        }
        for kind in kinds {
            for job in queue.expired(kind.name, (kind.retention_minutes)()) {
                if job.inputs.iter().all(|input| forget(kind, input)) {
                    queue.delete(job.number);
                }
            }
        }
    });
}

/// False when it has to be tried again later.
fn forget(kind: &Kind, input: &Value) -> bool {
    let result = (kind.forget)(input);
    if let Err(error) = &result {
        worker::log(&format!("fhir_bulk job worker: {}", error.message()));
    }
    result.is_ok()
}
