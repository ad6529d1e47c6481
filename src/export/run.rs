//! Runs an export in a worker, which shares the work with parallel workers (helpers).

use super::announced::{self, Announced};
use super::by_type::Typed;
use super::horizon::Open;
use super::kickoff::Kickoff;
use super::notes::{self, Note};
use super::on_nodes::Nodes;
use super::outcome::Outcome;
use super::subjects::Subjects;
use super::target::{Counters, Target};
use super::work::Work;
use super::{by_patient, by_subject, by_type, deletions, extras};
use crate::jobs::{Patience, Task};
use crate::settings::s3::Address;
use crate::sink::{Location, Tries};
use crate::store::{ResourceTable, ResourceType, written_anew};
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::progress::Copying;
use fhir_bulk_pg::{transaction, worker};
use pgrx::PgSqlErrorCode;
use serde::Deserialize;
use serde_json::Value;
use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How often an export is tried when temporary errors stop it.
const TRIES: u32 = 5;
/// The wait before another try.
const WAIT: Duration = Duration::from_secs(1);
/// How long to wait before asking a service again that failed to remove files.
const ASK_AGAIN: Duration = Duration::from_secs(60);

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
    let (mut attempt, mut patience) = (1, Patience::default());
    while let Err(error) = export(task, &work) {
        if task.is_over() {
            break;
        }
        if error.is_of_server_away() {
            worker::log(&format!("{} starts again: {}", task.title(), error.message()));
            if patience.wait(&error) {
                continue;
            }
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

/// 1. end what an earlier attempt has nodes do, begin a draft, and remove what an earlier attempt left, if nobody was told of it
/// 2. in one transaction: lock everything that will be read, leave out types whose reading would run code of other roles,
///    and read which transactions are open
/// 3. under the transaction's snapshot: write the files of each type, of deletions, and of notes
/// 4. publish the files
/// 5. store the result
fn export(task: &Task, work: &Work) -> Result<()> {
    let counters = Counters::default();
    let nodes = Nodes::of(task, &work.target)?;
    if nodes.is_some() {
        Nodes::end_earlier(task)?;
    }
    let draft = transaction::between(|| {
        Announced::check_none(&work.target)?;
        let draft = work.target.location()?.begin(&work.target.folder)?;
        nodes.as_ref().map_or(Ok(()), |nodes| nodes.admit(&draft))?;
        Ok::<_, Error>(draft)
    })?;
    let announcing = work.target.draft(&draft, &counters);
    let draft = announcing.silent();
    let (outcome, total) = task.frozen_transaction(
        || lock(work),
        |(mut work, mut notes, before)| {
            check_snapshot()?;
            work.patients = work.kickoff.level.patients()?;
            work.new_members = work.kickoff.level.new_members(work.kickoff.since)?;
            let after = Open::now();
            let transaction_time = before.transaction_time(&after);
            announcing.announce_unnumbered(|| announced::of_time(transaction_time))?;
            notes.extend(notes::of_ignored(&work.kickoff));
            notes.extend(notes::of_types(&work.kickoff.left_out));
            notes.extend(notes::of_rights(&work.kickoff)?);
            notes.extend(notes::of_horizon(&work.kickoff, [&before, &after])?);
            let show = |resources| task.show(Copying::To { written_bytes: 0 }, resources);
            show(0);
            let (mut output, mut total) = if let Some(subjects) = &work.kickoff.subjects {
                by_subject::write(&work, subjects, &draft, show)?
            } else if work.kickoff.single {
                counted(by_type::single_file(&work, &draft, show)?)
            } else if work.kickoff.by_patient {
                by_patient::write(&work, &announcing, &counters, show)?
            } else {
                counted(by_type::write(&work, &announcing, &counters, nodes.as_ref(), show)?)
            };
            let (files, of_extras) = counted(extras::write(&work, &announcing)?);
            output.extend(files);
            total += of_extras;
            if let Some(announced) = Announced::of(&work.target, Tries::Several)? {
                announced.sort(&mut output);
            }
            let (kickoff, format) = (&work.kickoff, work.target.format());
            let (deleted, unknown) = deletions::write(kickoff, &work.spans()[0], &draft, format)?;
            notes.extend(notes::of_deletions(unknown));
            let error =
                if work.kickoff.single { Vec::new() } else { notes::write(&notes, &draft, work.target.format())? };
            // A query may have read tables that only the functions in it know.
            check_snapshot()?;
            Ok((Outcome { folder: work.target.folder.clone(), transaction_time, output, deleted, error }, total))
        },
    )?;
    draft.publish()?;
    let result = serde_json::to_value(&outcome).expect("an object of texts and numbers");
    task.transaction(|| task.finish(total, &result))?;
    if (work.target.announces || nodes.is_some())
        && let Err(error) = transaction::between(|| draft.remove_announcements())
    {
        // They are in nobody's way, and go with the files.
        worker::log(&format!("{}: {}", task.title(), error.message()));
    }
    Ok(())
}

/// Checks that the transaction's snapshot shows all tables that it has locked.
fn check_snapshot() -> Result<()> {
    ResourceTable::younger_than_snapshot().map_or(Ok(()), |table| Err(written_anew(&table)))
}

/// Files, and how many resources they have.
fn counted(files: Vec<Typed>) -> (Vec<Typed>, u64) {
    let total = files.iter().map(|(_, file)| file.count).sum();
    (files, total)
}

/// Locks what an export reads. Returns the work without the types that are left out, the notes about these, and the open
/// transactions. Each table is locked by name before it is checked, so that the checked table is the one that is read.
/// Transactions that held locks have ended by then, and are not among the open ones.
fn lock(work: &Work) -> Result<(Work, Vec<Note>, Open)> {
    let mut work = work.clone();
    for name in work.kickoff.types.iter().chain(&work.kickoff.extras) {
        ResourceTable::lock_to_read(&ResourceType::new(name)?)?;
    }
    let others = work.kickoff.other_types();
    for name in &others {
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
        work.kickoff.subjects.as_ref().map_or(Ok(()), Subjects::lock_reads)?;
        Ok(notes)
    })?;
    let before = transaction::in_catalog_snapshot(Open::now);
    Ok((work, notes, before))
}
