//! The tables of jobs and their tasks: read and written as the extension's owner, whoever calls.

use super::rows::{Committed, EndedTask, ExpiredJob, Job, NewJob, Progress, TaskRow};
use super::settings_of_caller as caller;
use crate::extension::{self, Extension};
use crate::own_tables;
use crate::settings;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::lock::Key;
use fhir_bulk_pg::spi::Parameter;
use fhir_bulk_pg::{guc, session, transaction, worker};
use pgrx::{PgSqlErrorCode, pg_sys};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::hash::{DefaultHasher, Hash, Hasher};

/// How many open tasks are looked at at a time.
const LOOK_AHEAD: i64 = 1000;

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

/// Adds a job of the current role.
///
/// # Errors
/// 42710 when the role has a job of that id.
pub fn add(job: &NewJob<'_>) -> Result<()> {
    let (role, subject) = (session::role(), subject()?);
    let settings = caller::settings();
    let queue = Queue::of(extension::this_extension());
    let added: Vec<i64> = queue.rows(
        "INSERT INTO fhir_bulk_internal.bulk_job (number, kind, id, role, subject, database, request, settings) \
         VALUES (pg_catalog.hashtextextended(pg_catalog.gen_random_uuid()::pg_catalog.text, 0), \
         $1, $2, $3, $4, $5, $6::pg_catalog.jsonb, $7::pg_catalog.jsonb) \
         ON CONFLICT DO NOTHING RETURNING pg_catalog.to_jsonb(number)",
        || {
            vec![
                Parameter::string(job.kind),
                Parameter::string(job.id),
                Parameter::int8(role.to_u32().into()),
                Parameter::string_or_null(subject.as_deref()),
                Parameter::oid(session::database()),
                Parameter::string(&job.request.to_string()),
                Parameter::string(&settings.to_string()),
            ]
        },
    );
    let Some(number) = added.first() else {
        let message = format!("there is a bulk {} \"{}\" already", job.kind, job.id);
        return Err(Error::new(PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT, message)
            .hint("Choose another id, or leave it out and one is made."));
    };
    queue.execute(
        "INSERT INTO fhir_bulk_internal.bulk_job_task (job, number, input) \
         SELECT $1, t.number, t.input FROM pg_catalog.jsonb_array_elements($2::pg_catalog.jsonb) \
         WITH ORDINALITY AS t (input, number)",
        || vec![Parameter::int8(*number), Parameter::string(&Value::Array(job.inputs.to_vec()).to_string())],
    );
    Ok(())
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
    let (role, subject) = (session::role(), subject()?);
    let queue = Queue::of(extension::this_extension());
    queue.additions_lock(role, subject.as_deref()).wait_in_transaction();
    let unfinished: Vec<u32> = queue.rows(
        "SELECT pg_catalog.to_jsonb(pg_catalog.count(*)) FROM fhir_bulk_internal.bulk_job \
         WHERE kind OPERATOR(pg_catalog.=) $1 AND role OPERATOR(pg_catalog.=) $2::pg_catalog.oid \
         AND COALESCE(subject, '') OPERATOR(pg_catalog.=) COALESCE($3, '') \
         AND database OPERATOR(pg_catalog.=) $4 AND status OPERATOR(pg_catalog.=) 'active'",
        || {
            vec![
                Parameter::string(kind),
                Parameter::int8(role.to_u32().into()),
                Parameter::string_or_null(subject.as_deref()),
                Parameter::oid(session::database()),
            ]
        },
    );
    if unfinished.first().is_some_and(|count| *count < most) {
        return Ok(());
    }
    let message = format!("there are {most} unfinished {kind}s of this role already");
    Err(Error::new(PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, message).hint(format!(
        "Wait for one to end, or cancel one: SELECT * FROM bulk_jobs; shows them. A superuser can raise \
             fhir_bulk.max_{kind}s_per_role."
    )))
}

/// A job of the current role, and of its token's `sub` if it has one.
///
/// # Errors
/// Those of [`subject`].
pub fn find(kind: &str, id: &str) -> Result<Option<Job>> {
    let queue = Queue::of(extension::this_extension());
    let micros = |column: &str| {
        format!(
            "(pg_catalog.date_part('epoch', {column}) OPERATOR(pg_catalog.-) 946684800) OPERATOR(pg_catalog.*) 1000000"
        )
    };
    let micros = |column: &str| format!("'{column}', pg_catalog.round(({})::pg_catalog.numeric)", micros(column));
    let statement = format!(
        "SELECT pg_catalog.jsonb_build_object('id', id, 'request', request, 'status', status, {}, {}, 'tasks', \
            (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('input', input, 'status', status, \
                'total', total, 'seen', GREATEST(total, p.param3), 'read_bytes', GREATEST(read_bytes, p.param1), \
                'all_bytes', CASE WHEN p.param2 OPERATOR(pg_catalog.>) 0 THEN p.param2 ELSE all_bytes END, \
                {}, {}, {}, 'error', error, 'result', result) ORDER BY number) \
             FROM fhir_bulk_internal.bulk_job_task LEFT JOIN pg_catalog.pg_stat_get_progress_info('COPY') p \
             ON p.datid OPERATOR(pg_catalog.=) {}::pg_catalog.oid AND p.param19 OPERATOR(pg_catalog.=) job \
             AND p.param20 OPERATOR(pg_catalog.=) number AND status OPERATOR(pg_catalog.=) 'active' \
             WHERE job OPERATOR(pg_catalog.=) j.number)) \
         FROM fhir_bulk_internal.bulk_job j WHERE {OWN} ORDER BY created_at DESC LIMIT 1",
        micros("created_at"),
        micros("ended_at"),
        micros("started_at"),
        micros("changed_at"),
        micros("ended_at"),
        session::database().to_u32(),
    );
    Ok(queue.rows(&statement, own(kind, id)?).into_iter().next())
}

/// What the first task of a job works on, whoever's it is: for kinds whose ids are random, and known to no one else.
pub fn input(kind: &str, id: &str) -> Option<Value> {
    let statement = "SELECT t.input FROM fhir_bulk_internal.bulk_job j JOIN fhir_bulk_internal.bulk_job_task t \
         ON t.job OPERATOR(pg_catalog.=) j.number AND t.number OPERATOR(pg_catalog.=) 1 \
         WHERE j.kind OPERATOR(pg_catalog.=) $1 AND j.id OPERATOR(pg_catalog.=) $2 \
         AND j.database OPERATOR(pg_catalog.=) $3";
    let parameters = || vec![Parameter::string(kind), Parameter::string(id), Parameter::oid(session::database())];
    Queue::of(extension::this_extension()).rows(statement, parameters).into_iter().next()
}

/// Ends a job of the current role where it stands: nothing more of it is committed once this transaction is. False when
/// there is none that is still active.
///
/// # Errors
/// Those of [`subject`].
pub fn cancel(kind: &str, id: &str) -> Result<bool> {
    let queue = Queue::of(extension::this_extension());
    let cancelled: Vec<i64> = queue.rows(
        &format!(
            "UPDATE fhir_bulk_internal.bulk_job j SET status = 'cancelled', ended_at = pg_catalog.clock_timestamp() \
             WHERE {OWN} AND status OPERATOR(pg_catalog.=) 'active' \
             AND EXISTS (SELECT FROM fhir_bulk_internal.bulk_job_task WHERE job OPERATOR(pg_catalog.=) j.number AND {OPEN}) \
             RETURNING pg_catalog.to_jsonb(number)"
        ),
        own(kind, id)?,
    );
    for number in &cancelled {
        let tasks: Vec<(i32, Option<i32>)> = queue.rows(
            &format!(
                "UPDATE fhir_bulk_internal.bulk_job_task SET status = 'cancelled', changed_at = pg_catalog.clock_timestamp(), \
                 ended_at = pg_catalog.clock_timestamp() \
                 WHERE job OPERATOR(pg_catalog.=) $1 AND {OPEN} \
                 RETURNING pg_catalog.jsonb_build_array(number, worker)"
            ),
            || vec![Parameter::int8(*number)],
        );
        for (task, worker) in tasks {
            let (lock, Some(pid)) = (queue.task_lock((*number, task)), worker) else { continue };
            // The number of a worker that has died may be another process's by now.
            transaction::at_commit(move || {
                if !lock.is_free() {
                    worker::interrupt(pid);
                }
            });
        }
    }
    Ok(!cancelled.is_empty())
}

/// Takes back a job of the current role that has ended: it counts as cancelled, and what it made is a worker's to remove.
/// False when there is none, or none that made anything.
///
/// # Errors
/// Those of [`subject`].
pub fn discard(kind: &str, id: &str) -> Result<bool> {
    let queue = Queue::of(extension::this_extension());
    // A task with a worker that no longer lives has something left of it.
    let discarded: Vec<i64> = queue.rows(
        &format!(
            "WITH job AS (UPDATE fhir_bulk_internal.bulk_job SET status = 'cancelled' WHERE {OWN} \
             AND (status OPERATOR(pg_catalog.=) 'finished' OR status OPERATOR(pg_catalog.=) 'failed') RETURNING number) \
             UPDATE fhir_bulk_internal.bulk_job_task t SET status = 'cancelled', worker = 0 FROM job \
             WHERE t.job OPERATOR(pg_catalog.=) job.number RETURNING pg_catalog.to_jsonb(t.number)"
        ),
        own(kind, id)?,
    );
    Ok(!discarded.is_empty())
}

/// Forgets a job of the current role that ended longer ago than so many minutes, so that its id can be taken again. For
/// kinds of jobs that leave nothing outside of the database; others are forgotten by workers.
///
/// # Errors
/// Those of [`subject`].
pub fn forget_expired(kind: &str, id: &str, minutes: i32) -> Result<()> {
    let own = own(kind, id)?;
    Queue::of(extension::this_extension()).execute(
        &format!(
            "DELETE FROM fhir_bulk_internal.bulk_job WHERE {OWN} AND COALESCE(subject, '') OPERATOR(pg_catalog.=) COALESCE($4, '') \
             AND ended_at OPERATOR(pg_catalog.<) (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) \
             pg_catalog.make_interval(mins => $6::pg_catalog.int4))"
        ),
        || own().into_iter().chain([Parameter::int8(minutes.into())]).collect(),
    );
    Ok(())
}

/// Which jobs are the caller's: kind, id, role, sub and database are the first parameters.
const OWN: &str = "kind OPERATOR(pg_catalog.=) $1 AND id OPERATOR(pg_catalog.=) $2 \
    AND role OPERATOR(pg_catalog.=) $3::pg_catalog.oid AND COALESCE(subject OPERATOR(pg_catalog.=) $4, $4 IS NULL) \
    AND database OPERATOR(pg_catalog.=) $5";
/// Which tasks are not over.
const OPEN: &str = "(status OPERATOR(pg_catalog.=) 'waiting' OR status OPERATOR(pg_catalog.=) 'active')";

fn own(kind: &str, id: &str) -> Result<impl Fn() -> Vec<Parameter>> {
    let (role, subject) = (session::role(), subject()?);
    Ok(move || {
        vec![
            Parameter::string(kind),
            Parameter::string(id),
            Parameter::int8(role.to_u32().into()),
            Parameter::string_or_null(subject.as_deref()),
            Parameter::oid(session::database()),
        ]
    })
}

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
    fn additions_lock(&self, role: pg_sys::Oid, subject: Option<&str>) -> Key {
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
    fn execute(&self, statement: &str, parameters: impl Fn() -> Vec<Parameter>) -> u64 {
        own_tables::execute(self.owner, statement, parameters)
    }

    /// Runs a query whose only column is jsonb.
    fn rows<T: DeserializeOwned>(&self, query: &str, parameters: impl Fn() -> Vec<Parameter>) -> Vec<T> {
        let texts = own_tables::texts(self.owner, query, parameters);
        texts.iter().map(|text| serde_json::from_str(text).expect("the shape that the query makes")).collect()
    }
}
