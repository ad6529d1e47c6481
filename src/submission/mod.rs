//! `bulk_submit`: takes submissions, as the Data Consumer of HL7's Bulk Data Access does in the ballot of version 4. A
//! submission has manifests; each is fetched in the background at once, and its lines are checked and staged. When the
//! submission is completed, and all of its manifests are fetched, everything is applied in one transaction.

mod agreed;
mod apply;
mod credentials;
mod fetch;
mod kept;
mod key;
mod manifest;
mod oauth;
mod object;
mod outcome;
mod parameters;
mod request;
mod stage;
mod status;

use crate::arguments::{parsed, required};
use crate::jobs::{self, Kind, Task};
use crate::settings;
use fhir_bulk_pg::datum::{Bytea, JsonbBytes};
use fhir_bulk_pg::error::{Error, Result, or_raise};
use fhir_bulk_pg::session;
use kept::Submission;
use key::{Key, NAME};
use pgrx::prelude::*;
use pgrx::{JsonB, PgSqlErrorCode};
use request::{Input, Request, Status, Wanted};
use serde::Deserialize;
use serde_json::{Value, json};
use status::StatusId;

/// How workers run these jobs.
pub const KIND: Kind = Kind {
    name: NAME,
    run,
    forget: |_| Ok(true),
    call_off: |_| Ok(true),
    restore: |_| (),
    retention_minutes: settings::job_retention_minutes,
    expire: kept::expire,
};
/// The most manifests of a submission: a status shows all.
const MOST_MANIFESTS: u64 = 900;

/// Takes a request about a submission of the caller. Returns its status.
#[pg_extern(volatile, parallel_unsafe)]
fn bulk_submit(request: Option<JsonbBytes<'_>>) -> JsonB {
    session::prevent_if_read_only(c"bulk_submit()");
    JsonB(or_raise(parsed(request, "request").and_then(submit)))
}

/// Returns the status of a submission of the caller.
#[pg_extern(stable, parallel_unsafe)]
fn bulk_submit_status(request: Option<JsonbBytes<'_>>) -> JsonB {
    JsonB(or_raise(parsed(request, "request").and_then(wanted_status)))
}

/// Deletes the request for a status, by the id that the status has: then this id is not found, and the next request gets
/// another one. False if there is none. The submission goes on.
#[pg_extern(volatile, parallel_unsafe)]
fn bulk_submit_status_cancel(id: Option<&str>) -> bool {
    session::prevent_if_read_only(c"bulk_submit_status_cancel()");
    or_raise(required(id, "id").and_then(cancel_status))
}

/// Returns the OperationOutcomes at a URL of a status, as NDJSON.
#[pg_extern(stable, parallel_unsafe)]
fn bulk_submit_outcomes(url: Option<&str>) -> SetOfIterator<'static, Bytea> {
    let (job, manifest) = or_raise(required(url, "url").and_then(outcomes));
    let (mut file, mut number) = (-1, 0);
    SetOfIterator::new(std::iter::from_fn(move || {
        let next = or_raise(kept::outcomes_after((job, manifest), file, number))?;
        (file, number) = (next.file, next.number);
        Some(Bytea::new(next.lines.as_bytes()))
    }))
}

/// 1. check the request
/// 2. find the token endpoint of its source, if it names metadata
/// 3. find the submission, or begin it
/// 4. take back the manifest that another one replaces
/// 5. add the manifest
/// 6. complete or stop it
fn submit(request: Value) -> Result<Value> {
    let mut request = Request::parse(request)?;
    // Nobody waits for a lock of this one's meanwhile.
    if let Some(input) = request.manifest.as_mut().filter(|_| !request.metadata_urls.is_empty()) {
        let terms = input.terms(&[])?;
        input.token_endpoint = Some(oauth::endpoint(&request.key.submitter, &request.metadata_urls, &terms)?);
    }
    let id = request.key.id();
    jobs::wait_for_additions()?;
    let job = match kept::lock(&id)? {
        Some(known) if known.expired => {
            kept::delete(known.job)?;
            begin(&request)?
        }
        Some(known) if known.open && known.status == "active" => known.job,
        Some(known) => return Err(ended(&request.key, &known)),
        None => begin(&request)?,
    };
    kept::touch(job)?;
    if let Some(url) = &request.replaces {
        let known = kept::manifest_with(job, url)?.filter(|(_, counts)| *counts);
        let (number, _) = known.ok_or_else(|| {
            Error::invalid_argument("\"replacesManifestUrl\" of the request is no manifest of the submission")
                .detail("A manifest that was replaced before is none any more.")
        })?;
        jobs::withdraw_task(job, number);
        kept::delete_manifests(job, Some(number))?;
    }
    if let Some(input) = &request.manifest {
        add(job, input, &request.headers)?;
    }
    match request.status {
        Status::InProgress => {}
        Status::Completed => jobs::close(job),
        Status::Stopped => {
            jobs::cancel_job(job);
            kept::delete_manifests(job, None)?;
        }
    }
    let mut answer = status_of(&id, None)?.ok_or_else(|| unknown(&request.key))?;
    if !request.ignored.is_empty() {
        answer["ignored"] = request.ignored.into();
    }
    Ok(answer)
}

/// Begins a submission, unless it would end with this request, without anything in it.
fn begin(request: &Request) -> Result<i64> {
    if request.manifest.is_none() && (request.status != Status::InProgress || request.replaces.is_some()) {
        return Err(unknown(&request.key));
    }
    // What has expired does not count.
    kept::expire();
    jobs::check_limit(NAME, settings::submissions::most_per_role())?;
    kept::add(&request.key)
}

fn add(job: i64, input: &Input, headers: &[(String, String)]) -> Result<()> {
    if kept::manifest_with(job, &input.url)?.is_some() {
        let message = "\"manifestUrl\" of the request is a manifest of the submission already";
        return Err(Error::new(PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT, message)
            .detail("Each manifest of a submission has a URL of its own, also one that replaces another."));
    }
    kept::check_staged(job)?;
    let number = kept::add_manifest(job, &json!(input), headers)?;
    // The first task is the one that applies the submission.
    if u64::from(number.unsigned_abs()) > MOST_MANIFESTS + 1 {
        let message = format!("the submission has more than {MOST_MANIFESTS} manifests");
        return Err(Error::new(PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED, message));
    }
    Ok(())
}

fn wanted_status(request: Value) -> Result<Value> {
    jobs::wake();
    match Wanted::parse(request)? {
        Wanted::Key(key) => status_of(&key.id(), None)?.ok_or_else(|| unknown(&key)),
        Wanted::Id(id) => {
            let StatusId { job, forgotten } = StatusId::parse(&id).ok_or_else(|| no_status(&id))?;
            status_of(job, Some(forgotten))?.ok_or_else(|| no_status(&id))
        }
    }
}

/// The status of a submission; `None` if there is none, or if not just that many requests for it were deleted.
///
/// # Errors
/// Those of reading it.
fn status_of(id: &str, forgotten: Option<i32>) -> Result<Option<Value>> {
    let Some(found) = kept::find(id)? else { return Ok(None) };
    if found.expired {
        // It removes what has expired.
        jobs::start_worker();
        return Ok(None);
    }
    if forgotten.is_some_and(|forgotten| forgotten != found.forgotten) {
        return Ok(None);
    }
    jobs::find(NAME, id)?.map(|job| status::of(id, &found, &job)).transpose()
}

fn cancel_status(id: &str) -> Result<bool> {
    let Some(StatusId { job, forgotten }) = StatusId::parse(id) else { return Ok(false) };
    match kept::lock(job)? {
        Some(known) if !known.expired => kept::forget_status(known.job, forgotten),
        _ => Ok(false),
    }
}

/// The submission's job and the manifest that a URL is about.
fn outcomes(url: &str) -> Result<(i64, i32)> {
    let (StatusId { job, forgotten }, manifest) = status::outcomes_of(url)?;
    let found = kept::find(job)?.filter(|found| !found.expired && found.forgotten == forgotten);
    found.map(|found| (found.job, manifest)).ok_or_else(|| no_status(job))
}

fn unknown(key: &Key) -> Error {
    let message = format!("there is no submission \"{}\" of this submitter", shown(&key.submission_id));
    Error::new(PgSqlErrorCode::ERRCODE_NO_DATA_FOUND, message).hint("SELECT * FROM bulk_jobs; shows your jobs.")
}

fn no_status(id: &str) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_NO_DATA_FOUND, format!("there is no status \"{}\" of a submission", shown(id)))
}

fn ended(key: &Key, known: &Submission) -> Error {
    let how = match known.status.as_str() {
        "cancelled" => "was stopped",
        "failed" => "has failed",
        _ => "is completed",
    };
    let message = format!("submission \"{}\" {how}", shown(&key.submission_id));
    Error::new(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message)
        .detail("It takes no further requests.")
        .hint("Begin a submission with another submissionId.")
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Runs a task: it fetches a manifest, or applies the submission.
fn run(task: &Task) -> std::result::Result<(), String> {
    match Input::deserialize(&task.row().input) {
        Ok(input) => fetch::run(task, &input),
        Err(_) => apply::run(task),
    }
}
