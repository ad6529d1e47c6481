//! The background worker that runs jobs, and the code that starts it.

use super::queue::{Queue, Which};
use super::rows::{DroppedIndex, EndedTask, OpenTask};
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

/// A kind of job, and the functions that run its tasks.
pub struct Kind {
    /// Its name in [`NewJob`](super::NewJob).
    pub name: &'static str,
    /// Runs a task to its end. The error is stored with the task.
    pub run: fn(&Task) -> std::result::Result<(), String>,
    /// Removes what a task with this input left outside of the database, after the task has failed or was cancelled, and
    /// when the job expires. It may wait. It may be called again for the same input, even after it succeeded. Returns false
    /// if it should be tried later.
    pub forget: fn(&Value) -> Result<bool>,
    /// Ends what a task that has failed or was cancelled has others do. It may wait, and may be called again. Returns false if
    /// it should be tried later.
    pub call_off: fn(&EndedTask) -> Result<bool>,
    /// Makes an index again that a job has dropped, in a transaction, as the role that it chooses. PostgreSQL raises its errors.
    pub restore: fn(&DroppedIndex),
    /// How long jobs are kept after they end.
    pub retention_minutes: fn() -> i32,
    /// Forgets jobs that nobody will end, in a transaction.
    pub expire: fn(),
}

/// How many processes in a row may start a task without a commit. After that the task fails.
const MOST_STARTS: i32 = 10;
/// The shortest time between two checks for missing workers: a new worker needs time to take its task.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often a failed transaction on the queue is tried. The waits between grow from the first one.
const TRIES: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(50);

thread_local! {
    /// The last transaction that added tasks, and how many it has added so far.
    static ADDED: Cell<(u64, usize)> = const { Cell::new((0, 0)) };
    static LAST_LOOK: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Starts workers for `tasks` tasks after the transaction has committed, but no more than there are free slots.
///
/// A prepared transaction may be committed by another session. Then its tasks start at the next [`wake`].
pub fn wake_at_commit(tasks: usize) {
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

/// Starts workers for tasks without a worker: after a restart of the server, or when it had no process left.
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
        let work = queue.free_tasks(Which::Any).len() + queue.free_indexes().len();
        start(work.max(usize::from(tidies)).min(free));
    }
}

/// Starts a worker, which deletes expired jobs.
pub fn start_worker() {
    if !session::is_standby() {
        start(1);
    }
}

fn start(workers: usize) {
    let started = (0..workers).take_while(|_| start_one(session::database()));
    started.count();
}

/// Starts a worker in a database. False if the server has no process left.
pub(super) fn start_one(database: pg_sys::Oid) -> bool {
    let (name, function) = ("fhir_bulk job worker", c"fhir_bulk_job_worker");
    Worker { name, library: extension::LIBRARY, function, argument: database.to_u32() }.start()
}

/// The main function of a worker:
/// 1. take a slot, or end if there is none; delete jobs that belong to another database
/// 2. make an index again that no job needs to be without, or take the first task without a worker, run it, and clean up
///    the session; remove expired jobs and leftovers; repeat until there is no task
/// 3. release the slot; go on with 1 if a task has been added since the last look
/// 4. run a task that ended its earlier workers, if no other worker runs; then go on with 1
pub fn work(database: pg_sys::Oid, kinds: &[Kind]) {
    worker::connect(Some(database));
    // It ends early if the queue cannot be read or written. The next call of a job function starts a new worker.
    while let Some(more) = work_in_a_slot(kinds)
        && (more || work_alone(kinds) == Some(true))
    {}
}

/// Returns whether there is more to do; `None` if the queue does not exist or cannot be used.
fn work_in_a_slot(kinds: &[Kind]) -> Option<bool> {
    let Some(slot) = in_queue(|queue| queue.slots().find(|slot| slot.try_take()))? else { return Some(false) };
    in_queue(Queue::forget_others)?;
    loop {
        if make_index(slot, kinds)? {
            tidy(kinds)?;
            continue;
        }
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

/// Runs one of the suspect tasks, which must run alone, if no other worker runs. The last worker to end does this. Returns
/// whether it ran one. If the worker dies here, its exit releases the slots.
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

/// Takes all slots, or none. It takes them in order: of two workers that try at the same time, one gets the first slot, and
/// the other holds none.
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

/// Runs `work` on the queue in a transaction, and retries if it fails. `None` if all tries fail, or the extension was
/// dropped.
fn in_queue<T>(work: impl Fn(&Queue) -> T) -> Option<T> {
    let mut wait = FIRST_WAIT;
    for tried in 1.. {
        // What failed because the server has ended is no failure of a job.
        worker::end_without_server();
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

/// Takes the first free task, for the worker of these slots.
fn take_task(queue: &Queue, slots: &[Key], which: Which) -> Option<Task> {
    if !slots.iter().all(|slot| slot.keep()) {
        return None;
    }
    let slot = *slots.first()?;
    let task = queue.free_tasks(which).into_iter().find_map(|open| {
        let locks = task_locks(queue, &open)?;
        let Some(row) = queue.begin(open.key()) else {
            locks.iter().for_each(|lock| lock.release());
            return None;
        };
        Some(Task::new(row, queue.extension(), slot, locks))
    })?;
    // If the server could start only one worker, that worker now starts the others.
    start_missing(queue);
    Some(task)
}

/// Takes the locks of a task: its own, and one of its job's if that has a limit. None if there is none. The job's comes first:
/// a worker that held a task and waited for its turn in the job would make those that have one pass the task over.
fn task_locks(queue: &Queue, task: &OpenTask) -> Option<Vec<Key>> {
    let of_job = match task.workers {
        Some(_) => Some(queue.job_slots(task).find(|slot| slot.try_take())?),
        None => None,
    };
    let own = queue.task_lock(task.key());
    if own.try_take() {
        return Some([own].into_iter().chain(of_job).collect());
    }
    of_job.iter().for_each(|slot| slot.release());
    None
}

/// Makes one of the indexes again that jobs have dropped, if there is one to be made. Returns whether it has tried.
fn make_index(slot: Key, kinds: &[Kind]) -> Option<bool> {
    let begun = in_queue(|queue| {
        if !slot.keep() {
            return None;
        }
        queue.free_indexes().into_iter().find_map(|number| {
            let lock = queue.index_lock(number);
            if !lock.try_take() {
                return None;
            }
            let index = queue.begin_index(number);
            if index.is_none() {
                lock.release();
            }
            index.map(|index| (lock, index))
        })
    })?;
    let Some((lock, index)) = begun else { return Some(false) };
    worker::report(Some(&format!("fhir_bulk {} makes index \"{}\" again", index.kind, index.name)));
    // Others make the other indexes of the table.
    in_queue(start_missing)?;
    let made = transaction::run(|| {
        if let Some(kind) = kinds.iter().find(|kind| kind.name == index.kind) {
            (kind.restore)(&index);
        }
        if let Some(extension) = extension::find_this_extension() {
            Queue::of(extension).forget_index(index.number);
        }
        Ok::<_, Error>(())
    });
    worker::report(None);
    if let Err(error) = made {
        worker::log(&format!(
            "fhir_bulk {} could not make index \"{}\" again: {}",
            index.kind,
            index.name,
            error.message()
        ));
        // Deadlocks, a lack of resources, locks, interrupts, errors of the system may pass.
        let may_pass = ["40", "53", "55", "57", "58"].iter().any(|class| error.sqlstate().starts_with(class));
        in_queue(|queue| queue.fail_index(index.number, error.message(), !may_pass))?;
        if may_pass {
            worker::wait(LOOK_EVERY);
        }
    }
    lock.release();
    Some(true)
}

/// Runs a task to its end. `None` if this process cannot run another one.
fn run(task: &Task, kinds: &[Kind]) -> Option<()> {
    worker::report(Some(&task.title()));
    let kind = kinds.iter().find(|kind| kind.name == task.row().kind);
    let result = match (worker::become_role(task.role()), kind) {
        _ if task.row().starts > MOST_STARTS => {
            Err(format!("{MOST_STARTS} workers in a row ended without a commit; the server's log says why"))
        }
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
        // The queue of the task no longer exists, so no other worker will do this.
        forget(kind, &task.row().input);
    }
    worker::report(None);
    left.map_err(|error| worker::log(&format!("fhir_bulk job worker ends: {}", error.message()))).ok()
}

fn extension() -> Result<Option<Extension>> {
    transaction::run(|| Ok(extension::find_this_extension()))
}

/// Ends jobs whose tasks have ended, and removes leftovers and expired jobs. It removes them outside of transactions,
/// because that may take long.
fn tidy(kinds: &[Kind]) -> Option<()> {
    let (queue_of, ended, expired) = in_queue(|queue| {
        queue.close_jobs();
        kinds.iter().for_each(|kind| (kind.expire)());
        let expired = kinds.iter().map(|kind| queue.expired(kind.name, (kind.retention_minutes)()));
        (queue.extension(), queue.left_behind(), expired.collect::<Vec<_>>())
    })?;
    // Meanwhile the extension may have been created again, with other jobs of the same numbers.
    let note = |done: &dyn Fn(&Queue)| {
        in_queue(|queue| {
            if queue.extension() == queue_of {
                done(queue);
            }
        })
    };
    for task in ended {
        if kinds
            .iter()
            .filter(|kind| kind.name == task.kind)
            .all(|kind| call_off(kind, &task) && forget(kind, &task.input))
        {
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

/// Returns false if it must be tried again later.
fn call_off(kind: &Kind, task: &EndedTask) -> bool {
    transaction::between(|| (kind.call_off)(task)).unwrap_or_else(|error: Error| {
        worker::log(&format!("fhir_bulk job worker: {}", error.message()));
        false
    })
}

/// Returns false if it must be tried again later.
fn forget(kind: &Kind, input: &Value) -> bool {
    transaction::between(|| (kind.forget)(input)).unwrap_or_else(|error: Error| {
        worker::log(&format!("fhir_bulk job worker: {}", error.message()));
        false
    })
}
