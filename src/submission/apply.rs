//! Applies a completed submission in a worker: all that is staged, in one transaction.

use super::agreed;
use super::kept::{self, Staged};
use super::outcome;
use super::stage::{Frame, Frames};
use crate::jobs::{Task, Tries};
use crate::load::{self, Tables};
use crate::source::shown;
use crate::store::{Deletes, Known, ResourceTable, ResourceType, Stamp, next_txid};
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::progress::Copying;
use fhir_bulk_pg::session;
use serde_json::json;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::rc::Rc;

/// How many rows pass between two looks at the progress.
const ROWS_PER_LOOK: u64 = 256;
/// The member of a task's result with the time of its transaction.
pub const TIME: &str = "transactionTime";
/// The member with how many resources were left as they are.
pub const UNCHANGED: &str = "unchanged";

/// Applies a submission. The error is shown in its status.
pub fn run(task: &Task) -> std::result::Result<(), String> {
    let mut tries = Tries::default();
    loop {
        let Err(error) = apply(task) else { return Ok(()) };
        if task.is_over() {
            return Ok(());
        }
        if !tries.wait(&error, &format!("{} begins again: {}", task.title(), error.message())) {
            // It goes with the submission at the latest.
            let _ = task.transaction(|| kept::delete_pieces(task.row().job));
            return Err(error.reason().to_owned());
        }
    }
}

/// 1. say which manifests no worker could fetch
/// 2. store the staged resources, in the order of their manifests and files
/// 3. delete what the manifests say is deleted
/// 4. delete what was staged
fn apply(task: &Task) -> Result<()> {
    let job = task.row().job;
    task.transaction(|| {
        for manifest in kept::unfetched(job)? {
            let key = (job, manifest.number);
            let line = outcome::of_manifest(&shown(&manifest.url), manifest.error.as_deref().unwrap_or_default());
            kept::forget_files(key, -1)?;
            kept::add_outcomes(key, 0, 1, 1, &line)?;
            kept::end_manifest(key)?;
        }
        let (deletions, resources): (Vec<_>, Vec<_>) = kept::staged(job)?.into_iter().partition(|file| file.deletes);
        let stamp = Stamp { txid: next_txid(None)?, ts: session::transaction_start() };
        let progress = Progress { task, read: Rc::default(), rows: Cell::new(0) };
        let unchanged = store(job, &resources, stamp, &progress)?;
        let deleted = delete(job, &deletions, stamp, &progress)?;
        kept::delete_pieces(job)?;
        let total = progress.rows.get();
        task.finish(total, &json!({TIME: stamp.ts, "deleted": deleted, UNCHANGED: unchanged}))
    })
}

/// What is applied so far, for those who look.
struct Progress<'a> {
    task: &'a Task,
    /// Bytes of pieces.
    read: Rc<Cell<u64>>,
    rows: Cell<u64>,
}

impl Progress<'_> {
    fn count(&self) {
        self.rows.set(self.rows.get() + 1);
        if self.rows.get() % ROWS_PER_LOOK == 1 {
            session::check_for_interrupts();
            self.task.show(Copying::From { read_bytes: self.read.get(), all_bytes: None }, self.rows.get());
        }
    }
}

/// Stores resources as a load of all files, one after the other, does; manifests with other options as another load, with
/// its own `txid`. Returns how many were left as they are.
fn store(job: i64, files: &[Staged], mut stamp: Stamp, progress: &Progress<'_>) -> Result<u64> {
    let mut rule = files.first().map_or(Ok(Known::default()), |file| agreed::rule(&file.import))?;
    let mut tables = Tables::new(stamp, rule, 0, None);
    let mut unchanged = 0;
    for file in files {
        let own = agreed::rule(&file.import)?;
        if own != rule {
            let created = tables.created();
            unchanged += tables.finish().1;
            stamp.txid = next_txid(None)?;
            rule = own;
            tables = Tables::new(stamp, rule, created, None);
        }
        let name = format!("file {} of {}", file.file, shown(&file.url));
        let mut frames = Frames::new(Pieces::of(job, file, progress))?;
        while let Some(Frame { line, row }) = frames.next()? {
            load::store(&row, &name, line, &mut tables)?;
            progress.count();
        }
    }
    Ok(unchanged + tables.finish().1)
}

/// Marks resources as deleted. Returns how many there were.
fn delete(job: i64, files: &[Staged], stamp: Stamp, progress: &Progress<'_>) -> Result<u64> {
    let mut tables: BTreeMap<String, Option<Deletes>> = BTreeMap::new();
    for file in files {
        let mut frames = Frames::new(Pieces::of(job, file, progress))?;
        while let Some(Frame { row, .. }) = frames.next()? {
            session::check_for_interrupts();
            if !tables.contains_key(row.resource_type) {
                // Without a table there is none of the type.
                let table = ResourceTable::find_to_write(&ResourceType::new(row.resource_type)?)?;
                tables.insert(row.resource_type.to_owned(), table.map(|table| Deletes::of(&table, stamp)));
            }
            if let Some(Some(deletes)) = tables.get_mut(row.resource_type) {
                deletes.push(row.id);
            }
        }
    }
    Ok(tables.into_values().flatten().map(Deletes::finish).sum())
}

/// The pieces of a staged file as one stream.
struct Pieces {
    key: (i64, i32),
    file: i32,
    pieces: i32,
    /// How many of them were taken.
    taken: i32,
    piece: Vec<u8>,
    at: usize,
    read: Rc<Cell<u64>>,
}

impl Pieces {
    fn of(job: i64, file: &Staged, progress: &Progress<'_>) -> Pieces {
        let &Staged { manifest, file, pieces, .. } = file;
        let read = progress.read.clone();
        Pieces { key: (job, manifest), file, pieces, taken: 0, piece: Vec::new(), at: 0, read }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() {
            if self.taken == self.pieces {
                return Ok(0);
            }
            self.taken += 1;
            let failed = |error: Error| io::Error::other(error.message().to_owned());
            self.piece = kept::piece(self.key, self.file, self.taken).map_err(failed)?;
            if self.piece.is_empty() {
                return Err(io::Error::other(format!("piece {} is not there", self.taken)));
            }
            self.at = 0;
            self.read.set(self.read.get() + self.piece.len() as u64);
        }
        let count = buffer.len().min(self.piece.len() - self.at);
        buffer[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}
