//! `bulk_import`: loads NDJSON from many sources in the background, like Aidbox's `$import`.

mod account;
mod indexes;
mod inputs;
mod members;
mod names;
mod new_files;
mod on_nodes;
mod request;
mod run;
mod status;

use crate::arguments::{parsed, required};
use crate::jobs::{self, Kind, NewJob};
use crate::settings;
use fhir_bulk_pg::datum::JsonbBytes;
use fhir_bulk_pg::error::{Error, Result, or_raise};
use fhir_bulk_pg::session;
use inputs::Inputs;
use pgrx::prelude::*;
use pgrx::{JsonB, PgSqlErrorCode, default};
use request::{NAME, Request};
use serde_json::{Value, json};
use std::time::Duration;

/// The longest wait for the end of an import, in seconds.
const MOST_WAIT: f64 = 86_400.0;
/// How workers run these jobs.
pub const KIND: Kind = Kind {
    name: NAME,
    run: run::run,
    forget: |_| Ok(true),
    call_off: on_nodes::call_off,
    restore: indexes::restore,
    retention_minutes: settings::job_retention_minutes,
    expire: new_files::forget_dropped_roles,
};

/// Adds an import job, which starts when the transaction commits. Returns the job's id.
#[pg_extern(volatile, parallel_unsafe)]
fn bulk_import(request: Option<JsonbBytes<'_>>, fhir: default!(Option<bool>, "false")) -> String {
    or_raise(import(request, fhir))
}

/// Returns the progress of an import of the caller.
#[pg_extern(stable, parallel_unsafe)]
fn bulk_import_status(id: Option<&str>) -> JsonB {
    JsonB(or_raise(required(id, "id").and_then(status)))
}

/// Waits until an import of the caller has ended, at most so many seconds. Returns its progress then.
#[pg_extern(volatile, parallel_unsafe)]
fn bulk_import_wait(id: Option<&str>, seconds: default!(Option<f64>, "60")) -> JsonB {
    JsonB(or_raise(required(id, "id").and_then(|id| {
        let seconds = required(seconds, "seconds")?;
        let seconds = if seconds.is_nan() { 0.0 } else { seconds.clamp(0.0, MOST_WAIT) };
        jobs::wake();
        jobs::wait_for_end(NAME, id, Duration::from_secs_f64(seconds))?;
        status(id)
    })))
}

/// Cancels an import of the caller. What it has committed stays. False if it is not active.
#[pg_extern(volatile, parallel_unsafe)]
fn bulk_import_cancel(id: Option<&str>) -> bool {
    session::prevent_if_read_only(c"bulk_import_cancel()");
    or_raise(required(id, "id").and_then(|id| {
        on_nodes::call_off_all(id)?;
        jobs::cancel(NAME, id)
    }))
}

/// 1. check the arguments and that the transaction may write
/// 2. add the job
/// 3. add its inputs, and list what they mean: now, with the caller's rights
fn import(request: Option<JsonbBytes<'_>>, fhir: Option<bool>) -> Result<String> {
    session::prevent_if_read_only(c"bulk_import()");
    let request = Request::parse(parsed(request, "request")?, required(fhir, "fhir")?)?;
    jobs::forget_expired(NAME, &request.id, settings::job_retention_minutes())?;
    let mut job = jobs::add(&NewJob { kind: NAME, id: &request.id, request: &json!(request), inputs: &[] })?;
    if let Some(workers) = on_nodes::limit(&request).or(request.workers) {
        job.limit(workers);
    }
    if let Some(account) = &request.reach.account {
        job.keep(&account::secret(&account.keys));
    }
    let mut inputs = Inputs::of(&mut job, &request)?;
    request.inputs.iter().try_for_each(|asked| inputs.add(asked))?;
    inputs.finish()?;
    Ok(request.id)
}

fn status(id: &str) -> Result<Value> {
    jobs::wake();
    let job = jobs::find(NAME, id)?.ok_or_else(|| {
        let shown: String = id.chars().take(80).collect();
        Error::new(PgSqlErrorCode::ERRCODE_NO_DATA_FOUND, format!("there is no import \"{shown}\""))
            .hint("SELECT * FROM bulk_jobs; shows your jobs.")
    })?;
    Ok(status::of(id, job))
}
