//! `bulk_load`: NDJSON from a source into resource tables, in the caller's transaction: all of it or nothing.

mod options;
mod rejects;
mod tables;

use crate::arguments::required;
use crate::error::{Error, Result, or_raise};
use crate::pg::session;
use crate::settings;
use crate::source::{self, Interruptible, Source};
use crate::store::{ResourceType, Stamp, next_txid};
use fhir_bulk_codec::error::IdRule;
use fhir_bulk_codec::ndjson::{Line, Lines, ReadError};
use fhir_bulk_codec::resource::Encoder;
use fhir_bulk_codec::{gzip, instant};
use options::{OnError, Options};
use pgrx::prelude::*;
use pgrx::{JsonB, PgSqlErrorCode, default};
use rejects::Rejects;
use serde_json::{Map, Value, json};
use std::io;
use tables::Tables;

/// How much of a source is read at once.
const READ_BYTES: usize = 256 << 10;

/// Loads a source; the answer is `{"total": n}` or the count of each type, and with `on_error` "skip" `errors`.
#[pg_extern(volatile, parallel_unsafe)]
fn bulk_load(
    source: Option<&str>,
    resource_type: default!(Option<&str>, "NULL"),
    fhir: default!(Option<bool>, "false"),
    options: default!(Option<JsonB>, "'{}'"),
) -> JsonB {
    JsonB(or_raise(load(source, resource_type, fhir, options)))
}

/// 1. check the arguments and that the transaction may write
/// 2. open the source; undo its gzip, if any
/// 3. take the load's number
/// 4. each line: JSON text into jsonb bytes, identity taken out; its type decides the table
/// 5. write what is left of each table's batch
fn load(
    source: Option<&str>,
    resource_type: Option<&str>,
    fhir: Option<bool>,
    options: Option<JsonB>,
) -> Result<Value> {
    session::prevent_if_read_only(c"bulk_load()");
    let (url, fhir) = (required(source, "source")?, required(fhir, "fhir")?);
    let options = Options::parse(required(options, "options")?.0)?;
    let expected = resource_type.map(ResourceType::new).transpose()?;

    let Source { name, bytes } = source::open(url)?;
    let bytes = gzip::Reader::new(bytes, READ_BYTES).map_err(|error| unreadable(&name, 1, &ReadError::Io(error)))?;
    let mut lines = Lines::new(Interruptible(bytes), settings::max_line_bytes());

    let stamp = Stamp { txid: next_txid()?, ts: session::transaction_start() };
    let mut tables = Tables::new(stamp, options.update);
    if let Some(expected) = &expected {
        tables.open(expected, true)?;
    }
    let created_at_url = settings::created_at_url();
    let encoder = if fhir {
        let expected = expected.as_ref().map(ResourceType::as_str);
        Encoder::new(IdRule::Fhir, &created_at_url).from_fhir(
            settings::fhir_version(),
            settings::convert_extensions(),
            expected,
        )
    } else {
        Encoder::new(IdRule::Aidbox, &created_at_url)
    };
    let mut loader = Loader { name, expected, encoder, options, merged: Vec::new(), tables };
    let mut rejects = match loader.options.on_error {
        OnError::Abort => None,
        OnError::Skip { max_errors } => Some(Rejects::new(&loader.name, max_errors)),
    };
    loop {
        let line = match lines.next_line() {
            Ok(Some(line)) => line,
            Ok(None) => break,
            Err(error) => {
                let number = lines.number();
                let refused = unreadable(&loader.name, number, &error);
                match (&mut rejects, error) {
                    (Some(rejects), ReadError::LineTooLong(_)) => {
                        rejects.take(refused, number, lines.offset(), lines.long_line())?;
                        lines.skip_long_line().map_err(|error| unreadable(&loader.name, number, &error))?;
                        continue;
                    }
                    _ => return Err(refused),
                }
            }
        };
        match (loader.take(&line)?, &mut rejects) {
            (Taken::Stored, _) => {}
            (Taken::Refused(error), Some(rejects)) => rejects.take(error, line.number, line.offset, line.bytes)?,
            (Taken::Refused(error), None) => return Err(error),
        }
    }

    let typed = loader.expected.is_some();
    let counts = loader.tables.finish();
    let mut answer = if typed {
        json!({"total": counts.values().sum::<u64>()})
    } else {
        Value::Object(counts.into_iter().map(|(name, count)| (name, count.into())).collect::<Map<_, _>>())
    };
    if let Some(rejects) = rejects {
        answer["errors"] = rejects.finish().into();
    }
    Ok(answer)
}

/// What became of a line.
enum Taken {
    Stored,
    /// The line is bad; another may be good.
    Refused(Error),
}

/// What turns lines into rows.
struct Loader {
    name: String,
    expected: Option<ResourceType>,
    encoder: Encoder,
    options: Options,
    /// A line with what is merged into it.
    merged: Vec<u8>,
    tables: Tables,
}

impl Loader {
    /// # Errors
    /// What no other line could change: a table that can't be written, a limit on tables.
    fn take(&mut self, line: &Line<'_>) -> Result<Taken> {
        let Loader { name, expected, encoder, options, merged, tables } = self;
        let number = line.number;
        let of_line = |error| Taken::Refused(Error::of_line(name, number, &error));
        let (bytes, end_of_line) = merge(line.bytes, &options.merge, merged);
        encoder.strip_nulls_before(if options.strip_nulls { end_of_line } else { 0 });
        let encoded = match encoder.encode(bytes) {
            Ok(encoded) => encoded,
            Err(error) => return Ok(of_line(error)),
        };
        let resource_type = match (encoded.resource_type(), &*expected) {
            (Some(given), Some(expected)) if given != expected.as_str() => {
                return Ok(Taken::Refused(foreign_type(name, number, given, expected.as_str())));
            }
            (Some(given), _) => given,
            (None, Some(expected)) => expected.as_str(),
            (None, None) => return Ok(Taken::Refused(missing_type(name, number))),
        };
        let created_at = match encoded.created_at().map(|text| (text, instant::parse(text))) {
            None => None,
            Some((_, Some(at))) => Some(at),
            Some((text, None)) => return Ok(Taken::Refused(invalid_created_at(name, number, text))),
        };
        let place = || format!("The type is that of line {number} of {name}.");
        let writer = match tables.of_type(resource_type, place)? {
            Ok(writer) => writer,
            Err(error) => return Ok(Taken::Refused(error.detail(place()))),
        };
        Ok(match writer.push(&encoded, created_at) {
            Ok(()) => Taken::Stored,
            Err(error) => of_line(error),
        })
    }
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
