//! Imports one input in a worker.

use super::account;
use super::indexes;
use super::on_nodes;
use super::request::{Input, Request, kept};
use crate::jobs::{Committed, Reached, Task, Tries};
use crate::load::{self, Load, Options, Pace, Plan, Position};
use crate::settings;
use crate::settings::s3::{Account, Address};
use crate::source::{self, Reach};
use crate::store::ResourceType;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::progress::Copying;
use fhir_bulk_pg::worker;
use std::time::{Duration, Instant};

/// After this time a batch commits what a slow source has sent so far.
const COMMIT_AFTER: Duration = Duration::from_secs(10);
/// How many lines pass between two looks at the clock.
const LINES_PER_LOOK: u64 = 256;

/// Imports a task's input. The error is shown in the job's status.
pub fn run(task: &Task) -> std::result::Result<(), String> {
    if let Some(result) = on_nodes::run(task) {
        return result;
    }
    let mut import = Import::of(task);
    let mut tries = Tries::default();
    loop {
        let before = import.committed;
        let Err(error) = import.go_on() else { return Ok(()) };
        // Ask the database what is committed: after an error this process cannot be sure.
        match task.committed().or_else(|_| task.committed()) {
            Ok(Some(committed)) => import.committed = committed,
            Ok(None) => return Ok(()),
            Err(error) => return Err(error.message().to_owned()),
        }
        if import.committed != before {
            tries.renew();
        }
        let line = import.committed.lines;
        let again = format!("{} begins again after line {line}: {}", task.title(), error.message());
        if !tries.wait(&error, &again) {
            return Err(error.reason().to_owned());
        }
    }
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

    /// Imports from the last commit to the end of the input:
    /// 1. drop the indexes of its table, if it shall have none
    /// 2. open the source, create its table, and commit at once: until then no other session can create the table, and a
    ///    source may be slow
    /// 3. store batch after batch, each in a transaction that also stores the progress. A batch also ends when a line's type
    ///    has created a table, unless the input is one transaction
    fn go_on(&mut self) -> Result<()> {
        if self.request.disable_indexes
            && let Some(name) = &self.input.resource_type
        {
            self.task.transaction(|| indexes::disable(self.task, &ResourceType::new(name)?))?;
        }
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
                self.task.advance(&reached(&load, stored, batch.unchanged), batch.at_end)?;
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

    /// Opens the source after the lines that are committed.
    fn open(&self) -> Result<Load> {
        let resource_type = self.input.resource_type.as_deref().map(ResourceType::new).transpose()?;
        let Request { update, skip_unchanged, refuse_known, .. } = self.request;
        let known = load::known(refuse_known, update, skip_unchanged, ["onConflict", "update", "skipUnchanged"])?;
        let options = Options { known, ..Options::default() };
        let fhir = self.request.fhir;
        let Committed { lines, stream_bytes: bytes, stream_checksum: checksum, .. } = self.committed;
        let start = Position { lines, bytes, checksum };
        // Rows that are stored have it already.
        let txid = self.request.part.as_ref().filter(|_| lines == 0).and_then(|part| part.txid);
        let source = source::open_listed(&self.input.url, self.input.within.as_deref(), &self.reach()?)?;
        Load::start(
            source,
            Plan {
                resource_type,
                table: None,
                fhir,
                options,
                mistaken: None,
                share: self.request.share(),
                start,
                txid,
            },
        )
    }

    /// How the source is reached: with the key of the account, if the request has one.
    fn reach(&self) -> Result<Reach> {
        let with_key = |address: &Address| {
            let keys = account::keys(&self.task.secret()?);
            Ok::<_, Error>(Account { address: address.clone(), keys })
        };
        let account = self.request.service.as_ref().map(with_key).transpose()?;
        Ok(Reach { retries: self.request.retries, account })
    }

    /// Decides after each line whether the batch commits: when it is large or old enough, or has created a table. Now and
    /// then it also shows the progress, and checks that the import takes no more than its share of
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

fn reached(load: &Load, stored: u64, unchanged: u64) -> Reached {
    let (position, source) = (load.position(), load.progress());
    Reached {
        stored,
        unchanged,
        lines: position.lines,
        stream_bytes: position.bytes,
        stream_checksum: position.checksum,
        read_bytes: source.read_bytes(),
        all_bytes: source.total_bytes(),
    }
}
