//! The tables of jobs and their tasks as workers use them: read and written as the extension's owner.

use super::rows::{Committed, EndedTask, ExpiredJob, Progress, TaskRow};
use crate::extension::Extension;
use crate::own_tables;
use crate::settings;
use fhir_bulk_pg::lock::Key;
use fhir_bulk_pg::spi::Parameter;
use fhir_bulk_pg::{session, worker};
use pgrx::pg_sys;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::hash::{DefaultHasher, Hash, Hasher};

/// How many open tasks are looked at at a time.
const LOOK_AHEAD: i64 = 1000;

/// Which tasks are not over.
pub const OPEN: &str = "(status OPERATOR(pg_catalog.=) 'waiting' OR status OPERATOR(pg_catalog.=) 'active')";

/// How many processes in a row have begun a task and ended without committing any of it, when it is known that it was not by
/// chance: it may take the server down, and all that are at work on other tasks with it.
const SUSPECT_STARTS: i32 = 2;

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
        // Numbers are random: two rarely share their lower half, and then their tasks only wait for each other. Inputs are
        // limited to less than 2¹⁶.
        Key { class: self.extension, object: job as u32, part: number as u16 }
    }

    /// The lock that whoever adds a job to a limited number of them holds.
    pub fn additions_lock(&self, role: pg_sys::Oid, subject: Option<&str>) -> Key {
        // Should it be some task's as well, or of two at once, one waits a little more.
        let mut hasher = DefaultHasher::new();
        (role.to_u32(), subject.unwrap_or_default()).hash(&mut hasher);
        Key { class: self.extension, object: hasher.finish() as u32, part: u16::MAX }
    }

    /// Deletes the jobs of the database that was the template of this one. What they left outside of it is the other's.
    pub fn forget_others(&self) {
        self.execute("DELETE FROM fhir_bulk_internal.bulk_job WHERE database OPERATOR(pg_catalog.<>) $1", || {
            vec![Parameter::oid(session::database())]
        });
    }

    /// Tasks that nobody works on, the ones to be done first at the front. Those that took their worker down come last: they
    /// keep nobody else from their turn.
    pub fn free_tasks(&self, which: Which) -> Vec<(i64, i32)> {
        let starts = match which {
            Which::Any => String::new(),
            Which::Harmless => format!("AND t.starts OPERATOR(pg_catalog.<) {SUSPECT_STARTS}"),
            Which::Suspect => format!("AND t.starts OPERATOR(pg_catalog.>=) {SUSPECT_STARTS}"),
        };
        let mut open: Vec<(i64, i32)> = self.rows(
            &format!(
                "SELECT pg_catalog.jsonb_build_array(t.job, t.number) FROM fhir_bulk_internal.bulk_job j JOIN fhir_bulk_internal.bulk_job_task t \
                 ON t.job OPERATOR(pg_catalog.=) j.number WHERE j.status OPERATOR(pg_catalog.=) 'active' \
                 AND (t.status OPERATOR(pg_catalog.=) 'waiting' OR t.status OPERATOR(pg_catalog.=) 'active') {starts} \
                 ORDER BY t.starts, j.created_at, t.job, t.number LIMIT {LOOK_AHEAD}"
            ),
            Vec::new,
        );
        open.retain(|key| self.task_lock(*key).is_free());
        open
    }

    /// Takes a task over, whose lock the caller holds; `None` when it is over by now, or somebody is about to end it:
    /// how long their transaction stays open is nobody else's business.
    pub fn begin(&self, (job, number): (i64, i32)) -> Option<TaskRow> {
        let statement = format!(
            "UPDATE fhir_bulk_internal.bulk_job_task t SET status = 'active', worker = {}, \
             starts = starts OPERATOR(pg_catalog.+) 1, \
             started_at = COALESCE(started_at, pg_catalog.clock_timestamp()), \
             changed_at = pg_catalog.clock_timestamp() FROM (SELECT j.* FROM fhir_bulk_internal.bulk_job j \
             JOIN fhir_bulk_internal.bulk_job_task t ON t.job OPERATOR(pg_catalog.=) j.number \
             WHERE j.number OPERATOR(pg_catalog.=) $1 AND j.status OPERATOR(pg_catalog.=) 'active' \
             AND t.number OPERATOR(pg_catalog.=) $2 AND (t.status OPERATOR(pg_catalog.=) 'waiting' \
             OR t.status OPERATOR(pg_catalog.=) 'active') FOR UPDATE OF t SKIP LOCKED) j \
             WHERE t.job OPERATOR(pg_catalog.=) $1 AND t.number OPERATOR(pg_catalog.=) $2 \
             RETURNING pg_catalog.to_jsonb(t) OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object('kind', j.kind, \
             'id', j.id, 'role', j.role::pg_catalog.int8, 'request', j.request, 'settings', j.settings, 'tasks', \
             (SELECT pg_catalog.count(*) FROM fhir_bulk_internal.bulk_job_task WHERE job OPERATOR(pg_catalog.=) j.number))",
            worker::pid()
        );
        self.rows(&statement, || vec![Parameter::int8(job), Parameter::int8(number.into())]).into_iter().next()
    }

    /// Notes what the current transaction adds to a task, `at_end` that it is the last; false when the task was
    /// cancelled meanwhile.
    pub fn advance(&self, (job, number): (i64, i32), progress: &Progress, at_end: bool) -> bool {
        let statement = format!(
            "UPDATE fhir_bulk_internal.bulk_job_task SET total = total OPERATOR(pg_catalog.+) $3, lines = $4, stream_bytes = $5, \
             stream_checksum = $6, read_bytes = $7, all_bytes = $8, starts = 0, changed_at = pg_catalog.clock_timestamp(){} \
             WHERE job OPERATOR(pg_catalog.=) $1 AND number OPERATOR(pg_catalog.=) $2 \
             AND status OPERATOR(pg_catalog.=) 'active'",
            if at_end { ", status = 'finished', ended_at = pg_catalog.clock_timestamp()" } else { "" }
        );
        let Progress { stored, lines, stream_bytes, stream_checksum, read_bytes, .. } = *progress;
        let counts = [stored, lines, stream_bytes, stream_checksum.into(), read_bytes];
        let all = progress.all_bytes.map(|bytes| bytes as i64);
        let touched = self.execute(&statement, || {
            let counts = counts.iter().map(|count| Parameter::int8(*count as i64));
            [Parameter::int8(job), Parameter::int8(number.into())]
                .into_iter()
                .chain(counts)
                .chain([Parameter::int8_or_null(all)])
                .collect()
        });
        touched == 1
    }

    /// Notes that a task is done; false when it was cancelled meanwhile.
    pub fn finish(&self, (job, number): (i64, i32), total: u64, result: &Value) -> bool {
        let touched = self.execute(
            "UPDATE fhir_bulk_internal.bulk_job_task SET total = $3, result = $4::pg_catalog.jsonb, status = 'finished', \
             changed_at = pg_catalog.clock_timestamp(), ended_at = pg_catalog.clock_timestamp() \
             WHERE job OPERATOR(pg_catalog.=) $1 AND number OPERATOR(pg_catalog.=) $2 \
             AND status OPERATOR(pg_catalog.=) 'active'",
            || {
                let (job, number) = (Parameter::int8(job), Parameter::int8(number.into()));
                vec![job, number, Parameter::int8(total as i64), Parameter::string(&result.to_string())]
            },
        );
        touched == 1
    }

    /// How far a task is; `None` when it is no longer to be worked on.
    pub fn committed(&self, (job, number): (i64, i32)) -> Option<Committed> {
        let found = self.rows(
            "SELECT pg_catalog.to_jsonb(t) FROM fhir_bulk_internal.bulk_job_task t WHERE job OPERATOR(pg_catalog.=) $1 \
             AND number OPERATOR(pg_catalog.=) $2 AND status OPERATOR(pg_catalog.=) 'active'",
            || vec![Parameter::int8(job), Parameter::int8(number.into())],
        );
        found.into_iter().next()
    }

    /// Ends a task that failed; false when it was over already.
    pub fn fail(&self, (job, number): (i64, i32), error: &str) -> bool {
        let touched = self.execute(
            "UPDATE fhir_bulk_internal.bulk_job_task SET status = 'failed', error = $3, changed_at = pg_catalog.clock_timestamp(), \
             ended_at = pg_catalog.clock_timestamp() WHERE job OPERATOR(pg_catalog.=) $1 \
             AND number OPERATOR(pg_catalog.=) $2 AND status OPERATOR(pg_catalog.=) 'active'",
            || vec![Parameter::int8(job), Parameter::int8(number.into()), Parameter::string(error)],
        );
        touched == 1
    }

    /// Whether there are jobs whose tasks are all over, and nobody has said so.
    pub fn has_open_ends(&self) -> bool {
        let found: Vec<bool> = self.rows(
            &format!(
                "SELECT pg_catalog.to_jsonb(true) FROM fhir_bulk_internal.bulk_job j WHERE status OPERATOR(pg_catalog.=) 'active' \
                 AND NOT EXISTS (SELECT FROM fhir_bulk_internal.bulk_job_task WHERE job OPERATOR(pg_catalog.=) j.number AND {OPEN}) \
                 LIMIT 1"
            ),
            Vec::new,
        );
        !found.is_empty()
    }

    /// Ends the jobs whose tasks are all over, as failed when all of them failed.
    pub fn close_jobs(&self) {
        self.execute(
            &format!(
                "UPDATE fhir_bulk_internal.bulk_job j SET ended_at = pg_catalog.clock_timestamp(), status = CASE WHEN EXISTS \
                 (SELECT FROM fhir_bulk_internal.bulk_job_task WHERE job OPERATOR(pg_catalog.=) j.number \
                  AND status OPERATOR(pg_catalog.=) 'finished') THEN 'finished' ELSE 'failed' END \
                 FROM (SELECT number FROM fhir_bulk_internal.bulk_job j WHERE status OPERATOR(pg_catalog.=) 'active' AND NOT EXISTS \
                 (SELECT FROM fhir_bulk_internal.bulk_job_task WHERE job OPERATOR(pg_catalog.=) j.number AND {OPEN}) \
                 FOR UPDATE SKIP LOCKED) done WHERE j.number OPERATOR(pg_catalog.=) done.number"
            ),
            Vec::new,
        );
    }

    /// Tasks that failed or were cancelled, and whose worker is gone without having said that nothing is left of them.
    pub fn left_behind(&self) -> Vec<EndedTask> {
        let mut ended: Vec<EndedTask> = self.rows(
            &format!(
                "SELECT pg_catalog.jsonb_build_object('job', t.job, 'number', t.number, 'kind', j.kind, 'input', t.input) \
                 FROM fhir_bulk_internal.bulk_job_task t JOIN fhir_bulk_internal.bulk_job j ON j.number OPERATOR(pg_catalog.=) t.job \
                 WHERE t.worker IS NOT NULL AND (t.status OPERATOR(pg_catalog.=) 'failed' \
                 OR t.status OPERATOR(pg_catalog.=) 'cancelled') ORDER BY t.job, t.number LIMIT {LOOK_AHEAD}"
            ),
            Vec::new,
        );
        ended.retain(|task| self.task_lock(task.key()).is_free());
        ended
    }

    /// Nothing is left of a task.
    pub fn forget_worker(&self, (job, number): (i64, i32)) {
        self.execute(
            "UPDATE fhir_bulk_internal.bulk_job_task SET worker = NULL WHERE job OPERATOR(pg_catalog.=) $1 \
             AND number OPERATOR(pg_catalog.=) $2",
            || vec![Parameter::int8(job), Parameter::int8(number.into())],
        );
    }

    /// Jobs of a kind that ended longer ago.
    pub fn expired(&self, kind: &str, minutes: i32) -> Vec<ExpiredJob> {
        self.rows(
            &format!(
                "SELECT pg_catalog.jsonb_build_object('number', number, 'inputs', (SELECT pg_catalog.jsonb_agg(input) \
                 FROM fhir_bulk_internal.bulk_job_task WHERE job OPERATOR(pg_catalog.=) j.number)) FROM fhir_bulk_internal.bulk_job j \
                 WHERE kind OPERATOR(pg_catalog.=) $1 AND ended_at OPERATOR(pg_catalog.<) \
                 (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) \
                 pg_catalog.make_interval(mins => $2::pg_catalog.int4)) ORDER BY ended_at LIMIT {LOOK_AHEAD}"
            ),
            || vec![Parameter::string(kind), Parameter::int8(minutes.into())],
        )
    }

    /// Deletes a job and its tasks, unless somebody else is about to.
    pub fn delete(&self, number: i64) {
        self.execute(
            "DELETE FROM fhir_bulk_internal.bulk_job WHERE number OPERATOR(pg_catalog.=) \
             (SELECT number FROM fhir_bulk_internal.bulk_job WHERE number OPERATOR(pg_catalog.=) $1 FOR UPDATE SKIP LOCKED)",
            || vec![Parameter::int8(number)],
        );
    }

    /// Runs a statement; how many rows it touched.
    pub fn execute(&self, statement: &str, parameters: impl Fn() -> Vec<Parameter>) -> u64 {
        own_tables::execute(self.owner, statement, parameters)
    }

    /// Runs a query whose only column is jsonb.
    pub fn rows<T: DeserializeOwned>(&self, query: &str, parameters: impl Fn() -> Vec<Parameter>) -> Vec<T> {
        let texts = own_tables::texts(self.owner, query, parameters);
        texts.iter().map(|text| serde_json::from_str(text).expect("the shape that the query makes")).collect()
    }
}
