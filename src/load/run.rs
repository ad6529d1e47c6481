//! Loads a source into resource tables, in one transaction or in batches, each in a transaction of its own.

use super::lines::{Form, Lines};
use super::options::{OnError, Options};
use super::refusals;
use super::rejects::Rejects;
use super::tables::Tables;
use crate::source::{Progress, Source};
use crate::store::{Known, ResourceTable, ResourceType, Stamp, make_sequence, next_txid};
use fhir_bulk_codec::share::Share;
use fhir_bulk_feed::{Item, Row};
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::session;
use pgrx::PgSqlErrorCode;
use std::collections::BTreeMap;

pub use fhir_bulk_feed::{Pace, Position};

/// How to load the lines of a source.
pub struct Plan {
    /// The type of all lines; `None` if each line names its own.
    pub resource_type: Option<ResourceType>,
    /// The only table that the load may write, with any name and schema. `None` for the table of each type in
    /// `fhir_bulk.data_schema`.
    pub table: Option<ResourceTable>,
    /// Whether the lines are in FHIR's form, not in Aidbox's.
    pub fhir: bool,
    /// See [`Options`].
    pub options: Options,
    /// Checks a rejected line, with its number, for a mistake that ends the load even if lines may be skipped.
    pub mistaken: Option<Mistaken>,
    /// The lines that the load has, if another one has the rest. It is a job's, alone in its transactions: rows whose shards
    /// Citus has on this server go straight into these.
    pub share: Option<Share>,
    /// Where to start. An earlier load of the same source has stored the lines before it.
    pub start: Position,
    /// The number that was taken for the first batch; `None` if it takes its own, as all later ones do.
    pub txid: Option<i64>,
}

/// See [`Plan::mistaken`].
pub type Mistaken = fn(u64, &[u8]) -> Option<Error>;

/// A running load.
pub struct Load {
    lines: Lines,
    resource_type: Option<ResourceType>,
    table: Option<ResourceTable>,
    mistaken: Option<Mistaken>,
    rule: Known,
    /// Whether it has a share of its source only.
    is_shared: bool,
    /// How many tables the load has created so far.
    created: usize,
    rejects: Option<Rejects>,
    /// See [`Plan::txid`].
    txid: Option<i64>,
}

/// The result of a batch.
pub struct Batch {
    /// How many lines of each type the batch has stored.
    pub counts: BTreeMap<String, u64>,
    /// How many of them wrote nothing, because the tables had them as they are.
    pub unchanged: u64,
    /// There are no more lines.
    pub at_end: bool,
}

impl Load {
    /// Starts the feed on a source, under the current role's settings.
    ///
    /// # Errors
    /// 53000 when the thread cannot be started.
    pub fn start(source: Source, plan: Plan) -> Result<Load> {
        let Plan { resource_type, table, fhir, options, mistaken, share, start, txid } = plan;
        let rejects = match options.on_error {
            OnError::Abort => None,
            OnError::Skip { max_errors } => Some(Rejects::new(&source.name, max_errors)),
        };
        let form =
            Form { resource_type: resource_type.as_ref(), fhir, options: &options, share: share.as_ref(), start };
        let lines = Lines::start(source, &form)?;
        let (rule, is_shared) = (options.known, share.is_some());
        Ok(Load { lines, resource_type, table, mistaken, rule, is_shared, created: 0, rejects, txid })
    }

    /// Where the next batch begins.
    pub fn position(&self) -> Position {
        self.lines.position()
    }

    /// How many bytes of the source have been read.
    pub fn progress(&self) -> &Progress {
        self.lines.progress()
    }

    /// How far the feed reads ahead of the lines that are written.
    pub fn pace(&self) -> &Pace {
        self.lines.pace()
    }

    /// Waits for the first lines, then creates what the first batch would create: the sequence, and the table if all lines
    /// are of one type.
    ///
    /// # Errors
    /// The errors of reading the source and of [`ResourceTable::get_or_create`].
    pub fn prepare(&mut self) -> Result<()> {
        self.lines.has_line()?;
        make_sequence()?;
        let Some(resource_type) = &self.resource_type else { return Ok(()) };
        if ResourceTable::find_to_write(resource_type)?.is_none() {
            ResourceTable::get_or_create(resource_type)?;
        }
        Ok(())
    }

    /// Stores lines in the current transaction until the source ends or `enough` returns true. `enough` gets the number of
    /// lines that this batch has taken, and whether it has created tables. After an error the load cannot go on.
    ///
    /// 1. take the batch's number, if it has none
    /// 2. take each row that the feed has made of a line; its type decides the table
    /// 3. write the rows that the tables' writers still buffer
    ///
    /// # Errors
    /// Class 22 for lines that cannot be loaded and class 54 for limits, both with source and line; the errors of reading
    /// the source; 55000 if the source has changed before `start`. PostgreSQL's own errors (42501, 23…) are raised.
    pub fn batch(&mut self, mut enough: impl FnMut(u64, bool) -> bool) -> Result<Batch> {
        let txid = self.txid.take().map_or_else(|| next_txid(self.table.as_ref()), Ok)?;
        let stamp = Stamp { txid, ts: session::transaction_start() };
        let mut tables = Tables::new(stamp, self.rule, self.created, self.table.clone());
        if self.is_shared {
            tables = tables.beside_shards();
        }
        if let Some(expected) = &self.resource_type {
            tables.open(expected, true)?;
        }
        let mut taken = 0;
        let at_end = loop {
            if enough(taken, tables.has_created()) {
                break false;
            }
            self.stream(&mut tables, &mut taken, &mut enough)?;
            if !self.take_line(&mut tables)? {
                break true;
            }
            taken += 1;
        };
        self.created = tables.created();
        let (counts, unchanged) = tables.finish();
        Ok(Batch { counts, unchanged, at_end })
    }

    /// Writes the rejected lines that are still buffered. Returns how many there were; `None` if `on_error` is not "skip".
    pub fn finish(self) -> Option<u64> {
        self.rejects.map(Rejects::finish)
    }

    /// Stores the next line. Returns false at the end of the source.
    fn take_line(&mut self, tables: &mut Tables) -> Result<bool> {
        if !self.lines.has_line()? {
            return Ok(false);
        }
        self.take(|name, line, row| store(row, name, line, tables))?;
        Ok(true)
    }

    /// Stores lines while statements write them, if the table of the expected type is written so. Ends before a line that
    /// no statement can take; that need not be the end of the source.
    fn stream(
        &mut self,
        tables: &mut Tables,
        taken: &mut u64,
        enough: &mut impl FnMut(u64, bool) -> bool,
    ) -> Result<()> {
        // Asked before each line of every load.
        let Some(expected) = self.resource_type.as_ref().filter(|expected| tables.streams(expected)).cloned() else {
            return Ok(());
        };
        let has_created = tables.has_created();
        loop {
            let Some(writer) = tables.streaming(&expected) else { return Ok(()) };
            let (before, mut is_full) = (*taken, false);
            writer.stream(&mut |rows| {
                loop {
                    if !self.lines.has_line()? || enough(*taken, has_created) {
                        return Ok(false);
                    }
                    let is_row = match self.lines.line() {
                        Some((_, Item::Row(row))) if row.resource_type == expected.as_str() => {
                            is_full = !rows.has_room(row.id, row.resource);
                            if is_full {
                                return Ok(false);
                            }
                            true
                        }
                        // No other statement may run in between.
                        Some((_, Item::Refused(_))) if self.rejects.as_ref().is_none_or(Rejects::has_room) => false,
                        _ => return Ok(false),
                    };
                    self.take(|_, _, row| rows.take(row.id, row.resource, row.created_at))?;
                    *taken += 1;
                    if is_row {
                        return Ok(true);
                    }
                }
            })?;
            // A row for which even an empty statement has no room goes by a batch.
            if !is_full || *taken == before {
                return Ok(());
            }
        }
    }

    /// Passes the next line's row to `store`, with the source's name and the line's number, or keeps a line that is refused.
    fn take(&mut self, mut store: impl FnMut(&str, u64, &Row<'_>) -> Result<()>) -> Result<()> {
        let Load { lines, resource_type, mistaken, rejects, .. } = self;
        let Some((reached, item)) = lines.line() else { return Ok(()) };
        match item {
            Item::Row(row) => store(lines.name(), reached.lines, &row)?,
            Item::Refused(refused) => {
                if let Some(error) = mistaken.and_then(|look| look(reached.lines, refused.line)) {
                    return Err(error);
                }
                let error = refusals::of_line(lines.name(), reached.lines, refused.why, resource_type.as_ref());
                let Some(rejects) = rejects.as_mut().filter(|_| !refused.why.is_lack_of_memory()) else {
                    return Err(error);
                };
                rejects.take(error, reached.lines, refused.offset, refused.line)?;
            }
        }
        lines.pass();
        Ok(())
    }
}

/// Stores the row of line `line` of a source.
///
/// # Errors
/// The table cannot be written; there are too many new tables; out of memory.
pub fn store(row: &Row<'_>, name: &str, line: u64, tables: &mut Tables) -> Result<()> {
    let writer = tables.of_type(row.resource_type, || refusals::place_of_type(name, line))?;
    writer.push(row.id, row.resource, row.created_at).map_err(|_| {
        Error::new(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, format!("line {line} of {name}: out of memory"))
            .detail(format!("The resource takes {} bytes.", row.resource.len()))
    })
}
