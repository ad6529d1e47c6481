//! The part that a node of Citus has of an export whose server has asked it: it reads shards that it has, and writes their
//! files into the draft of the export.
//!
//! Who asks by hand gains nothing: the shards are read with his rights, the location is this node's own, and only the export
//! of which he knows the folder and the attempt is written to, as long as that attempt runs.

use super::files::{Files, Format, Numbers};
use super::kickoff::Kickoff;
use super::target::Target;
use super::work::Work;
use super::written::Written;
use crate::arguments::{parsed, required};
use crate::jobs::{self, Kind, NewJob, Task, Tries as TriesOfTask};
use crate::settings;
use crate::sink::{Budget, Draft, Location, Tries};
use crate::store::{ResourceTable, ResourceType, Rows, Shard, show_shards, unknown};
use fhir_bulk_pg::datum::JsonbBytes;
use fhir_bulk_pg::error::{Error, Result, or_raise};
use fhir_bulk_pg::progress::Copying;
use fhir_bulk_pg::session;
use fhir_bulk_pg::transaction;
use pgrx::prelude::*;
use pgrx::{JsonB, PgSqlErrorCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// The name of this kind of job in the queue.
pub const NAME: &str = "part";
/// Whoever asks for a part takes its result soon; a server that is down may take it later.
const LEAST_RETENTION_MINUTES: i32 = 24 * 60;
/// The least that a file may have, in bytes: the data kept about each must be small beside it.
const LEAST_FILE_BYTES: u64 = 64 << 10;
const MOST_UNITS: usize = 100_000;
const MOST_WAIT_SECONDS: u64 = 60;
/// How many shards are open at once: one look at the catalogue is for all of them, and each is a query with its memory.
const MOST_OPEN: usize = 64;

/// How workers run these jobs.
pub const KIND: Kind = Kind {
    name: NAME,
    run,
    forget: |_| Ok(true),
    call_off: |_| Ok(true),
    restore: |_| (),
    retention_minutes: || settings::job_retention_minutes().max(LEAST_RETENTION_MINUTES),
    expire: || (),
};

/// A part, as it is asked for, and kept.
#[derive(Serialize, Deserialize)]
pub struct Asked {
    /// `part-…`.
    pub id: String,
    /// Of the types of the units.
    pub kickoff: Kickoff,
    /// Where the export goes: see [`Target`].
    pub location: String,
    pub owner: String,
    pub folder: String,
    /// The attempt that the draft is of.
    pub attempt: String,
    pub file_bytes: u64,
    pub max_bytes: Option<u64>,
    pub gzip: Option<u32>,
    pub units: Vec<Unit>,
}

/// Shards of a type, and the numbers of their files.
#[derive(Clone, Serialize, Deserialize)]
pub struct Unit {
    pub resource_type: String,
    pub shards: Vec<i64>,
    pub numbers: Numbers,
}

/// What has become of a part.
#[derive(Default, Serialize, Deserialize)]
pub struct Done {
    /// By the number of the unit.
    pub written: Vec<(usize, Vec<Written>)>,
    /// Units whose shards are not all here any more.
    pub moved: Vec<usize>,
}

/// Adds a part of an export, which starts when the transaction commits. Returns its id.
#[pg_extern(volatile, parallel_unsafe)]
fn bulk_export_part(request: Option<JsonbBytes<'_>>) -> String {
    session::prevent_if_read_only(c"bulk_export_part()");
    or_raise(parsed(request, "request").and_then(add))
}

/// Waits until a part of an export of the caller has ended, at most so many seconds. Returns how far it is then, and its files
/// when it is complete.
#[pg_extern(volatile, parallel_unsafe)]
fn bulk_export_part_wait(id: Option<&str>, seconds: Option<i32>) -> JsonB {
    let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0).min(MOST_WAIT_SECONDS);
    JsonB(or_raise(required(id, "id").and_then(|id| {
        jobs::wake();
        jobs::wait_for_end(NAME, id, Duration::from_secs(seconds))?;
        status(id)
    })))
}

/// Cancels a part of an export of the caller if it still runs. False if there is no such part.
#[pg_extern(volatile, parallel_unsafe)]
fn bulk_export_part_cancel(id: Option<&str>) -> bool {
    session::prevent_if_read_only(c"bulk_export_part_cancel()");
    or_raise(required(id, "id").and_then(|id| jobs::cancel(NAME, id)))
}

fn add(request: Value) -> Result<String> {
    let asked: Asked = serde_json::from_value(request)
        .map_err(|error| Error::invalid_argument(format!("the request is no part of an export: {error}")))?;
    let is_plain =
        |text: &str| (8..=200).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    let is_id = asked.id.strip_prefix("part-").is_some_and(is_plain);
    if !is_id || ![&asked.owner, &asked.folder, &asked.attempt].iter().all(|text| is_plain(text)) {
        return Err(Error::invalid_argument("id, owner, folder and attempt of the request are not those of an export"));
    }
    if asked.location != settings::export::location() {
        let message = "the export goes elsewhere than exports of this node";
        return Err(Error::new(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message)
            .hint("All nodes must have the same fhir_bulk.export_location."));
    }
    let is_good = |unit: &Unit| !unit.shards.is_empty() && unit.numbers.first > 0 && unit.numbers.step > 0;
    if asked.units.len() > MOST_UNITS || !asked.units.iter().all(is_good) || asked.gzip.is_some_and(|level| level > 9) {
        return Err(Error::invalid_argument("units or gzip of the request are not those of an export"));
    }
    for unit in &asked.units {
        ResourceType::new(&unit.resource_type)?;
    }
    asked.check_attempt()?;
    jobs::add(&NewJob { kind: NAME, id: &asked.id, request: &json!(asked), inputs: &[json!({})] })?;
    Ok(asked.id)
}

fn status(id: &str) -> Result<Value> {
    let job = jobs::find(NAME, id)?
        .ok_or_else(|| Error::new(PgSqlErrorCode::ERRCODE_NO_DATA_FOUND, "there is no such part of an export"))?;
    let task = job.tasks.first();
    Ok(json!({
        "status": job.status,
        "seen": task.map(|task| task.seen),
        "atWork": jobs::is_at_work(NAME, id)?,
        "error": task.and_then(|task| task.error.as_deref()),
        "result": task.and_then(|task| task.result.as_ref()),
    }))
}

/// What tells parts that an attempt of an export has begun: it stands among the announcements of its draft.
pub fn announcement(attempt: &str) -> String {
    format!("nodes-{attempt}")
}

impl Asked {
    fn location(&self) -> Result<Location> {
        Location::parse(&self.location, &self.owner, &settings::s3::address())
    }

    /// # Errors
    /// 55000 if the draft is not of this attempt, or another folder; the errors of the location.
    fn check_attempt(&self) -> Result<()> {
        let announced = self.location()?.announced(&self.folder, Tries::Several)?;
        if announced.contains(&announcement(&self.attempt)) {
            return Ok(());
        }
        let message = "the draft of the export is not at this node's fhir_bulk.export_location, or it has begun anew";
        Err(Error::new(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message)
            .hint("With fhir_bulk.use_nodes = 'files' all nodes must have the same folder there."))
    }

    fn format(&self) -> Format {
        Format { gzip: self.gzip, bytes: self.file_bytes.max(LEAST_FILE_BYTES), table: None }
    }
}

/// Writes the files of a part.
fn run(task: &Task) -> std::result::Result<(), String> {
    let asked = Asked::deserialize(&task.row().request).map_err(|error| error.to_string())?;
    let mut tries = TriesOfTask::default();
    while let Err(error) = write(task, &asked) {
        if task.is_over() {
            break;
        }
        if !tries.wait(&error, &format!("{} begins again: {}", task.title(), error.message())) {
            return Err(error.reason().to_owned());
        }
    }
    Ok(())
}

/// 1. see that the draft is still that of the attempt, and remove what an earlier try left in it
/// 2. lock the shards, take a snapshot, and see that Citus still has them here
/// 3. write their files
/// 4. store the result
fn write(task: &Task, asked: &Asked) -> Result<()> {
    let draft = transaction::between(|| {
        asked.check_attempt()?;
        let draft = asked.location()?.join(&asked.folder)?;
        for Unit { resource_type, numbers, .. } in &asked.units {
            let mut files = (0..).map(|before| asked.format().name(resource_type, numbers.at(before)));
            while draft.discard(&files.next().expect("there is always one"))? {}
        }
        Ok::<_, Error>(draft)
    })?;
    let (done, total) = task.frozen_transaction(
        || {
            show_shards();
            let mut locked = BTreeMap::new();
            for Unit { resource_type, shards, .. } in &asked.units {
                let table = ResourceTable::lock_to_read(&ResourceType::new(resource_type)?)?;
                for shard in shards {
                    locked.insert(*shard, Shard::lock_to_read(&table, *shard)?);
                }
            }
            Ok(locked)
        },
        |locked| {
            let mut here = BTreeMap::new();
            for name in asked.units.iter().map(|unit| &unit.resource_type).collect::<std::collections::BTreeSet<_>>() {
                let table = ResourceTable::find(&ResourceType::new(name)?)?.ok_or_else(|| unknown(name))?;
                here.extend(Shard::all_here(&table, None)?.into_iter().map(|shard| (shard.id(), shard.table)));
            }
            let is_here = |shard: &i64| {
                let locked = locked.get(shard).and_then(Option::as_ref);
                locked.is_some_and(|locked| here.get(shard).is_some_and(|table| table.oid == locked.oid))
            };
            write_units(task, asked, &draft, is_here, &here)
        },
    )?;
    let result = serde_json::to_value(&done).expect("an object of texts and numbers");
    task.transaction(|| task.finish(total, &result))
}

fn write_units(
    task: &Task,
    asked: &Asked,
    draft: &Draft,
    is_here: impl Fn(&i64) -> bool,
    here: &BTreeMap<i64, ResourceTable>,
) -> Result<(Done, u64)> {
    let spent = AtomicU64::new(0);
    let draft = draft.within(asked.max_bytes.map(|most| Budget::new(most, &spent)), None);
    let work = Work { target: asked.target(), kickoff: asked.kickoff.clone(), patients: None, new_members: None };
    let (mut done, mut total) = (Done::default(), 0);
    let show = |total| task.show(Copying::To { written_bytes: 0 }, total);
    show(0);
    for (number, unit) in asked.units.iter().enumerate() {
        let Unit { resource_type, shards, numbers } = unit;
        if !shards.iter().all(&is_here) {
            done.moved.push(number);
            continue;
        }
        let mut files = Files::new(&draft, resource_type, asked.format()).numbered(*numbers);
        for span in work.spans() {
            let (rows, filter) = (Rows::Changed(span.changed), || span.filter(&work.kickoff, resource_type));
            for shards in shards.chunks(MOST_OPEN) {
                let tables: Vec<_> = shards.iter().map(|shard| &here[shard]).collect();
                for mut reader in work.open_all(&tables, resource_type, rows, filter)? {
                    files.write_all(&mut reader, |count| {
                        total += count;
                        show(total);
                    })?;
                }
            }
        }
        done.written.push((number, files.finish()?));
    }
    Ok((done, total))
}

impl Asked {
    /// Its target, for what only asks it how files are.
    fn target(&self) -> Target {
        Target {
            location: self.location.clone(),
            service: settings::s3::address(),
            owner: self.owner.clone(),
            folder: self.folder.clone(),
            file_bytes: self.file_bytes,
            max_bytes: self.max_bytes,
            gzip: self.gzip,
            announces: false,
            on_nodes: false,
        }
    }
}
