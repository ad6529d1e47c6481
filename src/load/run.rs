//! A source on its way into resource tables, in one transaction or, batch by batch, in several.

use super::options::{OnError, Options};
use super::refusals;
use super::rejects::Rejects;
use super::tables::Tables;
use crate::settings;
use crate::source::{Arriving, Bytes, Progress, Source};
use crate::store::{ResourceTable, ResourceType, Stamp, make_sequence, next_txid};
use fhir_bulk_codec::error::IdRule;
use fhir_bulk_codec::resource::Encoder;
use fhir_bulk_feed::{self as feed, Chunk, Event, Feed, Item, Row};
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::session::{self, Waiting};
use pgrx::PgSqlErrorCode;
use std::collections::BTreeMap;

pub use fhir_bulk_feed::{Pace, Position};

/// What is to become of a source's lines.
pub struct Plan {
    /// The type of all lines; without it each says its own.
    pub resource_type: Option<ResourceType>,
    /// The one table that lines go to, of whatever name and schema; without it each type has its own in
    /// `fhir_bulk.data_schema`.
    pub table: Option<ResourceTable>,
    /// The lines are in FHIR's form, else in Aidbox's.
    pub fhir: bool,
    /// See [`Options`].
    pub options: Options,
    /// What else a line may be that is refused, with its number: an error that ends the load, also where lines may be
    /// passed over.
    pub mistaken: Option<Mistaken>,
    /// Where to start: what is before was stored by an earlier load of the same source.
    pub start: Position,
}

/// See [`Plan::mistaken`].
pub type Mistaken = fn(u64, &[u8]) -> Option<Error>;

/// A load under way.
pub struct Load {
    name: String,
    progress: Progress,
    /// Reads the source, where the feed can't do it by itself.
    arriving: Option<Box<dyn Arriving>>,
    /// Makes rows of the source's bytes meanwhile.
    feed: Feed,
    /// What it made last, and the next item of it.
    chunk: Chunk,
    next: usize,
    position: Position,
    /// There are no more than those of the chunk.
    at_end: bool,
    resource_type: Option<ResourceType>,
    table: Option<ResourceTable>,
    mistaken: Option<Mistaken>,
    keep_history: bool,
    start: Position,
    /// How many tables it has made so far.
    created: usize,
    rejects: Option<Rejects>,
}

/// What a batch came to.
pub struct Batch {
    /// How many lines of each type are stored.
    pub counts: BTreeMap<String, u64>,
    /// There are no more lines.
    pub at_end: bool,
}

impl Load {
    /// Starts to make rows of a source under the current role's settings.
    ///
    /// # Errors
    /// 53000 when no thread can be had.
    pub fn start(source: Source, plan: Plan) -> Result<Load> {
        let Source { name, bytes, progress } = source;
        let rejects = match plan.options.on_error {
            OnError::Abort => None,
            OnError::Skip { max_errors } => Some(Rejects::new(&name, max_errors)),
        };
        let (start, keep_history) = (plan.start, plan.options.update);
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
            keep_history,
            start,
            created: 0,
            rejects,
        })
    }

    /// Where the next batch begins.
    pub fn position(&self) -> Position {
        self.position
    }

    /// How much of the source, as it is stored, has been read.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// How far ahead of the writing lines are read.
    pub fn pace(&self) -> &Pace {
        self.feed.pace()
    }

    /// Waits for the first lines, and makes what the first batch would make: the sequence, and the table if all lines
    /// are of one type.
    ///
    /// # Errors
    /// Those of reading the source and of [`ResourceTable::get_or_create`].
    pub fn prepare(&mut self) -> Result<()> {
        self.has_line()?;
        make_sequence()?;
        let Some(resource_type) = &self.resource_type else { return Ok(()) };
        if ResourceTable::find_to_write(resource_type)?.is_none() {
            ResourceTable::get_or_create(resource_type)?;
        }
        Ok(())
    }

    /// Stores lines in the current transaction until there are no more or `enough` says so of the number that this
    /// batch has taken, and of whether it has made tables. After an error the load can't go on.
    ///
    /// 1. take the batch's number
    /// 2. each line, which the feed has made a row of: its type decides the table
    /// 3. write what is left of each table's rows
    ///
    /// # Errors
    /// 22 for lines that can't be loaded, 54 for limits, with source and line; those of reading the source, 55000 for
    /// one that has changed before its start. PostgreSQL's own (42501, 23…) are raised.
    pub fn batch(&mut self, mut enough: impl FnMut(u64, bool) -> bool) -> Result<Batch> {
        let stamp = Stamp { txid: next_txid(self.table.as_ref())?, ts: session::transaction_start() };
        let mut tables = Tables::new(stamp, self.keep_history, self.created, self.table.clone());
        if let Some(expected) = &self.resource_type {
            tables.open(expected, true)?;
        }
        let mut taken = 0;
        let at_end = loop {
            if enough(taken, tables.has_created()) {
                break false;
            }
            if !self.take_line(&mut tables)? {
                break true;
            }
            taken += 1;
        };
        self.created = tables.created();
        Ok(Batch { counts: tables.finish(), at_end })
    }

    /// Writes what is left to write; how many lines were passed over, if they may be.
    pub fn finish(self) -> Option<u64> {
        self.rejects.map(Rejects::finish)
    }

    /// Waits for a line; false at the end.
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

    /// False at the end.
    fn take_line(&mut self, tables: &mut Tables) -> Result<bool> {
        self.has_line()?;
        let Load { name, chunk, next, position, resource_type, mistaken, rejects, .. } = self;
        let Some((reached, item)) = chunk.get(*next) else { return Ok(false) };
        match item {
            Item::Row(row) => store(&row, name, reached.lines, tables)?,
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
        Ok(true)
    }

    /// Gives the feed what it has room for until it has made something. A cancel takes effect here.
    fn wait(&mut self) -> Result<Event> {
        loop {
            session::check_for_interrupts();
            // First: while what is made is stored, the feed goes on with this.
            let mut runs_dry = false;
            if let Some(arriving) = &mut self.arriving {
                while !runs_dry && self.feed.has_room() {
                    match arriving.next()? {
                        Some(block) => self.feed.give(Ok(block)),
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

/// What the feed needs to know, which may not ask PostgreSQL.
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

/// Stores a row, of a line with this number.
///
/// # Errors
/// A table that can't be written, a limit on tables, memory that can't be had.
fn store(row: &Row<'_>, name: &str, line: u64, tables: &mut Tables) -> Result<()> {
    let writer = tables.of_type(row.resource_type, || refusals::place_of_type(name, line))?;
    writer.push(row.id, row.resource, row.created_at).map_err(|_| {
        Error::new(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, format!("line {line} of {name}: out of memory"))
            .detail(format!("The resource takes {} bytes.", row.resource.len()))
    })
}
