//! An input's way into its tables, in a worker.

use super::request::{Input, Request, kept};
use crate::error::{Error, Result};
use crate::jobs::{Progress, Task};
use crate::load::{Load, Options, Plan, Position};
use crate::pg::worker;
use crate::settings;
use crate::store::ResourceType;
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
        let before = import.at;
        let Err(error) = import.go_on() else { return Ok(()) };
        if task.is_over() {
            return Ok(());
        }
        failures = if import.at == before { failures + 1 } else { 1 };
        if !may_pass(&error) || failures == TRIES {
            return Err(error.reason().to_owned());
        }
        worker::log(&format!("{} begins again after line {}: {}", task.title(), import.at.lines, error.message()));
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
    /// How far the input is committed.
    at: Position,
    stored: u64,
}

impl<'a> Import<'a> {
    fn of(task: &'a Task) -> Import<'a> {
        let row = task.row();
        Import {
            task,
            request: kept(row.request.clone()),
            input: kept(row.input.clone()),
            at: Position { lines: row.lines, bytes: row.stream_bytes },
            stored: row.total,
        }
    }

    /// From where the input is committed to its end: each batch is a transaction that notes how far it comes.
    fn go_on(&mut self) -> Result<()> {
        let mut open: Option<Load> = None;
        loop {
            let (load, at_end, stored) = self.task.transaction(|| {
                let mut load = match open.take() {
                    Some(load) => load,
                    None => self.open()?,
                };
                let batch = load.batch(self.enough())?;
                let stored = batch.counts.values().sum();
                self.task.advance(&progress(&load, stored), batch.at_end)?;
                Ok((load, batch.at_end, stored))
            })?;
            self.at = load.position();
            self.stored += stored;
            worker::report(Some(&format!("{}: {} resources", self.task.title(), self.stored)));
            if at_end {
                return Ok(());
            }
            open = Some(load);
        }
    }

    /// The source, with what is committed of it passed over.
    fn open(&self) -> Result<Load> {
        let resource_type = self.input.resource_type.as_deref().map(ResourceType::new).transpose()?;
        let options = Options { update: self.request.update, ..Options::default() };
        let (fhir, retries) = (self.request.fhir, self.request.retries);
        Load::open(&self.input.url, Plan { resource_type, fhir, options, retries, start: self.at })
    }

    /// When a batch is large enough, by the number of its lines.
    fn enough(&self) -> impl FnMut(u64) -> bool + use<> {
        let (whole, rows, begun) = (self.request.transaction, settings::import_commit_rows(), Instant::now());
        move |lines| !whole && (lines >= rows || (lines % LINES_PER_LOOK == 1 && begun.elapsed() >= COMMIT_AFTER))
    }
}

fn progress(load: &Load, stored: u64) -> Progress {
    let (position, source) = (load.position(), load.progress());
    Progress {
        stored,
        lines: position.lines,
        stream_bytes: position.bytes,
        read_bytes: source.read_bytes(),
        all_bytes: source.total_bytes(),
    }
}
