//! Runs an export in a worker, which shares the work with parallel workers (helpers).

use super::associated::{OfExported, Queries};
use super::deletions;
use super::extras::Extras;
use super::files::{Files, Format, Written};
use super::horizon::Open;
use super::kickoff::Kickoff;
use super::notes::{self, Note};
use super::outcome::Outcome;
use super::provenance::Linked;
use super::span::Span;
use super::target::Target;
use super::units::{self, Unit};
use crate::extension::LIBRARY;
use crate::jobs::Task;
use crate::settings;
use crate::settings::s3::Address;
use crate::sink::{Draft, Location};
use crate::store::{Filter, Patients, Reader, ResourceTable, ResourceType, Rows, foreign_code, written_anew};
use fhir_bulk_codec::resource::{Form, Selection, Writer};
use fhir_bulk_pg::error::{Error, Result, or_raise};
use fhir_bulk_pg::parallel::{self, Help, Part};
use fhir_bulk_pg::progress::Copying;
use fhir_bulk_pg::{transaction, worker};
use pgrx::PgSqlErrorCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often an export is tried when temporary errors stop it.
const TRIES: u32 = 5;
/// The wait before another try.
const WAIT: Duration = Duration::from_secs(1);
/// How long to wait before asking a service again that failed to remove files.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// How many resources are looked up at a time because others refer to them.
const EXTRAS_AT_A_TIME: usize = 1000;
/// The exported function that calls [`help`] in a helper.
const HELP: Help = Help { library: LIBRARY, function: c"fhir_bulk_export_helper" };

/// A file with its resource type.
type Typed = (String, Written);
/// A file with its resource type and number.
type Numbered = (String, usize, Written);

thread_local! {
    /// Locations whose service failed to remove files, and when that was.
    static AWAY: RefCell<HashMap<(Address, String), Instant>> = RefCell::default();
}

/// Removes the files of an export. Returns false without trying if the service failed for another export within the last
/// minute: otherwise workers would spend their time waiting for it.
///
/// # Errors
/// The errors of the location.
pub fn forget(input: &Value) -> Result<bool> {
    let target = Target::of(input);
    let location = target.location()?;
    let place = (target.service, target.location);
    if AWAY.with_borrow(|away| away.get(&place).is_some_and(|since| since.elapsed() < ASK_AGAIN)) {
        return Ok(false);
    }
    let removed = location.remove(&target.folder);
    if removed.is_err() && matches!(location, Location::S3(_)) {
        AWAY.with_borrow_mut(|away| away.insert(place, Instant::now()));
    }
    removed.map(|()| true)
}

/// Runs the export of a task. The error is shown in the job's status.
pub fn run(task: &Task) -> std::result::Result<(), String> {
    let target = Target::of(&task.row().input);
    let kickoff = Kickoff::deserialize(&task.row().request).expect("kept as it was made");
    let work = Work { target, kickoff, patients: None, new_members: None };
    let mut attempt = 1;
    while let Err(error) = export(task, &work) {
        if task.is_over() {
            break;
        }
        if !may_pass(&error) || attempt == TRIES {
            if error.reason() != error.message() {
                worker::log(&format!("{}: {}", task.title(), error.message()));
            }
            return Err(error.reason().to_owned());
        }
        worker::log(&format!("{} starts again: {}", task.title(), error.message()));
        worker::wait(WAIT);
        attempt += 1;
    }
    Ok(())
}

/// Whether another try may succeed: after an interrupt that was not meant for the export, the end of a helper, a lock of
/// another session.
fn may_pass(error: &Error) -> bool {
    matches!(
        error.code(),
        PgSqlErrorCode::ERRCODE_QUERY_CANCELED
            | PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN
            | PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE
            | PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED
            | PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE
    )
}

/// 1. begin a draft, and remove what an earlier attempt left
/// 2. in one transaction: lock everything that will be read, leave out types whose reading would run code of other roles,
///    and read which transactions are open
/// 3. under the transaction's snapshot: write the files of each type, of deletions, and of notes
/// 4. publish the files
/// 5. store the result
fn export(task: &Task, work: &Work) -> Result<()> {
    let spent = AtomicU64::new(0);
    let draft = transaction::between(|| work.target.location()?.begin(&work.target.folder))?;
    let draft = draft.within(work.target.budget(&spent));
    let outcome = task.frozen_transaction(
        || lock(work),
        |(mut work, mut notes, before)| {
            if let Some(table) = ResourceTable::younger_than_snapshot() {
                return Err(written_anew(&table));
            }
            work.patients = work.kickoff.level.patients()?;
            work.new_members = work.kickoff.level.new_members(work.kickoff.since)?;
            let after = Open::now();
            let transaction_time = before.transaction_time(&after);
            notes.extend(notes::of_ignored(&work.kickoff));
            notes.extend(notes::of_types(&work.kickoff.left_out));
            notes.extend(notes::of_rights(&work.kickoff)?);
            notes.extend(notes::of_horizon(&work.kickoff, [&before, &after])?);
            let show = |resources| task.show(Copying::To { written_bytes: 0 }, resources);
            show(0);
            let mut output = if work.kickoff.single {
                work.single_file(&draft, show)?
            } else {
                work.files_of_types(&draft, &spent, show)?
            };
            output.extend(work.files_of_extras(&draft)?);
            let (kickoff, format) = (&work.kickoff, work.target.format());
            let (deleted, unknown) = deletions::write(kickoff, &work.spans()[0], &draft, format)?;
            notes.extend(notes::of_deletions(unknown));
            let error =
                if work.kickoff.single { Vec::new() } else { notes::write(&notes, &draft, work.target.format())? };
            Ok(Outcome { folder: work.target.folder.clone(), transaction_time, output, deleted, error })
        },
    )?;
    draft.publish()?;
    let total = outcome.output.iter().map(|(_, file)| file.count).sum();
    let result = serde_json::to_value(&outcome).expect("an object of texts and numbers");
    task.transaction(|| task.finish(total, &result))
}

/// Locks what an export reads. Returns the work without the types that are left out, the notes about these, and the open
/// transactions. Each table is locked by name before it is checked, so that the checked table is the one that is read.
/// Transactions that held locks have ended by then, and are not among the open ones.
fn lock(work: &Work) -> Result<(Work, Vec<Note>, Open)> {
    let mut work = work.clone();
    for name in work.kickoff.types.iter().chain(&work.kickoff.extras) {
        ResourceTable::lock_to_read(&ResourceType::new(name)?)?;
    }
    let others = work.kickoff.level.other_types();
    for name in others {
        ResourceTable::lock_to_read(&ResourceType::new(name)?)?;
    }
    work.kickoff.level.check_code(|name| work.kickoff.names(name))?;
    let notes = transaction::in_catalog_snapshot(|| -> Result<_> {
        let notes = notes::leave_out(&mut work.kickoff)?;
        let types = work.kickoff.types.iter().chain(&work.kickoff.extras).map(String::as_str);
        for name in types.chain(others.iter().copied()) {
            let resource_type = ResourceType::new(name)?;
            ResourceTable::get(&resource_type)?.lock_reads(&resource_type)?;
        }
        Ok(notes)
    })?;
    let before = transaction::in_catalog_snapshot(Open::now);
    Ok((work, notes, before))
}

/// What the worker and its helpers need to know.
#[derive(Clone, Serialize, Deserialize)]
struct Work {
    target: Target,
    kickoff: Kickoff,
    /// The patients whose resources are exported, once the snapshot is taken; `None` for all.
    patients: Option<Patients>,
    /// Those of them whose older resources are exported, too.
    new_members: Option<Patients>,
}

/// The input of helpers.
#[derive(Serialize, Deserialize)]
struct Share {
    work: Work,
    /// In the order in which they are written.
    units: Vec<Unit>,
}

impl Work {
    /// Writes all types into one file. The file exists even if it is empty.
    fn single_file(&self, draft: &Draft, show: impl Fn(u64)) -> Result<Vec<Typed>> {
        let mut files = Files::new(draft, "export", Format { bytes: u64::MAX, ..self.target.format() });
        files.begin()?;
        let mut total = 0;
        for resource_type in &self.kickoff.types {
            files.write_all(&mut self.reader(&Unit::whole(resource_type), &self.spans()[0])?, |count| {
                total += count;
                show(total);
            })?;
        }
        Ok(files.finish()?.into_iter().map(|file| (String::new(), file)).collect())
    }

    /// Writes files of each type, with helpers where the tables allow it. Returns them in the order of the request.
    fn files_of_types(&self, draft: &Draft, spent: &AtomicU64, show: impl Fn(u64)) -> Result<Vec<Typed>> {
        let workers = settings::export::workers();
        let (together, alone) = units::divide(&self.kickoff, workers)?;
        let helpers = workers.min(together.len()).saturating_sub(1);
        let share = Share { work: self.clone(), units: together };
        let input = serde_json::to_vec(&share).expect("an object of texts and numbers");
        let (mine, others) = parallel::run(HELP, helpers, &input, |part| share.write(draft, part, &show));
        let mut counts = mine?;
        for result in others {
            let of_helper: Vec<Counts> = serde_json::from_slice(&result).expect("as help() makes it");
            counts.extend(of_helper);
        }
        let mut written: Vec<Numbered> = counts.iter().flat_map(|counts| share.files(counts)).collect();
        let mut total = written.iter().map(|(_, _, file)| file.count).sum();
        // All of them have counted together, from 0.
        spent.fetch_add(written.iter().filter_map(|(_, _, file)| file.bytes).sum(), Ordering::Relaxed);
        for unit in alone {
            let files = self.write(&unit, draft, |count| {
                total += count;
                show(total);
            })?;
            let numbered = files.into_iter().enumerate();
            written.extend(numbered.map(|(before, file)| (unit.resource_type.clone(), unit.numbers.at(before), file)));
        }
        written.sort_by_key(|(name, number, _)| (self.kickoff.types.iter().position(|known| known == name), *number));
        Ok(written.into_iter().map(|(name, _, file)| (name, file)).collect())
    }

    /// Writes the files of what the exported resources refer to. They are read once more, because helpers may have written
    /// them; what they refer to may refer to more.
    fn files_of_extras(&self, draft: &Draft) -> Result<Vec<Typed>> {
        let names = &self.kickoff.extras;
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut extras = Extras::new(names);
        for name in &self.kickoff.types {
            for span in self.spans() {
                self.reader(&Unit::whole(name), &span)?.each(|stored| {
                    extras.look_at(stored.as_resource());
                    Ok(ControlFlow::Continue(()))
                })?;
            }
        }
        let mut files: BTreeMap<&str, Files> =
            names.iter().map(|name| (name.as_str(), Files::new(draft, name, self.target.format()))).collect();
        while let Some((name, ids)) = extras.next() {
            let of_type = files.get_mut(name.as_str()).expect("a file for each type");
            for ids in ids.chunks(EXTRAS_AT_A_TIME) {
                let (mut lines, mut count) = (Vec::new(), 0);
                self.open(&name, Rows::WithIds(ids), None)?.each(|stored| {
                    stored.write(&mut lines)?;
                    lines.push(b'\n');
                    count += 1;
                    extras.look_at(stored.as_resource());
                    Ok(ControlFlow::Continue(()))
                })?;
                of_type.write(&lines, count)?;
            }
        }
        let mut written = Vec::new();
        for (name, files) in files {
            written.extend(files.finish()?.into_iter().map(|file| (name.to_owned(), file)));
        }
        Ok(written)
    }

    /// Writes the files of a unit.
    fn write(&self, unit: &Unit, draft: &Draft, mut progress: impl FnMut(u64)) -> Result<Vec<Written>> {
        let (kickoff, name) = (&self.kickoff, &unit.resource_type);
        let mut files = Files::new(draft, name, self.target.format()).numbered(unit.numbers);
        if let Some(associated) = OfExported::of(kickoff, name, self.spans())? {
            let queries = |queries| if queries == Queries::OfRequest { kickoff.filters.of(name) } else { Ok(None) };
            associated.write_all(|which| self.open(name, Rows::All, queries(which)?), &mut files, progress)?;
            return files.finish();
        }
        for span in self.spans() {
            match Linked::of(kickoff, span.patients.as_ref(), name) {
                Some(linked) => {
                    let mut reader = self.reader_with(unit, &span, kickoff.filters.of(name)?)?;
                    linked.write_all(&mut reader, &mut files, &mut progress)?;
                }
                None => files.write_all(&mut self.reader(unit, &span)?, &mut progress)?,
            }
        }
        files.finish()
    }

    /// What is exported: the first span has all patients of the export.
    fn spans(&self) -> Vec<Span> {
        Span::of(&self.kickoff, self.patients.as_ref(), self.new_members.as_ref())
    }

    fn reader(&self, unit: &Unit, span: &Span) -> Result<Reader> {
        self.reader_with(unit, span, span.filter(&self.kickoff, &unit.resource_type)?)
    }

    fn reader_with(&self, unit: &Unit, span: &Span, filter: Option<Filter>) -> Result<Reader> {
        let rows = unit.blocks.map_or(Rows::Changed(span.changed), Rows::Within);
        self.open(&unit.resource_type, rows, filter)
    }

    fn open(&self, name: &str, rows: Rows<'_>, filter: Option<Filter>) -> Result<Reader> {
        let resource_type = ResourceType::new(name)?;
        let table = ResourceTable::get(&resource_type)?;
        // Another role may have created an index or a cast since. Then the export starts again and leaves the type out.
        if !self.kickoff.trusts(name)
            && let Some(what) = foreign_code(&table)
        {
            let message = format!("reading {name} would now run code of another role: {what}");
            return Err(Error::new(PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE, message));
        }
        let mut writer = Writer::new(Form::Fhir(settings::fhir_version()), &settings::created_at_url(), true);
        let elements = self.kickoff.elements_of(name);
        if !elements.is_empty() {
            let elements = Some(elements.into_iter().map(str::to_owned).collect());
            let type_member = "resourceType";
            writer = writer.select(Selection { elements, id: true, meta: true, type_member, subsetted: true });
        }
        Reader::open(&table, resource_type.canonical(), rows, filter, writer)?.in_utc().of_one_moment()
    }
}

/// What was written of a unit: its number, whether it was undivided, and the number of lines and bytes of each of its files. It is
/// short because the results of helpers have a size limit, and there may be many files.
type Counts = (usize, bool, Vec<(u64, u64)>);

impl Share {
    /// Writes units until none is left. Calls `show` with the total that all processes have written.
    fn write(&self, draft: &Draft, part: Part<'_>, show: impl Fn(u64)) -> Result<Vec<Counts>> {
        let draft = &draft.within(self.work.target.budget(part.counter()));
        let mut written = Vec::new();
        loop {
            let number = part.take();
            let Some(unit) = self.units.get(number) else { return Ok(written) };
            let is_whole = part.is_alone();
            let unit = if is_whole { unit.undivided() } else { Some(unit.clone()) };
            if let Some(unit) = unit {
                let files = self.work.write(&unit, draft, |count| show(part.add(count)))?;
                written.push((
                    number,
                    is_whole,
                    files.iter().map(|file| (file.count, file.bytes.unwrap_or(0))).collect(),
                ));
            }
        }
    }

    /// The files of a unit that was written.
    fn files(&self, (number, is_whole, counts): &Counts) -> Vec<Numbered> {
        let unit = &self.units[*number];
        let unit = if *is_whole { unit.undivided().expect("it was written") } else { unit.clone() };
        let file = |(before, &(count, bytes)): (usize, &(u64, u64))| {
            let number = unit.numbers.at(before);
            let name = self.work.target.format().name(&unit.resource_type, number);
            (unit.resource_type.clone(), number, Written { name, count, bytes: Some(bytes) })
        };
        counts.iter().enumerate().map(file).collect()
    }
}

/// Runs in a helper: writes units, and returns what it wrote.
pub fn help(part: Part<'_>) -> Vec<u8> {
    let share: Share = serde_json::from_slice(part.input()).expect("as files_of_types() makes it");
    let location = or_raise(share.work.target.location());
    let draft = or_raise(location.join(&share.work.target.folder));
    let written = or_raise(share.write(&draft, part, |_| ()));
    serde_json::to_vec(&written).expect("numbers")
}
