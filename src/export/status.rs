//! The status of an export, and the manifest when it is complete.

use super::announced::Announced;
use super::kickoff::Kickoff;
use super::outcome::Outcome;
use super::signature::{TABLE_VALID_SECONDS, VALID_SECONDS};
use super::target::Target;
use super::written::Written;
use crate::jobs::Job;
use crate::settings;
use crate::sink::Tries;
use fhir_bulk_codec::instant;
use fhir_bulk_pg::error::Result;
use fhir_bulk_pg::session;
use fhir_bulk_transfer::{SignedFile, Signer};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// The status of an export.
///
/// # Errors
/// The errors of the location, if URLs of its files cannot be made.
pub fn of(id: &str, job: &Job, signer: &Signer) -> Result<Value> {
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
    let kickoff = kickoff_of(job);
    if let Some(subjects) = &kickoff.subjects {
        answer["format"] = subjects.format.as_str().into();
        answer["request"] = kickoff.url.as_str().into();
        if let Some(id) = &subjects.tracking_id {
            answer["clientTrackingId"] = id.as_str().into();
        }
    }
    match status {
        "processing" => {
            let counted = if kickoff.subjects.is_some() { "rows" } else { "resources" };
            answer["progress"] = json!({counted: task.map(|task| task.seen)});
            if let Some(task) = task {
                partial(&mut answer, &kickoff, &Target::of(&task.input), signer)?;
            }
        }
        "failed" => answer["error"] = task.and_then(|task| task.error.as_deref()).into(),
        "completed" => {
            if let Some((task, outcome)) = task.and_then(|task| Some((task, task.result.as_ref()?))) {
                let target = Target::of(&task.input);
                complete(&mut answer, &kickoff, &target, &outcome_of(outcome), signer)?;
            }
        }
        _ => {}
    }
    Ok(answer)
}

/// The files that are final while the export runs. A location that does not answer now may answer the next poll.
fn partial(answer: &mut Value, kickoff: &Kickoff, target: &Target, signer: &Signer) -> Result<()> {
    let announced = Announced::of(target, Tries::One).unwrap_or_else(|error| {
        pgrx::warning!("the files that are ready are not shown: {}", error.reason());
        None
    });
    let Some(Announced { transaction_time, files }) = announced else { return Ok(()) };
    let type_of = |file: &Written| if kickoff.by_patient { String::new() } else { file.stem().to_owned() };
    let output = files.into_iter().map(|file| (type_of(&file), file)).collect();
    let folder = target.folder.clone();
    let outcome = Outcome { folder, transaction_time, output, deleted: Vec::new(), error: Vec::new() };
    complete(answer, kickoff, target, &outcome, signer)
}

fn complete(answer: &mut Value, kickoff: &Kickoff, target: &Target, outcome: &Outcome, signer: &Signer) -> Result<()> {
    // The location of this export, even if the setting has changed since.
    let location = target.location()?;
    let seconds = if kickoff.subjects.is_some() { TABLE_VALID_SECONDS } else { VALID_SECONDS };
    let (base, now) = (settings::export::url(), session::unix_time());
    let signed = |name: &str| signer.sign(&base, &SignedFile { job: &outcome.folder, name }, now, seconds);
    let valid = Duration::from_secs(seconds.unsigned_abs());
    let url = |name: &str| -> Result<String> {
        Ok(location.url(&outcome.folder, name, valid)?.unwrap_or_else(|| signed(name)))
    };
    let file = |resource_type: &str, file: &Written| -> Result<Value> {
        let mut item = json!({"url": url(&file.name)?, "count": file.count});
        if !resource_type.is_empty() {
            item["type"] = resource_type.into();
        }
        if let Some(next) = &file.continues_in {
            item["continuesInFile"] = url(next)?.into();
        }
        if let Some(bytes) = file.bytes.filter(|_| kickoff.file_sizes) {
            item["fileSize"] = bytes.into();
        }
        Ok(item)
    };
    answer["transactionTime"] = time(outcome.transaction_time).into();
    if kickoff.single {
        if let Some((_, whole)) = outcome.output.first() {
            answer["downloadUrl"] = url(&whole.name)?.into();
            answer["count"] = whole.count.into();
        }
        return Ok(());
    }
    let output = outcome.output.iter().map(|(name, written)| match &kickoff.subjects {
        None => file(name, written),
        Some(_) => file("", written).map(|mut item| {
            item["name"] = name.as_str().into();
            item
        }),
    });
    let deleted = outcome.deleted.iter().map(|written| file("Bundle", written));
    let error = outcome.error.iter().map(|written| file("OperationOutcome", written));
    answer["request"] = kickoff.url.as_str().into();
    answer["requiresAccessToken"] = false.into();
    if kickoff.partial {
        answer["allowPartialManifests"] = true.into();
    }
    if kickoff.by_patient {
        answer["outputOrganizedBy"] = "Patient".into();
    }
    answer["output"] = output.collect::<Result<Value>>()?;
    answer["deleted"] = deleted.collect::<Result<Value>>()?;
    answer["error"] = error.collect::<Result<Value>>()?;
    Ok(())
}

fn kickoff_of(job: &Job) -> Kickoff {
    Kickoff::deserialize(&job.request).expect("kept as it was made")
}

fn outcome_of(result: &Value) -> Outcome {
    Outcome::deserialize(result).expect("kept as it was made")
}

/// A time in UTC.
fn time(at: i64) -> String {
    instant::format(at, 0)
}
