//! What the extension's own tables keep of submissions. What is said to them stands in `sql/submissions.sql`.

use super::agreed::Agreed;
use super::key::{Key, NAME};
use crate::{extension, jobs, own_tables, settings};
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::session;
use fhir_bulk_pg::spi::Parameter;
use pgrx::{PgSqlErrorCode, pg_sys};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A submission of the current role, and of its token's `sub` if it has one.
#[derive(Deserialize)]
pub struct Submission {
    /// Its job's number in the queue.
    pub job: i64,
    /// That of the job.
    pub status: String,
    /// Whether it takes manifests.
    pub open: bool,
    /// Whether nobody has asked for anything of it for `fhir_bulk.job_retention`, or it has ended as long ago.
    pub expired: bool,
    /// How many requests for its status were deleted.
    pub forgotten: i32,
}

/// A manifest while it is fetched.
#[derive(Deserialize)]
pub struct Manifest {
    /// Names and values of headers.
    pub headers: Option<Vec<(String, String)>>,
    /// The files that it lists; `None` before it is read.
    pub files: Option<Vec<File>>,
    /// How many of them are staged.
    pub done: i32,
}

/// A file that a manifest lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    pub url: String,
    /// The type of all its lines; `None` if each line names its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_type: Option<String>,
    /// Whether its lines are Bundles of deletions.
    #[serde(default)]
    pub deletes: bool,
    /// Whether lines that are Parameters only say whose resources come next.
    #[serde(default)]
    pub organized: bool,
    /// Whether its server wants an access token.
    #[serde(default)]
    pub needs_token: bool,
    /// How many lines it has at least.
    #[serde(default)]
    pub count: u64,
}

/// A file that is staged.
#[derive(Deserialize)]
pub struct Staged {
    /// That of its manifest.
    pub import: Vec<Agreed>,
    pub manifest: i32,
    /// That of the manifest.
    pub url: String,
    pub file: i32,
    pub deletes: bool,
    pub pieces: i32,
}

/// A manifest whose workers ended again and again.
#[derive(Deserialize)]
pub struct Unfetched {
    pub number: i32,
    pub url: String,
    pub error: Option<String>,
}

/// How many outcomes a manifest has.
#[derive(Deserialize)]
pub struct Counted {
    pub manifest: i32,
    /// That of the manifest.
    pub url: String,
    pub count: u64,
}

/// Outcomes that were stored together.
#[derive(Deserialize)]
pub struct Outcomes {
    pub file: i32,
    pub number: i32,
    pub lines: String,
}

/// The submission with an id.
///
/// # Errors
/// 22023 if `request.jwt.claims` cannot be read.
pub fn find(id: &str) -> Result<Option<Submission>> {
    let parameters = of_caller(id)?;
    Ok(own_tables::rows(owner()?, "find_submission($1, $2, $3, $4)", parameters).into_iter().next())
}

/// As [`find`], for a request that changes it: others wait until the transaction ends, and without a `sub` it is not that of a
/// `sub`.
///
/// # Errors
/// As for [`find`].
pub fn lock(id: &str) -> Result<Option<Submission>> {
    let parameters = of_caller(id)?;
    Ok(own_tables::rows(owner()?, "lock_submission($1, $2, $3, $4)", parameters).into_iter().next())
}

fn of_caller(id: &str) -> Result<impl FnOnce() -> Vec<Parameter>> {
    let (role, subject) = (session::role(), jobs::subject()?);
    Ok(move || {
        vec![
            Parameter::string(id),
            Parameter::oid(role),
            Parameter::string_or_null(subject.as_deref()),
            Parameter::int4(settings::job_retention_minutes()),
        ]
    })
}

/// Adds a submission of the current role. Returns its job's number.
///
/// # Errors
/// Those of [`jobs::add`].
pub fn add(key: &Key) -> Result<i64> {
    let (id, request) = (key.id(), key.json());
    let mut job = jobs::add(&jobs::NewJob { kind: NAME, id: &id, request: &request, inputs: &[] })?;
    job.open(&serde_json::json!({"applies": true}));
    call("begin_submission($1)", || vec![Parameter::int8(job.number())])?;
    Ok(job.number())
}

/// Deletes a submission, and all that is kept of it.
pub fn delete(job: i64) -> Result<()> {
    call("delete_job($1)", || vec![Parameter::int8(job)])
}

/// Notes that something was asked for, so that a submission expires later.
pub fn touch(job: i64) -> Result<()> {
    call("touch_submission($1)", || vec![Parameter::int8(job)])
}

/// Forgets submissions that have expired without having been completed, and credentials of roles that were dropped. Does
/// nothing without the extension.
pub fn expire() {
    if let Ok(owner) = owner() {
        let minutes = || vec![Parameter::int4(settings::job_retention_minutes())];
        own_tables::call(owner, "expire_submissions($1)", minutes);
        own_tables::call(owner, "forget_credentials_of_dropped_roles()", Vec::new);
    }
}

/// Deletes the request for the status of a submission with that many deleted ones. False if it is deleted already.
pub fn forget_status(job: i64, forgotten: i32) -> Result<bool> {
    let done: Vec<bool> = rows("forget_status($1, $2)", || vec![Parameter::int8(job), Parameter::int4(forgotten)])?;
    Ok(!done.is_empty())
}

/// The number of the manifest with a URL, and whether it still counts.
pub fn manifest_with(job: i64, url: &str) -> Result<Option<(i32, bool)>> {
    #[derive(Deserialize)]
    struct Known {
        number: i32,
        status: String,
    }
    let known: Vec<Known> = rows("manifests_with($1, $2)", || vec![Parameter::int8(job), Parameter::string(url)])?;
    Ok(known.first().map(|known| (known.number, known.status != "cancelled")))
}

/// Adds a manifest, and a task that fetches it with these headers. Returns its number.
pub fn add_manifest(job: i64, input: &Value, headers: &[(String, String)]) -> Result<i32> {
    let headers = (!headers.is_empty()).then(|| serde_json::json!(headers).to_string());
    let added = rows("add_manifest($1, $2::jsonb, $3::jsonb)", || {
        let headers = Parameter::string_or_null(headers.as_deref());
        vec![Parameter::int8(job), Parameter::string(&input.to_string()), headers]
    })?;
    jobs::wake_at_commit(1);
    Ok(added.first().copied().unwrap_or_default())
}

/// Deletes what is kept of a manifest, or of all.
pub fn delete_manifests(job: i64, number: Option<i32>) -> Result<()> {
    match number {
        Some(number) => call("delete_manifests($1, $2)", || of((job, number), [])),
        None => call("delete_manifests($1)", || vec![Parameter::int8(job)]),
    }
}

/// How far a manifest is fetched; `None` if it is deleted.
pub fn manifest(key: (i64, i32)) -> Result<Option<Manifest>> {
    Ok(rows("find_manifest($1, $2)", || of(key, []))?.into_iter().next())
}

/// Notes the files that a manifest lists.
pub fn set_files(key: (i64, i32), files: &[File]) -> Result<()> {
    let files = serde_json::json!(files).to_string();
    call("set_files($1, $2, $3::jsonb)", || of(key, [Parameter::string(&files)]))
}

/// Deletes what is staged of the files of a manifest after some, with their outcomes. The manifest's own outcomes have file 0.
pub fn forget_files(key: (i64, i32), after: i32) -> Result<()> {
    call("forget_files($1, $2, $3)", || of(key, [Parameter::int4(after)]))
}

/// Checks how much is staged of a submission, outcomes too; others may be adding to it.
///
/// # Errors
/// 53100 beyond `fhir_bulk.submission_max_bytes`.
pub fn check_staged(job: i64) -> Result<()> {
    let Some(most) = settings::submissions::max_bytes() else { return Ok(()) };
    let staged: Vec<u64> = rows("staged_bytes($1)", || vec![Parameter::int8(job)])?;
    if staged.first().is_none_or(|bytes| *bytes <= most) {
        return Ok(());
    }
    let message = format!("more than {most} bytes of the submission would wait to be applied");
    Err(Error::new(PgSqlErrorCode::ERRCODE_DISK_FULL, message)
        .detail("Setting fhir_bulk.submission_max_bytes limits them.")
        .hint("Complete it and go on in another one, or submit less. A superuser can raise the limit."))
}

/// Adds bytes to a file that is staged: its `number`-th piece.
pub fn add_piece(key: (i64, i32), file: i32, number: i32, deletes: bool, bytes: &[u8]) -> Result<()> {
    call("add_piece($1, $2, $3, $4, $5, $6)", || {
        let more =
            [Parameter::int4(file), Parameter::int4(number), Parameter::boolean(deletes), Parameter::bytea(bytes)];
        of(key, more)
    })
}

/// Adds outcomes of a file, or of a manifest as file 0: so many lines.
pub fn add_outcomes(key: (i64, i32), file: i32, number: i32, count: i32, lines: &str) -> Result<()> {
    call("add_outcomes($1, $2, $3, $4, $5, $6)", || {
        let more = [Parameter::int4(file), Parameter::int4(number), Parameter::int4(count), Parameter::string(lines)];
        of(key, more)
    })
}

/// Notes that all files of a manifest up to this one are staged.
pub fn end_file(key: (i64, i32), file: i32) -> Result<()> {
    call("end_file($1, $2, $3)", || of(key, [Parameter::int4(file)]))
}

/// Deletes what is needed only to fetch a manifest: headers and URLs of files.
pub fn end_manifest(key: (i64, i32)) -> Result<()> {
    call("end_manifest($1, $2)", || of(key, []))
}

/// Manifests whose workers ended again and again.
pub fn unfetched(job: i64) -> Result<Vec<Unfetched>> {
    rows("unfetched_manifests($1)", || vec![Parameter::int8(job)])
}

/// The files that are staged, in the order in which they are applied.
pub fn staged(job: i64) -> Result<Vec<Staged>> {
    rows("staged_files($1)", || vec![Parameter::int8(job)])
}

/// A piece of a staged file.
pub fn piece(key: (i64, i32), file: i32, number: i32) -> Result<Vec<u8>> {
    let parameters = || of(key, [Parameter::int4(file), Parameter::int4(number)]);
    Ok(own_tables::bytes(owner()?, "staged_piece($1, $2, $3, $4)", parameters).pop().unwrap_or_default())
}

/// Deletes all that is staged.
pub fn delete_pieces(job: i64) -> Result<()> {
    call("delete_pieces($1)", || vec![Parameter::int8(job)])
}

/// How many outcomes there are, for each manifest that has any.
pub fn outcome_counts(job: i64) -> Result<Vec<Counted>> {
    rows("outcome_counts($1)", || vec![Parameter::int8(job)])
}

/// The outcomes of a manifest that were stored next after some.
pub fn outcomes_after(key: (i64, i32), file: i32, number: i32) -> Result<Option<Outcomes>> {
    let parameters = || of(key, [Parameter::int4(file), Parameter::int4(number)]);
    Ok(rows("next_outcomes($1, $2, $3, $4)", parameters)?.into_iter().next())
}

fn call(function: &str, parameters: impl FnOnce() -> Vec<Parameter>) -> Result<()> {
    own_tables::call(owner()?, function, parameters);
    Ok(())
}

fn rows<T: serde::de::DeserializeOwned>(function: &str, parameters: impl FnOnce() -> Vec<Parameter>) -> Result<Vec<T>> {
    Ok(own_tables::rows(owner()?, function, parameters))
}

/// The extension's owner. A worker may find that the extension is gone.
fn owner() -> Result<pg_sys::Oid> {
    let gone = || Error::new(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, "the extension fhir_bulk was dropped meanwhile");
    extension::find_this_extension().map(|extension| extension.owner).ok_or_else(gone)
}

/// A manifest's key, and what else there is to say.
fn of<const MORE: usize>((job, number): (i64, i32), more: [Parameter; MORE]) -> Vec<Parameter> {
    [Parameter::int8(job), Parameter::int4(number)].into_iter().chain(more).collect()
}
