//! A source on its way into resource tables, in one transaction or, batch by batch, in several.

use super::options::{OnError, Options};
use super::rejects::Rejects;
use super::tables::Tables;
use crate::error::{Error, Result};
use crate::pg::session;
use crate::settings;
use crate::source::{self, Interruptible, Progress, Source};
use crate::store::{ResourceType, Stamp, next_txid};
use fhir_bulk_codec::error::IdRule;
use fhir_bulk_codec::ndjson::{Line, Lines, ReadError};
use fhir_bulk_codec::resource::Encoder;
use fhir_bulk_codec::{gzip, instant};
use pgrx::PgSqlErrorCode;
use std::collections::BTreeMap;
use std::io::{self, Read};

/// How much of a source is read at once.
const READ_BYTES: usize = 256 << 10;

/// What is to become of a source's lines.
pub struct Plan {
    /// The type of all lines; without it each says its own.
    pub resource_type: Option<ResourceType>,
    /// The lines are in FHIR's form, else in Aidbox's.
    pub fhir: bool,
    /// See [`Options`].
    pub options: Options,
    /// See [`source::open`].
    pub retries: u32,
}

/// A load under way.
pub struct Load {
    name: String,
    progress: Progress,
    lines: Lines<Interruptible<gzip::Reader<Box<dyn Read>>>>,
    encoder: Encoder,
    plan: Plan,
    /// A line with what is merged into it.
    merged: Vec<u8>,
    rejects: Option<Rejects>,
}

/// How far into a source a load has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Lines, blank ones too.
    pub lines: u64,
    /// Bytes of the decompressed stream.
    pub bytes: u64,
}

/// What a batch came to.
pub struct Batch {
    /// How many lines of each type are stored.
    pub counts: BTreeMap<String, u64>,
    /// There are no more lines.
    pub at_end: bool,
}

impl Load {
    /// Opens `url` with the current role's rights, under its settings.
    ///
    /// # Errors
    /// Those of [`source::open`] and of reading the first bytes.
    pub fn open(url: &str, plan: Plan) -> Result<Load> {
        let Source { name, bytes, progress } = source::open(url, plan.retries)?;
        let bytes =
            gzip::Reader::new(bytes, READ_BYTES).map_err(|error| unreadable(&name, 1, &ReadError::Io(error)))?;
        let lines = Lines::new(Interruptible(bytes), settings::max_line_bytes());
        let created_at_url = settings::created_at_url();
        let encoder = if plan.fhir {
            let expected = plan.resource_type.as_ref().map(ResourceType::as_str);
            Encoder::new(IdRule::Fhir, &created_at_url).from_fhir(
                settings::fhir_version(),
                settings::convert_extensions(),
                expected,
            )
        } else {
            Encoder::new(IdRule::Aidbox, &created_at_url)
        };
        let rejects = match plan.options.on_error {
            OnError::Abort => None,
            OnError::Skip { max_errors } => Some(Rejects::new(&name, max_errors)),
        };
        Ok(Load { name, progress, lines, encoder, plan, merged: Vec::new(), rejects })
    }

    /// Where the next batch begins.
    pub fn position(&self) -> Position {
        Position { lines: self.lines.number(), bytes: self.lines.offset() }
    }

    /// How much of the source, as it is stored, has been read.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Passes over what an earlier load of the same source has stored.
    ///
    /// # Errors
    /// 22023 when the source is shorter by now; those of reading it.
    pub fn skip_to(&mut self, position: Position) -> Result<()> {
        let found = self.lines.skip_to(position.lines, position.bytes);
        if found.map_err(|error| unreadable(&self.name, self.lines.number(), &error))? {
            return Ok(());
        }
        Err(Error::new(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("{} is shorter than when it was first read", self.name),
        )
        .detail(format!("{} lines of it were stored then, {} bytes.", position.lines, position.bytes))
        .hint("Import the source it is now as a new job."))
    }

    /// Stores lines in the current transaction until there are no more or `enough` says so of the number that this
    /// batch has taken. After an error the load can't go on.
    ///
    /// 1. take the batch's number
    /// 2. each line: JSON text into jsonb bytes, identity taken out; its type decides the table
    /// 3. write what is left of each table's rows
    ///
    /// # Errors
    /// 22 for lines that can't be loaded, 54 for limits, with source and line; those of reading the source.
    /// PostgreSQL's own (42501, 23…) are raised.
    pub fn batch(&mut self, mut enough: impl FnMut(u64) -> bool) -> Result<Batch> {
        let stamp = Stamp { txid: next_txid()?, ts: session::transaction_start() };
        let mut tables = Tables::new(stamp, self.plan.options.update);
        if let Some(expected) = &self.plan.resource_type {
            tables.open(expected, true)?;
        }
        let mut taken = 0;
        let at_end = loop {
            if enough(taken) {
                break false;
            }
            if !self.take_line(&mut tables)? {
                break true;
            }
            taken += 1;
        };
        Ok(Batch { counts: tables.finish(), at_end })
    }

    /// Writes what is left to write; how many lines were passed over, if they may be.
    pub fn finish(self) -> Option<u64> {
        self.rejects.map(Rejects::finish)
    }

    /// False at the end.
    fn take_line(&mut self, tables: &mut Tables) -> Result<bool> {
        let Load { name, lines, encoder, plan, merged, rejects, .. } = self;
        let line = match lines.next_line() {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(false),
            Err(error) => {
                let number = lines.number();
                let refused = unreadable(name, number, &error);
                let (Some(rejects), ReadError::LineTooLong(_)) = (rejects, error) else { return Err(refused) };
                rejects.take(refused, number, lines.offset(), lines.long_line())?;
                lines.skip_long_line().map_err(|error| unreadable(name, number, &error))?;
                return Ok(true);
            }
        };
        if let Some(error) = store(&line, name, encoder, plan, merged, tables)? {
            let Some(rejects) = rejects else { return Err(error) };
            rejects.take(error, line.number, line.offset, line.bytes)?;
        }
        Ok(true)
    }
}

/// Stores a line; the inner error is its own: another line may be good.
///
/// # Errors
/// What no other line could change: a table that can't be written, a limit on tables.
fn store(
    line: &Line<'_>,
    name: &str,
    encoder: &mut Encoder,
    plan: &Plan,
    merged: &mut Vec<u8>,
    tables: &mut Tables,
) -> Result<Option<Error>> {
    let number = line.number;
    let of_line = |error| Some(Error::of_line(name, number, &error));
    let (bytes, end_of_line) = merge(line.bytes, &plan.options.merge, merged);
    encoder.strip_nulls_before(if plan.options.strip_nulls { end_of_line } else { 0 });
    let encoded = match encoder.encode(bytes) {
        Ok(encoded) => encoded,
        Err(error) => return Ok(of_line(error)),
    };
    let resource_type = match (encoded.resource_type(), &plan.resource_type) {
        (Some(given), Some(expected)) if given != expected.as_str() => {
            return Ok(Some(foreign_type(name, number, given, expected.as_str())));
        }
        (Some(given), _) => given,
        (None, Some(expected)) => expected.as_str(),
        (None, None) => return Ok(Some(missing_type(name, number))),
    };
    let created_at = match encoded.created_at().map(|text| (text, instant::parse(text))) {
        None => None,
        Some((_, Some(at))) => Some(at),
        Some((text, None)) => return Ok(Some(invalid_created_at(name, number, text))),
    };
    let place = || format!("The type is that of line {number} of {name}.");
    let writer = match tables.of_type(resource_type, place)? {
        Ok(writer) => writer,
        Err(error) => return Ok(Some(error.detail(place()))),
    };
    Ok(writer.push(&encoded, created_at).err().and_then(of_line))
}

/// The line with `members` put in before its last brace, so that they come last and win; and where the line's own
/// part ends. A line that is no object stays as it is, for the parser to say so.
fn merge<'a>(line: &'a [u8], members: &str, merged: &'a mut Vec<u8>) -> (&'a [u8], usize) {
    let inner = line.trim_ascii_end().strip_suffix(b"}").map(<[u8]>::trim_ascii_end);
    let (false, Some(inner)) = (members.is_empty(), inner) else { return (line, line.len()) };
    merged.clear();
    merged.extend_from_slice(inner);
    if !inner.ends_with(b"{") {
        merged.push(b',');
    }
    merged.extend_from_slice(members.as_bytes());
    merged.push(b'}');
    (merged, inner.len())
}

fn unreadable(source: &str, line: u64, error: &ReadError) -> Error {
    match error {
        ReadError::LineTooLong(limit) => Error::new(
            PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            format!("line {line} of {source} is longer than {limit} bytes"),
        )
        .hint("Raise fhir_bulk.max_line_bytes if a resource of this size is meant."),
        ReadError::OutOfMemory(bytes) => {
            Error::new(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, format!("out of memory for line {line} of {source}"))
                .detail(format!("The line takes at least {bytes} bytes."))
        }
        ReadError::Io(error) => unreadable_source(source, line, error),
    }
}

fn unreadable_source(source: &str, line: u64, error: &io::Error) -> Error {
    if let Some(error) = source::failure(source, error) {
        return error.detail_if_none(format!("It failed in line {line}."));
    }
    // The decoder names what is wrong with a gzip stream by these kinds; a file's own errors have others.
    if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) {
        return Error::new(
            PgSqlErrorCode::ERRCODE_BAD_COPY_FILE_FORMAT,
            format!("line {line} of {source}: the gzip stream is truncated or corrupt"),
        )
        .detail(format!("{error}."))
        .hint("Check it with gzip -t.");
    }
    Error::new(PgSqlErrorCode::ERRCODE_IO_ERROR, format!("could not read {source}: {error}"))
        .detail(format!("It failed in line {line}."))
}

fn foreign_type(source: &str, line: u64, given: &str, expected: &str) -> Error {
    let shown: String = given.chars().take(80).collect();
    Error::invalid_argument(format!("line {line} of {source}: a resource of type \"{shown}\", not \"{expected}\""))
        .hint("Leave out resource_type to load a source of mixed types.")
}

fn missing_type(source: &str, line: u64) -> Error {
    Error::invalid_argument(format!("line {line} of {source}: the resource has no resourceType"))
        .hint("Pass resource_type if all lines are of one type.")
}

fn invalid_created_at(source: &str, line: u64, text: &str) -> Error {
    let shown: String = text.chars().take(80).collect();
    Error::new(
        PgSqlErrorCode::ERRCODE_INVALID_DATETIME_FORMAT,
        format!("line {line} of {source}: createdAt \"{shown}\" is not an instant"),
    )
    .hint("An instant has a date, a time and an offset: 2021-06-10T08:26:10.707454Z")
}
