//! The process that works on jobs.

use super::queue::Queue;
use super::task::Task;
use crate::error::Result;
use crate::pg::lock::Key;
use crate::pg::worker::{self, Worker};
use crate::pg::{catalog, session, transaction};
use pgrx::pg_sys;
use std::cell::Cell;

/// A kind of job and what does its tasks.
pub struct Kind {
    /// As in [`NewJob`](super::NewJob).
    pub name: &'static str,
    /// Does a task to its end. The error is kept with the task as its reason.
    pub run: fn(&Task) -> std::result::Result<(), String>,
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
        start(queue.free_tasks().len().min(free));
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
        while let Some(task) = in_queue(|queue| take_task(queue, slot)).flatten() {
            run(&task, kinds);
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
    queue.close_jobs();
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
    in_queue(Queue::close_jobs);
    worker::report(None);
}
