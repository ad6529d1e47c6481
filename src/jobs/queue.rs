//! The tables of jobs and their tasks as workers use them. What is said to them stands in `sql/queue.sql`.

use super::rows::{Committed, DroppedIndex, Elsewhere, EndedTask, ExpiredJob, OpenTask, Reached, TaskRow};
use crate::extension::Extension;
use crate::own_tables;
use crate::settings;
use fhir_bulk_pg::lock::Key;
use fhir_bulk_pg::spi::Parameter;
use fhir_bulk_pg::worker;
use pgrx::pg_sys;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Which tasks are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All.
    Any,
    /// Those that may be done beside others.
    Harmless,
    /// Those that are done when nothing else is: else others would share their fate, and be given up with them.
    Suspect,
}

/// See [`Queue::slots`].
pub fn slots(extension: pg_sys::Oid) -> impl Iterator<Item = Key> {
    (1..=settings::import_workers()).map(move |part| Key { class: extension, object: 0, part })
}

/// The queue of this database.
pub struct Queue {
    owner: pg_sys::Oid,
    extension: pg_sys::Oid,
}

impl Queue {
    /// The queue of the extension, in a transaction.
    pub fn of(extension: Extension) -> Queue {
        Queue { owner: extension.owner, extension: extension.oid }
    }

    /// Whose queue it is.
    pub fn extension(&self) -> pg_sys::Oid {
        self.extension
    }

    /// The locks that workers at work hold one of each.
    pub fn slots(&self) -> impl Iterator<Item = Key> + use<> {
        slots(self.extension)
    }

    /// The lock that whoever works on a task holds.
    pub fn task_lock(&self, (job, number): (i64, i32)) -> Key {
        // Numbers of jobs are random: two rarely share their lower half, and then their tasks only wait for each other. The
        // same goes for what a number of a task has beyond 16 bits.
        Key { class: self.extension, object: (job as u32) ^ (number as u32 >> 16), part: number as u16 }
    }

    /// The locks of which whoever works on a task of a job with a limit holds one; none for other jobs.
    pub fn job_slots(&self, task: &OpenTask) -> impl Iterator<Item = Key> + use<> {
        // The upper half of a job's random number: that it is another job's lower half is as rare as it is harmless. No
        // more than there can be workers.
        let (class, object) = (self.extension, (task.job >> 32) as u32);
        let parts = 1..=task.workers.unwrap_or(0).min(settings::MOST_WORKERS);
        parts.map(move |part| Key { class, object, part })
    }

    /// The lock that whoever adds a role's new files to a job holds.
    pub fn files_lock(&self, role: pg_sys::Oid, subject: Option<&str>) -> Key {
        Key { part: u16::MAX - 2, ..self.additions_lock(role, subject) }
    }

    /// The lock that whoever adds a job to a limited number of them holds.
    pub fn additions_lock(&self, role: pg_sys::Oid, subject: Option<&str>) -> Key {
        // Should it be some task's as well, or of two at once, one waits a little more.
        let mut hasher = DefaultHasher::new();
        (role.to_u32(), subject.unwrap_or_default()).hash(&mut hasher);
        Key { class: self.extension, object: hasher.finish() as u32, part: u16::MAX }
    }

    /// The lock that whoever makes an index holds.
    pub fn index_lock(&self, number: i64) -> Key {
        // Inputs are rarely so many, and then a worker only passes the index over.
        Key { class: self.extension, object: number as u32, part: u16::MAX - 1 }
    }

    /// Indexes that are to be made again, and that nobody makes.
    pub fn free_indexes(&self) -> Vec<i64> {
        let mut ready: Vec<i64> = self.rows("ready_indexes()", Vec::new);
        ready.retain(|number| self.index_lock(*number).is_free());
        ready
    }

    /// Begins to make an index, whose lock the caller holds; `None` when it is made by now.
    pub fn begin_index(&self, number: i64) -> Option<DroppedIndex> {
        self.rows("begin_index($1)", || vec![Parameter::int8(number)]).into_iter().next()
    }

    /// An index is made, in the current transaction.
    pub fn forget_index(&self, number: i64) {
        self.call("forget_index($1)", || vec![Parameter::int8(number)]);
    }

    /// Notes why an index could not be made, `for_good` that it would be the same the next time.
    pub fn fail_index(&self, number: i64, error: &str, for_good: bool) {
        self.call("fail_index($1, $2, $3)", || {
            vec![Parameter::int8(number), Parameter::string(error), Parameter::boolean(for_good)]
        });
    }

    /// Deletes the jobs of the database that was the template of this one. What they left outside of it is the other's.
    pub fn forget_others(&self) {
        self.call("forget_other_databases()", Vec::new);
    }

    /// Tasks that nobody works on, and of jobs with a limit that is not reached, the ones to be done first at the front. Those
    /// that took their worker down come last: they keep nobody else from their turn.
    pub fn free_tasks(&self, which: Which) -> Vec<OpenTask> {
        let suspect = match which {
            Which::Any => None,
            Which::Harmless => Some(false),
            Which::Suspect => Some(true),
        };
        let mut open: Vec<OpenTask> = self.rows("open_tasks($1)", || vec![Parameter::boolean_or_null(suspect)]);
        open.retain(|task| {
            let has_room = task.workers.is_none() || self.job_slots(task).any(|slot| slot.is_free());
            has_room && self.task_lock(task.key()).is_free()
        });
        open
    }

    /// Takes a task over, whose lock the caller holds; `None` when it is over by now, or somebody is about to end it:
    /// how long their transaction stays open is nobody else's business.
    pub fn begin(&self, task: (i64, i32)) -> Option<TaskRow> {
        self.rows("begin_task($1, $2, $3)", || of(task, [Parameter::int4(worker::pid())])).into_iter().next()
    }

    /// Notes what the current transaction adds to a task, `at_end` that it is the last; false when the task was
    /// cancelled meanwhile.
    pub fn advance(&self, task: (i64, i32), reached: &Reached, at_end: bool) -> bool {
        let Reached { stored, unchanged, lines, stream_bytes, stream_checksum, read_bytes, all_bytes } = *reached;
        let count = |count: u64| Parameter::int8(count as i64);
        self.is_done("advance_task($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)", || {
            let more = [
                count(stored),
                count(unchanged),
                count(lines),
                count(stream_bytes),
                count(stream_checksum.into()),
                count(read_bytes),
                Parameter::int8_or_null(all_bytes.map(|bytes| bytes as i64)),
                Parameter::boolean(at_end),
            ];
            of(task, more)
        })
    }

    /// Keeps a task from being ended until the current transaction is over; false when it was cancelled meanwhile.
    pub fn hold(&self, task: (i64, i32), read_bytes: u64, all_bytes: Option<u64>) -> bool {
        self.is_done("hold_task($1, $2, $3, $4)", || {
            let all_bytes = Parameter::int8_or_null(all_bytes.map(|bytes| bytes as i64));
            of(task, [Parameter::int8(read_bytes as i64), all_bytes])
        })
    }

    /// Notes that a task is done; false when it was cancelled meanwhile.
    pub fn finish(&self, task: (i64, i32), total: u64, result: &Value) -> bool {
        self.is_done("finish_task($1, $2, $3, $4::jsonb)", || {
            of(task, [Parameter::int8(total as i64), Parameter::string(&result.to_string())])
        })
    }

    /// Notes what the next worker of a task must know; false when the task was cancelled meanwhile.
    pub fn note(&self, task: (i64, i32), state: &Value) -> bool {
        self.is_done("note_task($1, $2, $3::jsonb)", || of(task, [Parameter::string(&state.to_string())]))
    }

    /// Notes how far others are with a task; false when it was cancelled meanwhile.
    pub fn mirror(&self, task: (i64, i32), elsewhere: &Elsewhere) -> bool {
        let Elsewhere { total, unchanged, read_bytes, all_bytes, at_end } = *elsewhere;
        let count = |count: u64| Parameter::int8(count as i64);
        self.is_done("mirror_task($1, $2, $3, $4, $5, $6, $7)", || {
            let all_bytes = Parameter::int8_or_null(all_bytes.map(|bytes| bytes as i64));
            of(task, [count(total), count(unchanged), count(read_bytes), all_bytes, Parameter::boolean(at_end)])
        })
    }

    /// How far a task is; `None` when it is no longer to be worked on.
    pub fn committed(&self, task: (i64, i32)) -> Option<Committed> {
        self.rows("committed_task($1, $2)", || of(task, [])).into_iter().next()
    }

    /// Ends a task that failed; false when it was over already.
    pub fn fail(&self, task: (i64, i32), error: &str) -> bool {
        self.is_done("fail_task($1, $2, $3)", || of(task, [Parameter::string(error)]))
    }

    /// Whether there are jobs whose tasks are all over, and nobody has said so.
    pub fn has_open_ends(&self) -> bool {
        !self.rows::<i64>("ended_jobs()", Vec::new).is_empty()
    }

    /// Ends the jobs whose tasks are all over, as failed when all of them failed.
    pub fn close_jobs(&self) {
        self.call("close_jobs()", Vec::new);
    }

    /// Tasks that failed or were cancelled, and whose worker is gone without having said that nothing is left of them.
    pub fn left_behind(&self) -> Vec<EndedTask> {
        let mut ended: Vec<EndedTask> = self.rows("left_behind()", Vec::new);
        ended.retain(|task| self.task_lock(task.key()).is_free());
        ended
    }

    /// Nothing is left of a task.
    pub fn forget_worker(&self, task: (i64, i32)) {
        self.call("forget_worker($1, $2)", || of(task, []));
    }

    /// Jobs of a kind that ended longer ago.
    pub fn expired(&self, kind: &str, minutes: i32) -> Vec<ExpiredJob> {
        self.rows("expired_jobs($1, $2)", || vec![Parameter::string(kind), Parameter::int4(minutes)])
    }

    /// Deletes a job and its tasks, unless somebody else is about to.
    pub fn delete(&self, number: i64) {
        self.call("delete_job($1)", || vec![Parameter::int8(number)]);
    }

    /// See [`own_tables::call`].
    pub fn call(&self, function: &str, parameters: impl FnOnce() -> Vec<Parameter>) {
        own_tables::call(self.owner, function, parameters);
    }

    /// See [`own_tables::rows`].
    pub fn rows<T: DeserializeOwned>(&self, function: &str, parameters: impl FnOnce() -> Vec<Parameter>) -> Vec<T> {
        own_tables::rows(self.owner, function, parameters)
    }

    /// Whether a function that returns true or NULL returned true.
    fn is_done(&self, function: &str, parameters: impl FnOnce() -> Vec<Parameter>) -> bool {
        !self.rows::<bool>(function, parameters).is_empty()
    }
}

/// A task, and what else there is to say.
fn of<const MORE: usize>((job, number): (i64, i32), more: [Parameter; MORE]) -> Vec<Parameter> {
    [Parameter::int8(job), Parameter::int4(number)].into_iter().chain(more).collect()
}
