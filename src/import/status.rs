//! The status of an import, as Aidbox's `BulkImportStatus`.

use super::request::{Input, Request, kept};
use crate::jobs::{Job, Sums, TaskState};
use fhir_bulk_codec::instant;
use fhir_bulk_pg::session;
use serde_json::{Value, json};

/// The status of an import.
pub fn of(id: &str, job: Job) -> Value {
    let request: Request = kept(job.request);
    let mut status = json!({
        "resourceType": "BulkImportStatus",
        "id": id,
        "type": if request.fhir { "fhir" } else { "aidbox" },
        "contentEncoding": request.content_encoding.as_deref().unwrap_or("plain"),
        "mode": if request.transaction { "transaction" } else { "bulk" },
        "time": {"start": time(job.created_at)},
        "status": job.status,
    });
    if let Some(at) = job.ended_at {
        status["time"]["end"] = time(at).into();
    }
    // Whoever has asked for a part is told how much it has read, however fast it was.
    if job.ended_at.is_none() || request.part.is_some() {
        status["progress"] = progress(&job.sums);
    }
    status["total"] = job.sums.total.into();
    if request.skip_unchanged {
        status["unchanged"] = job.sums.unchanged.into();
    }
    if !job.indexes.is_empty() {
        status["disabledIndexes"] = job.indexes.into();
    }
    status["inputsTotal"] = job.sums.tasks.into();
    status["inputsFailed"] = job.sums.failed.into();
    status["inputs"] = job.tasks.into_iter().map(|task| input(task, request.skip_unchanged)).collect();
    status
}

fn input(task: TaskState, compares: bool) -> Value {
    let Input { resource_type, url, .. } = kept(task.input);
    let mut input = json!({"url": url, "status": task.status, "total": task.total});
    if compares {
        input["unchanged"] = task.unchanged.into();
    }
    if let Some(resource_type) = resource_type {
        input["resourceType"] = resource_type.into();
    }
    if let (Some(started), Some(changed)) = (task.started_at, task.changed_at) {
        let until = task.ended_at.unwrap_or(changed);
        input["duration"] = ((until - started) / 1000).into();
        input["ts"] = time(until).into();
    }
    if let Some(error) = task.error {
        input["error"] = error.into();
    }
    input
}

/// The bytes read of all sources, the resources in them, those too that are not committed yet, and the rate since the first one
/// started.
fn progress(sums: &Sums) -> Value {
    let seconds = sums.started_at.map_or(0.0, |begun| (session::clock() - begun) as f64 / 1e6);
    let mut progress = json!({"bytesRead": sums.read_bytes, "resources": sums.seen});
    if let Some(all) = sums.all_bytes {
        progress["bytesTotal"] = all.into();
    }
    if seconds > 0.0 {
        progress["resourcesPerSecond"] = ((sums.seen as f64 / seconds).round() as u64).into();
    }
    progress
}

/// A time in the session's time zone.
fn time(at: i64) -> String {
    instant::format(at, session::utc_offset(at))
}
