//! The status of a submission, as HL7's BulkSubmitStatusManifest has it, and beside it what users of SQL want to know.

use super::apply;
use super::fetch;
use super::kept::{self, Counted, Submission};
use super::key::Key;
use crate::jobs::{Job, TaskState};
use fhir_bulk_codec::instant;
use fhir_bulk_pg::error::{Error, Result};
use pgrx::PgSqlErrorCode;
use serde_json::{Value, json};

const MANIFEST_TYPE: &str = "http://hl7.org/fhir/uv/bulkdata/StructureDefinition/BulkSubmitStatusManifest";
/// The end of the URLs of outcomes.
const EXTENSION: &str = ".ndjson";

/// The id of a request for a status: that of the job, and how many such requests were deleted before.
pub struct StatusId<'a> {
    pub job: &'a str,
    pub forgotten: i32,
}

impl<'a> StatusId<'a> {
    /// Reads `<job>.<number>`.
    pub fn parse(text: &'a str) -> Option<StatusId<'a>> {
        let (job, forgotten) = text.split_once('.')?;
        Some(StatusId { job, forgotten: forgotten.parse().ok()? })
    }
}

/// The outcomes that a URL means, `<status id>/<manifest>.ndjson` at its end.
///
/// # Errors
/// P0002 if it is no such URL.
pub fn outcomes_of(url: &str) -> Result<(StatusId<'_>, i32)> {
    let parts = || {
        let mut segments = url.split(['?', '#']).next()?.rsplit('/');
        let manifest = segments.next()?.strip_suffix(EXTENSION)?.parse().ok()?;
        Some((StatusId::parse(segments.next()?)?, manifest))
    };
    parts().ok_or_else(|| {
        let shown: String = url.chars().take(80).collect();
        Error::new(PgSqlErrorCode::ERRCODE_NO_DATA_FOUND, format!("there are no outcomes at \"{shown}\""))
    })
}

/// The status of a submission.
///
/// # Errors
/// What keeps its outcomes from being counted.
pub fn of(id: &str, submission: &Submission, job: &Job) -> Result<Value> {
    let (applying, manifests): (Vec<&TaskState>, Vec<&TaskState>) =
        job.tasks.iter().partition(|task| task.input["applies"] == true);
    let applying = applying.first().copied();
    let counted: Vec<_> = manifests.into_iter().filter(|task| task.status != "cancelled").collect();
    let status = match (job.status.as_str(), applying.map(|task| task.status.as_str())) {
        (_, Some("finished")) => "completed",
        (_, Some("failed")) | ("failed", _) => "failed",
        ("cancelled", _) => "stopped",
        _ if submission.open => "in-progress",
        _ => "processing",
    };
    let id = format!("{id}.{}", submission.forgotten);
    let key = Key::of(&job.request);
    let fetched = counted.iter().filter(|task| task.ended_at.is_some()).count();
    let left_out = counted.iter().filter(|task| task.status == "failed" || is_left_out(task)).count();
    let mut answer = json!({
        "id": id,
        "submitter": key.submitter,
        "submissionId": key.submission_id,
        "status": status,
        "createdAt": time(job.created_at),
        "manifests": counted.len(),
        "manifestsFetched": fetched,
        "manifestsLeftOut": left_out,
        "manifestType": MANIFEST_TYPE,
        "requiresAccessToken": true,
    });
    if let Some(at) = job.ended_at.or_else(|| applying.and_then(|task| task.ended_at)) {
        answer["completedAt"] = time(at).into();
        let applied = applying.and_then(|task| task.result.as_ref()?[apply::TIME].as_i64());
        answer["transactionTime"] = time(applied.unwrap_or(at)).into();
    }
    if let Some(task) = applying {
        let total = if status == "processing" { task.seen } else { task.total };
        answer["total"] = total.into();
        if let Some(unchanged) = task.result.as_ref().and_then(|result| result[apply::UNCHANGED].as_u64()) {
            answer[apply::UNCHANGED] = unchanged.into();
        }
        if let Some(error) = &task.error {
            answer["error"] = error.as_str().into();
        }
    }
    let said: Vec<Value> = counted.iter().flat_map(|task| metadata(task)).collect();
    if !said.is_empty() {
        answer["metadata"] = said.into();
    }
    let outcome = kept::outcome_counts(submission.job)?.into_iter().map(|Counted { manifest, url, count }| {
        json!({
            "url": format!("{id}/{manifest}{EXTENSION}"),
            "manifestUrl": url,
            "countSeverity": [{"code": "error", "count": count}],
        })
    });
    answer["outcome"] = outcome.collect();
    Ok(answer)
}

/// What the submitter has said of a manifest.
fn metadata(task: &TaskState) -> impl Iterator<Item = Value> {
    let of_manifest = |said: &Value| {
        json!({"manifestUrl": task.input["url"], "parameterUrl": said["parameterUrl"],
            "parameterValue": said["parameterValue"]})
    };
    task.input["metadata"].as_array().into_iter().flatten().map(of_manifest)
}

fn is_left_out(task: &TaskState) -> bool {
    task.result.as_ref().is_some_and(|result| result[fetch::LEFT_OUT] == true)
}

/// A time in UTC.
fn time(at: i64) -> String {
    instant::format(at, 0)
}
