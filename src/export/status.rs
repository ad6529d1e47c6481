//! How far an export is, and the manifest of what it wrote.

use super::files::Written;
use super::kickoff::Kickoff;
use super::signature::{SignedFile, Signer};
use crate::jobs::Job;
use crate::pg::session;
use crate::settings;
use fhir_bulk_codec::instant;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What an export came to.
#[derive(Serialize, Deserialize)]
pub struct Outcome {
    /// The folder of its files.
    pub folder: String,
    /// In microseconds since 2000-01-01T00:00:00Z.
    pub transaction_time: i64,
    /// With the type of what is in them; nothing for a file of all types.
    pub output: Vec<(String, Written)>,
    /// Bundles of deletions.
    pub deleted: Vec<Written>,
}

/// The status of an export.
pub fn of(id: &str, job: &Job, signer: &Signer) -> Value {
    let task = job.tasks.first();
    let status = match (job.status.as_str(), task.and_then(|task| task.started_at)) {
        ("active", None) => "pending",
        ("active", Some(_)) => "processing",
        ("finished", _) => "completed",
        (ended, _) => ended,
    };
    let mut answer = json!({"jobId": id, "status": status, "createdAt": time(job.created_at)});
    if let Some(at) = job.ended_at {
        answer["completedAt"] = time(at).into();
    }
    match status {
        "processing" => answer["progress"] = json!({"resources": task.map(|task| task.seen)}),
        "failed" => answer["error"] = task.and_then(|task| task.error.as_deref()).into(),
        "completed" => {
            if let Some(outcome) = task.and_then(|task| task.result.as_ref()) {
                complete(
                    &mut answer,
                    &Kickoff::deserialize(&job.request).expect("kept as it was made"),
                    &outcome_of(outcome),
                    signer,
                );
            }
        }
        _ => {}
    }
    answer
}

fn complete(answer: &mut Value, kickoff: &Kickoff, outcome: &Outcome, signer: &Signer) {
    let (base, now) = (settings::export::url(), session::unix_time());
    let url = |file: &Written| signer.sign(&base, &SignedFile { job: &outcome.folder, name: &file.name }, now);
    let file =
        |resource_type: &str, file: &Written| json!({"type": resource_type, "url": url(file), "count": file.count});
    answer["transactionTime"] = time(outcome.transaction_time).into();
    if kickoff.single {
        if let Some((_, whole)) = outcome.output.first() {
            answer["downloadUrl"] = url(whole).into();
            answer["count"] = whole.count.into();
        }
        return;
    }
    let output = outcome.output.iter().map(|(resource_type, written)| file(resource_type, written));
    answer["request"] = kickoff.url.as_str().into();
    answer["requiresAccessToken"] = false.into();
    answer["output"] = output.collect();
    answer["deleted"] = outcome.deleted.iter().map(|written| file("Bundle", written)).collect();
    answer["error"] = json!([]);
}

fn outcome_of(result: &Value) -> Outcome {
    Outcome::deserialize(result).expect("kept as it was made")
}

/// In UTC.
fn time(at: i64) -> String {
    instant::format(at, 0)
}
