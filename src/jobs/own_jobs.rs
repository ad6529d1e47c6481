//! The jobs of a role, and of its token's `sub`: asked for, shown, ended by it. The tables are read and written as the
//! extension's owner.

use super::queue::{OPEN, Queue};
use super::rows::{Job, NewJob};
use super::settings_of_caller as caller;
use crate::extension;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::spi::Parameter;
use fhir_bulk_pg::{guc, session, transaction, worker};
use pgrx::PgSqlErrorCode;
use serde_json::Value;

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
