//! An input's way into its tables, in a worker.

use super::request::{Input, Request, kept};
use crate::jobs::{Committed, Reached, Task};
use crate::load::{Load, Options, Pace, Plan, Position};
use crate::settings;
use crate::source;
use crate::store::ResourceType;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::progress::Copying;
use fhir_bulk_pg::worker;
use pgrx::PgSqlErrorCode;
use std::time::{Duration, Instant};

/// How often in a row a batch is begun again that other sessions kept from committing.
const TRIES: u32 = 10;
/// The longest wait before that; it doubles from a thousandth of it.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A slow source commits after so long what it has given until then.
const COMMIT_AFTER: Duration = Duration::from_secs(10);
/// The clock is looked at every so many lines.
const LINES_PER_LOOK: u64 = 256;

/// Imports a task's input. The error is what its status says.
pub fn run(task: &Task) -> std::result::Result<(), String> {
    let mut import = Import::of(task);
    let mut failures = 0;
    loop {
        let before = import.committed;
        let Err(error) = import.go_on() else { return Ok(()) };
        // Not what this process thinks it has committed, but what it has.
        match task.committed().or_else(|_| task.committed()) {
            Ok(Some(committed)) => import.committed = committed,
            Ok(None) => return Ok(()),
            Err(error) => return Err(error.message().to_owned()),
        }
        failures = if import.committed == before { failures + 1 } else { 1 };
        if !may_pass(&error) || failures == TRIES {
            return Err(error.reason().to_owned());
        }
        let line = import.committed.lines;
        worker::log(&format!("{} begins again after line {line}: {}", task.title(), error.message()));
        worker::wait(LONGEST_WAIT / 1000 * 2_u32.pow(failures - 1));
    }
}

/// Errors that say nothing of the input: deadlocks, serialization failures, an interrupt that was not meant for it.
fn may_pass(error: &Error) -> bool {
    matches!(
        error.code(),
        PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED
            | PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE
            | PgSqlErrorCode::ERRCODE_QUERY_CANCELED
    )
}

struct Import<'a> {
    task: &'a Task,
    request: Request,
    input: Input,
    committed: Committed,
}

impl<'a> Import<'a> {
    fn of(task: &'a Task) -> Import<'a> {
        let row = task.row();
        Import { task, request: kept(row.request.clone()), input: kept(row.input.clone()), committed: row.committed }
    }

    /// From where the input is committed to its end:
    /// 1. open the source and make its table; committed at once, since whoever makes a table keeps all others from
    ///    making it until then, and a source may be slow
    /// 2. store batch after batch, each in a transaction that notes how far it comes; so is a table that a line makes
    ///    by its type, unless the input is to be one transaction
    fn go_on(&mut self) -> Result<()> {
        let mut load = self.task.transaction(|| {
            let mut load = self.open()?;
            load.pace().run_ahead(self.task.has_second_slot());
            load.prepare()?;
            Ok(load)
        })?;
        loop {
            let (next, batch, stored) = self.task.transaction(|| {
                let enough = self.enough(load.progress().clone(), load.pace().clone());
                let batch = load.batch(enough)?;
                let stored = batch.counts.values().sum();
                self.task.advance(&reached(&load, stored), batch.at_end)?;
                Ok((load, batch, stored))
            })?;
            load = next;
            let (position, total) = (load.position(), self.committed.total + stored);
            let Position { lines, bytes: stream_bytes, checksum: stream_checksum } = position;
            self.committed = Committed { total, lines, stream_bytes, stream_checksum };
            worker::report(Some(&format!("{}: {total} resources", self.task.title())));
            if batch.at_end {
                return Ok(());
            }
        }
    }

    /// The source, with what is committed of it passed over.
    fn open(&self) -> Result<Load> {
        let resource_type = self.input.resource_type.as_deref().map(ResourceType::new).transpose()?;
        let options = Options { update: self.request.update, ..Options::default() };
        let (fhir, retries) = (self.request.fhir, self.request.retries);
        let Committed { lines, stream_bytes: bytes, stream_checksum: checksum, .. } = self.committed;
        let start = Position { lines, bytes, checksum };
        let source = source::open(&self.input.url, retries)?;
        Load::start(source, Plan { resource_type, table: None, fhir, options, mistaken: None, start })
    }

    /// When a batch is large enough, by the number of its lines, or is to be committed at once, for it has made a table;
    /// shows now and then how far it is, and sees to it that the import takes no more than its share of
    /// `fhir_bulk.import_workers`.
    fn enough(&self, source: source::Progress, pace: Pace) -> impl FnMut(u64, bool) -> bool {
        let (whole, rows, begun) = (self.request.transaction, settings::import_commit_rows(), Instant::now());
        pace.run_ahead(self.task.has_second_slot());
        move |lines, has_created| {
            let is_time = lines % LINES_PER_LOOK == 1;
            if is_time {
                pace.run_ahead(self.task.has_second_slot());
                let copying = Copying::From { read_bytes: source.read_bytes(), all_bytes: source.total_bytes() };
                self.task.show(copying, self.committed.total + lines - 1);
            }
            !whole && (has_created || lines >= rows || (is_time && begun.elapsed() >= COMMIT_AFTER))
        }
    }
}

fn reached(load: &Load, stored: u64) -> Reached {
    let (position, source) = (load.position(), load.progress());
    Reached {
        stored,
        lines: position.lines,
        stream_bytes: position.bytes,
        stream_checksum: position.checksum,
        read_bytes: source.read_bytes(),
        all_bytes: source.total_bytes(),
    }
}
