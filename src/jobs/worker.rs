//! The process that works on jobs.

use super::queue::{Queue, Which};
use super::task::Task;
use crate::extension::{self, Extension};
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::lock::Key;
use fhir_bulk_pg::worker::{self, Worker};
use fhir_bulk_pg::{session, transaction};
use pgrx::pg_sys;
use serde_json::Value;
use std::cell::Cell;
use std::time::{Duration, Instant};

/// A kind of job and what does its tasks.
pub struct Kind {
    /// As in [`NewJob`](super::NewJob).
    pub name: &'static str,
    /// Does a task to its end. The error is kept with the task as its reason.
    pub run: fn(&Task) -> std::result::Result<(), String>,
    /// Removes what a task with this input left outside of the database: when it failed or was cancelled, and when it
    /// is long over. May wait; may come again for the same input, also when it said that it is done; false when it is
    /// better tried later.
    pub forget: fn(&Value) -> Result<bool>,
    /// How long jobs are remembered after they ended.
    pub retention_minutes: fn() -> i32,
}

/// How many processes begin a task in a row without committing any of it, before it is given up.
const MOST_STARTS: i32 = 10;
/// How often a process looks, at most, whether workers are missing: one that was just started has yet to take its task.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often a look into the queue that failed is begun again, after ever longer waits from the first one on.
const TRIES: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(50);

thread_local! {
    /// The last transaction that added tasks, and how many it has added so far.
    static ADDED: Cell<(u64, usize)> = const { Cell::new((0, 0)) };
    static LAST_LOOK: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Starts workers for so many tasks when the transaction has committed, as far as slots are free.
///
/// One that is prepared is committed by whichever session; its tasks begin at the next [`wake`].
pub(super) fn wake_at_commit(tasks: usize) {
    let transaction = session::transaction_id();
    let (of, before) = ADDED.get();
    if of == transaction {
        ADDED.set((transaction, before + tasks));
        return;
    }
    ADDED.set((transaction, tasks));
    let slots: Vec<Key> = Queue::of(extension::this_extension()).slots().collect();
    transaction::at_commit(move || start(slots.iter().filter(|slot| slot.is_free()).count().min(ADDED.get().1)));
}

/// Starts workers for tasks that nobody works on: after a restart of the server, or when it had no process left.
pub fn wake() {
    if !session::is_standby() {
        start_missing(&Queue::of(extension::this_extension()));
    }
}

fn start_missing(queue: &Queue) {
    if LAST_LOOK.get().is_some_and(|at| at.elapsed() < LOOK_EVERY) {
        return;
    }
    LAST_LOOK.set(Some(Instant::now()));
    let free = queue.slots().filter(|slot| slot.is_free()).count();
    if free > 0 {
        let tidies = queue.has_open_ends() || !queue.left_behind().is_empty();
        start(queue.free_tasks(Which::Any).len().max(usize::from(tidies)).min(free));
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
    let (name, function) = ("fhir_bulk job worker", c"fhir_bulk_job_worker");
    Worker { name, library: extension::LIBRARY, function, argument: database.to_u32() }.start()
}

/// A worker's life, in a database:
/// 1. take a slot, or leave the work to those who have them; forget jobs that are another database's
/// 2. take the first task that nobody works on, do it, forget what it left in the session, and what else is to be
///    forgotten; again until there is none
/// 3. give the slot up; go on if a task has come between that last look and now
/// 4. do a task that took its workers down, if nobody else is at work; then go on with 1
pub fn work(database: pg_sys::Oid, kinds: &[Kind]) {
    worker::connect(Some(database));
    // It ends early when the queue can't be read or written: then whoever asks next has it tried again.
    while let Some(more) = work_in_a_slot(kinds)
        && (more || work_alone(kinds) == Some(true))
    {}
}

/// Whether there is more to do; `None` when the queue is gone or can't be used.
fn work_in_a_slot(kinds: &[Kind]) -> Option<bool> {
    let Some(slot) = in_queue(|queue| queue.slots().find(|slot| slot.try_take()))? else { return Some(false) };
    in_queue(Queue::forget_others)?;
    loop {
        let task = in_queue(|queue| take_task(queue, &[slot], Which::Harmless))?;
        task.as_ref().map_or(Some(()), |task| run(task, kinds))?;
        tidy(kinds)?;
        if task.is_none() {
            break;
        }
    }
    slot.release();
    in_queue(|queue| !queue.free_tasks(Which::Harmless).is_empty())
}

/// Does one of the tasks that nobody works beside, if nobody is at work: the worker that ends last comes here. Whether it did.
/// A worker that ends in the middle gives its slots up as it exits.
fn work_alone(kinds: &[Kind]) -> Option<bool> {
    if in_queue(|queue| queue.free_tasks(Which::Suspect).is_empty())? {
        return Some(false);
    }
    let mut wait = FIRST_WAIT;
    let mut slots = in_queue(take_all_slots)?;
    for _ in 1..TRIES {
        if slots.is_none() {
            worker::wait(wait);
            wait *= 2;
            slots = in_queue(take_all_slots)?;
        }
    }
    let Some(slots) = slots else { return Some(false) };
    let task = in_queue(|queue| take_task(queue, &slots, Which::Suspect))?;
    task.as_ref().map_or(Some(()), |task| run(task, kinds))?;
    tidy(kinds)?;
    slots.iter().for_each(|slot| slot.release());
    Some(task.is_some())
}

/// All slots, or none. They are taken in one order: of two workers that come here at once, one has the first slot, and the
/// other holds none.
fn take_all_slots(queue: &Queue) -> Option<Vec<Key>> {
    let mut taken = Vec::new();
    for slot in queue.slots() {
        if !slot.try_take() {
            taken.iter().for_each(|slot: &Key| slot.release());
            return None;
        }
        taken.push(slot);
    }
    Some(taken)
}

/// Has `work` look into the queue in a transaction, in several should the first ones fail; `None` when the last one
/// does, or the extension is gone.
fn in_queue<T>(work: impl Fn(&Queue) -> T) -> Option<T> {
    let mut wait = FIRST_WAIT;
    for tried in 1.. {
        worker::reload_if_asked();
        let found: Result<Option<T>> =
            transaction::run(|| Ok(extension::find_this_extension().map(|extension| work(&Queue::of(extension)))));
        match found {
            Ok(found) => return found,
            Err(error) if tried == TRIES => {
                worker::log(&format!("fhir_bulk job worker: {}", error.message()));
                break;
            }
            Err(_) => worker::wait(wait),
        }
        wait *= 2;
    }
    None
}

/// The first task that can be had, for the worker of these slots.
fn take_task(queue: &Queue, slots: &[Key], which: Which) -> Option<Task> {
    if !slots.iter().all(|slot| slot.keep()) {
        return None;
    }
    let slot = *slots.first()?;
    let task = queue.free_tasks(which).into_iter().find_map(|key| {
        let lock = queue.task_lock(key);
        if !lock.try_take() {
            return None;
        }
        let row = queue.begin(key);
        if row.is_none() {
            lock.release();
        }
        row.map(|row| Task::new(row, queue.extension(), slot, lock))
    })?;
    // The only worker that a launcher or a server with few processes could start sees to the others.
    start_missing(queue);
    Some(task)
}

/// Does a task to its end; `None` when this process can't go on to another.
fn run(task: &Task, kinds: &[Kind]) -> Option<()> {
    worker::report(Some(&task.title()));
    let kind = kinds.iter().find(|kind| kind.name == task.row().kind);
    let result = match (worker::become_role(task.role()), kind) {
        _ if task.row().starts > MOST_STARTS => Err(format!(
            "{MOST_STARTS} processes that worked on it ended before they had committed anything; the server's log says why"
        )),
        (Ok(()), Some(kind)) => (kind.run)(task),
        (Err(error), _) => Err(error.message().to_owned()),
        (_, None) => Err(format!("no such kind of job: {}", task.row().kind)),
    };
    let left = worker::leave_role();
    if let Err(reason) = result
        && !task.is_over()
    {
        worker::log(&format!("{} failed: {reason}", task.title()));
        in_queue(|queue| task.is_in(queue) && queue.fail(task.key(), &reason))?;
    }
    task.release();
    let is_known = |extension: Option<Extension>| extension.is_some_and(|found| task.is_in(&Queue::of(found)));
    if let (Ok(false), Some(kind)) = (extension().map(is_known), kind) {
        // Nobody else remembers the task.
        forget(kind, &task.row().input);
    }
    worker::report(None);
    left.map_err(|error| worker::log(&format!("fhir_bulk job worker ends: {}", error.message()))).ok()
}

fn extension() -> Result<Option<Extension>> {
    transaction::run(|| Ok(extension::find_this_extension()))
}

/// Ends jobs whose tasks are over, and forgets what is to be forgotten: outside of transactions, since that may wait for
/// others.
fn tidy(kinds: &[Kind]) -> Option<()> {
    let (queue_of, ended, expired) = in_queue(|queue| {
        queue.close_jobs();
        let expired = kinds.iter().map(|kind| queue.expired(kind.name, (kind.retention_minutes)()));
        (queue.extension(), queue.left_behind(), expired.collect::<Vec<_>>())
    })?;
    // By the time there may be another extension, with other jobs of these numbers.
    let note = |done: &dyn Fn(&Queue)| {
        in_queue(|queue| {
            if queue.extension() == queue_of {
                done(queue);
            }
        })
    };
    for task in ended {
        if kinds.iter().filter(|kind| kind.name == task.kind).all(|kind| forget(kind, &task.input)) {
            note(&|queue| queue.forget_worker(task.key()))?;
        }
    }
    for (kind, jobs) in kinds.iter().zip(expired) {
        for job in jobs {
            if job.inputs.iter().all(|input| forget(kind, input)) {
                note(&|queue| queue.delete(job.number))?;
            }
        }
    }
    Some(())
}

/// False when it has to be tried again later.
fn forget(kind: &Kind, input: &Value) -> bool {
    transaction::between(|| (kind.forget)(input)).unwrap_or_else(|error: Error| {
        worker::log(&format!("fhir_bulk job worker: {}", error.message()));
        false
    })
}
