//! Exports: `bulk_export` writes types into files in the background, as HL7's Bulk Data Access defines it;
//! `bulk_export_identifiers` returns resources at once.

mod announced;
mod associated;
mod batches;
mod blocks;
mod by_patient;
mod by_subject;
mod by_type;
mod deletions;
mod download;
mod edges;
mod exported;
mod extras;
mod files;
mod horizon;
mod identifiers;
mod ignored;
mod kickoff;
mod level;
mod notes;
mod on_nodes;
mod outcome;
pub mod part;
mod provenance;
mod request;
mod run;
mod signature;
mod span;
mod status;
mod subjects;
mod target;
mod type_filters;
mod units;
mod work;
mod written;

pub use by_patient::{help_to_sort, help_to_write};
pub use by_type::help;

use crate::arguments::{parsed, required};
use crate::jobs::{self, Job, Kind, NewJob};
use crate::{settings, store};
use fhir_bulk_pg::datum::JsonbBytes;
use fhir_bulk_pg::error::{Error, Result, or_raise};
use fhir_bulk_pg::session;
use fhir_bulk_pg::whole::reporting;
use fhir_bulk_transfer::Signer;
use kickoff::Kickoff;
use pgrx::prelude::*;
use pgrx::{JsonB, PgSqlErrorCode};
use serde_json::{Value, json};
use target::Target;

const MICROS_PER_MINUTE: i64 = 60_000_000;
/// The name of this kind of job in the queue.
const NAME: &str = "export";
/// How workers run these jobs.
pub const KIND: Kind = Kind {
    name: NAME,
    run: run::run,
    forget: run::forget,
    call_off: on_nodes::call_off,
    restore: |_| (),
    retention_minutes: settings::export::retention_minutes,
    expire: || (),
};

/// Adds an export job, which starts when the transaction commits. Returns the job's id.
#[pg_extern(volatile, parallel_unsafe)]
fn bulk_export(request: Option<JsonbBytes<'_>>) -> String {
    session::prevent_if_read_only(c"bulk_export()");
    // The query of a subject may be wrong, and its author needs to know where.
    reporting(|| or_raise(parsed(request, "request").and_then(export)))
}

/// Returns the progress of an export of the caller, and its manifest when it is complete.
#[pg_extern(stable, parallel_unsafe)]
fn bulk_export_status(id: Option<&str>) -> JsonB {
    JsonB(or_raise(required(id, "id").and_then(status)))
}

/// Cancels an export of the caller if it still runs, and removes its files. False if there is no such export.
#[pg_extern(volatile, parallel_unsafe)]
fn bulk_export_cancel(id: Option<&str>) -> bool {
    session::prevent_if_read_only(c"bulk_export_cancel()");
    or_raise(required(id, "id").and_then(|id| Ok(jobs::cancel(NAME, id)? || jobs::discard(NAME, id)?)))
}

/// 1. check the request, the role's limit of exports, and the location for the files
/// 2. add the job with one task, because an export is one transaction
fn export(request: Value) -> Result<String> {
    let kickoff = Kickoff::parse(request)?;
    jobs::check_limit(NAME, settings::export::most_per_role())?;
    let id = jobs::random_id();
    let target = Target {
        location: settings::export::location(),
        service: settings::s3::address(),
        owner: signer().owner(),
        folder: id.clone(),
        file_bytes: kickoff.file_bytes.map_or(settings::export::file_bytes(), settings::export::file_bytes_within),
        max_bytes: settings::export::max_bytes(),
        gzip: kickoff.gzip.then(settings::gzip_level),
        announces: kickoff.partial,
        on_nodes: on_nodes::are_wanted(&settings::export::location()),
    };
    target.location()?;
    jobs::add(&NewJob { kind: NAME, id: &id, request: &json!(kickoff), inputs: &[json!(target)] })?;
    Ok(id)
}

fn status(id: &str) -> Result<Value> {
    jobs::wake();
    let found = jobs::find(NAME, id)?;
    let retention = i64::from(settings::export::retention_minutes()) * MICROS_PER_MINUTE;
    let is_expired = |job: &Job| job.ended_at.is_some_and(|ended| session::clock() - ended > retention);
    if found.as_ref().is_some_and(is_expired) {
        jobs::start_worker();
    }
    let job = found.filter(|job| !is_expired(job)).ok_or_else(|| {
        let shown: String = id.chars().take(80).collect();
        Error::new(PgSqlErrorCode::ERRCODE_NO_DATA_FOUND, format!("there is no export \"{shown}\""))
            .hint("SELECT * FROM bulk_jobs; shows your jobs.")
    })?;
    status::of(id, &job, &signer())
}

/// The signer of this database's URLs.
fn signer() -> Signer {
    Signer::new(store::secret(), session::database().to_u32())
}
