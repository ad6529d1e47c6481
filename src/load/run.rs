//! Loads a source into resource tables, in one transaction or in batches, each in a transaction of its own.

use super::options::{OnError, Options};
use super::refusals;
use super::rejects::Rejects;
use super::tables::Tables;
use crate::settings;
use crate::source::{Arriving, Bytes, Piece, Progress, Source};
use crate::store::{Known, ResourceTable, ResourceType, Stamp, make_sequence, next_txid};
use fhir_bulk_codec::error::IdRule;
use fhir_bulk_codec::resource::Encoder;
use fhir_bulk_feed::{self as feed, Chunk, Event, Feed, Item, Row};
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::session::{self, Waiting};
use pgrx::PgSqlErrorCode;
use std::collections::{BTreeMap, TryReserveError};

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
    /// Where to start. An earlier load of the same source has stored the lines before it.
    pub start: Position,
}

/// See [`Plan::mistaken`].
pub type Mistaken = fn(u64, &[u8]) -> Option<Error>;

/// A running load.
pub struct Load {
    name: String,
    progress: Progress,
    /// Reads the source on this thread, as long as the feed's thread cannot.
    arriving: Option<Box<dyn Arriving>>,
    /// Makes rows of the source's bytes on a thread of its own.
    feed: Feed,
    /// The chunk that the feed made last, and the index of its next item.
    chunk: Chunk,
    next: usize,
    position: Position,
    /// There are no more lines.
    at_end: bool,
    resource_type: Option<ResourceType>,
    table: Option<ResourceTable>,
    mistaken: Option<Mistaken>,
    rule: Known,
    start: Position,
    /// How many tables the load has created so far.
    created: usize,
    rejects: Option<Rejects>,
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
        let Source { name, bytes, progress } = source;
        let rejects = match plan.options.on_error {
            OnError::Abort => None,
            OnError::Skip { max_errors } => Some(Rejects::new(&name, max_errors)),
        };
        let (start, rule) = (plan.start, plan.options.known);
        let (resource_type, table, mistaken) = (plan.resource_type.clone(), plan.table.clone(), plan.mistaken);
        let (source, arriving) = match bytes {
            Bytes::Anywhere(source) => (source, None),
            Bytes::Here(arriving) => (feed::Source::Given, Some(arriving)),
        };
        let feed = Feed::start(of_lines(plan), source).map_err(|error| {
            Error::new(
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES,
                format!("could not start to read {name}: {error}"),
            )
        })?;
        let (chunk, next) = (Chunk::default(), 0);
        Ok(Load {
            name,
            progress,
            arriving,
            feed,
            chunk,
            next,
            position: start,
            at_end: false,
            resource_type,
            table,
            mistaken,
            rule,
            start,
            created: 0,
            rejects,
        })
    }

    /// Where the next batch begins.
    pub fn position(&self) -> Position {
        self.position
    }

    /// How many bytes of the source have been read.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// How far the feed reads ahead of the lines that are written.
    pub fn pace(&self) -> &Pace {
        self.feed.pace()
    }

    /// Waits for the first lines, then creates what the first batch would create: the sequence, and the table if all lines
    /// are of one type.
    ///
    /// # Errors
    /// The errors of reading the source and of [`ResourceTable::get_or_create`].
    pub fn prepare(&mut self) -> Result<()> {
        self.has_line()?;
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
    /// 1. take the batch's number
    /// 2. take each row that the feed has made of a line; its type decides the table
    /// 3. write the rows that the tables' writers still buffer
    ///
    /// # Errors
    /// Class 22 for lines that cannot be loaded and class 54 for limits, both with source and line; the errors of reading
    /// the source; 55000 if the source has changed before `start`. PostgreSQL's own errors (42501, 23…) are raised.
    pub fn batch(&mut self, mut enough: impl FnMut(u64, bool) -> bool) -> Result<Batch> {
        let stamp = Stamp { txid: next_txid(self.table.as_ref())?, ts: session::transaction_start() };
        let mut tables = Tables::new(stamp, self.rule, self.created, self.table.clone());
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

    /// Waits for a line. Returns false at the end of the source.
    fn has_line(&mut self) -> Result<bool> {
        while self.chunk.get(self.next).is_none() && !self.at_end {
            match self.wait()? {
                Event::Lines(chunk) => (self.chunk, self.next) = (chunk, 0),
                Event::End(position) => (self.position, self.at_end) = (position, true),
                Event::Failed(failure) => return Err(refusals::of_source(&self.name, &failure, self.start)),
            }
        }
        Ok(!self.at_end)
    }

    /// Stores the next line. Returns false at the end of the source.
    fn take_line(&mut self, tables: &mut Tables) -> Result<bool> {
        if !self.has_line()? {
            return Ok(false);
        }
        self.take(|name, line, row| {
            let writer = tables.of_type(row.resource_type, || refusals::place_of_type(name, line))?;
            pushed(name, line, row, writer.push(row.id, row.resource, row.created_at))
        })?;
        Ok(true)
    }

    /// Stores lines while a statement writes them, if the table of the expected type is written so. Ends before a line that
    /// the statement cannot take; that need not be the end of the source.
    fn stream(
        &mut self,
        tables: &mut Tables,
        taken: &mut u64,
        enough: &mut impl FnMut(u64, bool) -> bool,
    ) -> Result<()> {
        let has_created = tables.has_created();
        let Some(expected) = self.resource_type.clone() else { return Ok(()) };
        let Some(writer) = tables.streaming(&expected) else { return Ok(()) };
        writer.stream(&mut |rows| loop {
            if !self.has_line()? || enough(*taken, has_created) {
                return Ok(false);
            }
            let is_row = match self.chunk.get(self.next) {
                Some((_, Item::Row(row))) if row.resource_type == expected.as_str() => true,
                // No other statement may run in between.
                Some((_, Item::Refused(_))) if self.rejects.as_ref().is_none_or(Rejects::has_room) => false,
                _ => return Ok(false),
            };
            self.take(|_, _, row| {
                rows.give(row.id, row.resource, row.created_at);
                Ok(())
            })?;
            *taken += 1;
            if is_row {
                return Ok(true);
            }
        })
    }

    /// Passes the next line's row to `store`, with the source's name and the line's number, or keeps a line that is refused.
    fn take(&mut self, mut store: impl FnMut(&str, u64, &Row<'_>) -> Result<()>) -> Result<()> {
        let Load { name, chunk, next, position, resource_type, mistaken, rejects, .. } = self;
        let Some((reached, item)) = chunk.get(*next) else { return Ok(()) };
        match item {
            Item::Row(row) => store(name, reached.lines, &row)?,
            Item::Refused(refused) => {
                if let Some(error) = mistaken.and_then(|look| look(reached.lines, refused.line)) {
                    return Err(error);
                }
                let error = refusals::of_line(name, reached.lines, refused.why, resource_type.as_ref());
                let Some(rejects) = rejects else { return Err(error) };
                rejects.take(error, reached.lines, refused.offset, refused.line)?;
            }
        }
        *next += 1;
        *position = reached;
        Ok(())
    }

    /// Waits for the next event of the feed, and gives the feed blocks meanwhile. A cancel takes effect here.
    fn wait(&mut self) -> Result<Event> {
        loop {
            session::check_for_interrupts();
            // Blocks first: the feed's thread works on them while this thread stores rows.
            let mut runs_dry = false;
            if let Some(arriving) = &mut self.arriving {
                while !runs_dry && self.feed.has_room() {
                    match arriving.next()? {
                        Some(Piece::Block(block)) => self.feed.give(Ok(block)),
                        Some(Piece::Rest(rest)) => self.feed.give_rest(rest),
                        None => runs_dry = true,
                    }
                }
            }
            if let Some(event) = self.feed.take() {
                return Ok(event);
            }
            let made = Waiting::Readable(self.feed.wake_fd());
            match &self.arriving {
                Some(arriving) if runs_dry => session::wait(&[made, Waiting::Readable(arriving.fd())]),
                _ => session::wait(&[made]),
            }
        }
    }
}

/// Collects what the feed needs to know. Its thread must not call PostgreSQL.
fn of_lines(plan: Plan) -> feed::Plan {
    let created_at_url = settings::created_at_url();
    let resource_type = plan.resource_type.map(|resource_type| resource_type.as_str().to_owned());
    let encoder = if plan.fhir {
        let expected = resource_type.as_deref();
        Encoder::new(IdRule::Fhir, &created_at_url).from_fhir(
            settings::fhir_version(),
            settings::convert_extensions(),
            expected,
        )
    } else {
        Encoder::new(IdRule::Aidbox, &created_at_url)
    };
    feed::Plan {
        encoder,
        resource_type,
        is_type: |name| ResourceType::new(name).is_ok(),
        skip: plan.options.on_error != OnError::Abort,
        merge: plan.options.merge,
        strip_nulls: plan.options.strip_nulls,
        max_line_bytes: settings::max_line_bytes(),
        start: plan.start,
    }
}

/// # Errors
/// 53200 if there was no memory for the row of a line.
fn pushed(name: &str, line: u64, row: &Row<'_>, pushed: std::result::Result<(), TryReserveError>) -> Result<()> {
    pushed.map_err(|_| {
        Error::new(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, format!("line {line} of {name}: out of memory"))
            .detail(format!("The resource takes {} bytes.", row.resource.len()))
    })
}
