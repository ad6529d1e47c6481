//! `bulk_load`: NDJSON from a source into resource tables, in the caller's transaction: all of it or nothing.

use crate::arguments::required;
use crate::error::{Error, Result, or_raise};
use crate::pg::session;
use crate::settings;
use crate::source::{self, Source};
use crate::store::{ResourceTable, ResourceType, Stamp, TableWriter, next_txid};
use fhir_bulk_codec::error::IdRule;
use fhir_bulk_codec::ndjson::{Lines, ReadError};
use fhir_bulk_codec::resource::Encoder;
use fhir_bulk_codec::{gzip, instant};
use pgrx::prelude::*;
use pgrx::{JsonB, PgSqlErrorCode, default};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io;

/// How much of a source is read at once.
const READ_BYTES: usize = 256 << 10;

/// Loads a source; the answer is `{"total": n}` or the count of each type.
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
    check_options(required(options, "options")?)?;
    let expected = resource_type.map(ResourceType::new).transpose()?;

    let Source { name, bytes } = source::open(url)?;
    let bytes = gzip::Reader::new(bytes, READ_BYTES).map_err(|error| unreadable(&name, 1, &ReadError::Io(error)))?;
    let mut lines = Lines::new(bytes, settings::max_line_bytes());

    let stamp = Stamp { txid: next_txid()?, ts: session::transaction_start() };
    let mut tables = Tables { writers: BTreeMap::new(), created: 0, stamp, last: None };
    if let Some(expected) = &expected {
        tables.open(expected.as_str(), true)?;
    }
    let id_rule = if fhir { IdRule::Fhir } else { IdRule::Aidbox };
    let mut encoder = Encoder::new(id_rule, &settings::created_at_url());
    loop {
        let line = match lines.next_line() {
            Ok(Some(line)) => line,
            Ok(None) => break,
            Err(error) => return Err(unreadable(&name, lines.number(), &error)),
        };
        let number = line.number;
        let encoded = encoder.encode(line.bytes).map_err(|error| Error::of_line(&name, number, &error))?;
        let given = match (encoded.resource_type(), &expected) {
            (Some(given), Some(expected)) if given != expected.as_str() => {
                return Err(foreign_type(&name, number, given, expected.as_str()));
            }
            (Some(given), _) => given,
            (None, Some(expected)) => expected.as_str(),
            (None, None) => return Err(missing_type(&name, number)),
        };
        let created_at = match encoded.created_at() {
            Some(text) => Some(instant::parse(text).ok_or_else(|| invalid_created_at(&name, number, text))?),
            None => None,
        };
        let writer = tables.of_type(given, expected.is_some(), &name, number)?;
        writer.push(&encoded, created_at).map_err(|error| Error::of_line(&name, number, &error))?;
    }

    let counts = tables.finish();
    Ok(match expected {
        Some(_) => json!({"total": counts.values().sum::<u64>()}),
        None => Value::Object(counts.into_iter().map(|(name, count)| (name, count.into())).collect::<Map<_, _>>()),
    })
}

/// The tables of a load and what went into each.
struct Tables {
    writers: BTreeMap<String, (TableWriter, u64)>,
    created: usize,
    stamp: Stamp,
    /// The type of the last line; most lines have the same.
    last: Option<String>,
}

impl Tables {
    /// The writer of a type, which is opened, and its table made, at its first line.
    fn of_type(&mut self, resource_type: &str, typed: bool, source: &str, line: u64) -> Result<&mut TableWriter> {
        if self.last.as_deref() != Some(resource_type) {
            if !self.writers.contains_key(resource_type) {
                self.open(resource_type, typed)
                    .map_err(|error| error.detail(format!("The type is that of line {line} of {source}.")))?;
            }
            self.last = Some(resource_type.to_owned());
        }
        let (writer, count) = self.writers.get_mut(resource_type).expect("opened above");
        *count += 1;
        Ok(writer)
    }

    fn open(&mut self, resource_type: &str, typed: bool) -> Result<()> {
        let resource_type = ResourceType::new(resource_type)?;
        let known = ResourceTable::find(&resource_type)?;
        if known.is_none() && !typed {
            let limit = settings::max_new_tables();
            if self.created == limit {
                return Err(Error::new(
                    PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                    format!(
                        "the source has more than {limit} types without a table, such as \"{}\"",
                        resource_type.as_str()
                    ),
                )
                .hint("Raise fhir_bulk.max_new_tables, or correct resourceType in the source."));
            }
            self.created += 1;
        }
        let table = match known {
            Some(table) => table,
            None => ResourceTable::get_or_create(&resource_type)?,
        };
        let writer = TableWriter::open(&table, resource_type.as_str(), self.stamp)?;
        self.writers.insert(resource_type.as_str().to_owned(), (writer, 0));
        Ok(())
    }

    fn finish(self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for (name, (writer, count)) in self.writers {
            writer.finish();
            counts.insert(name, count);
        }
        counts
    }
}

/// No option is known yet.
fn check_options(JsonB(options): JsonB) -> Result<()> {
    match options {
        Value::Object(options) => match options.keys().next() {
            Some(name) => Err(Error::invalid_argument(format!("unknown option \"{name}\""))),
            None => Ok(()),
        },
        _ => Err(Error::invalid_argument("options is not a JSON object").hint("Leave it out, or pass '{}'.")),
    }
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
        ReadError::Io(error) => {
            // The decoder names what is wrong with a gzip stream by these kinds; a file's own errors have others.
            let broken = matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
            );
            if broken {
                Error::new(
                    PgSqlErrorCode::ERRCODE_BAD_COPY_FILE_FORMAT,
                    format!("line {line} of {source}: the gzip stream is truncated or corrupt"),
                )
                .detail(format!("{error}."))
                .hint("Check it with gzip -t.")
            } else {
                Error::new(PgSqlErrorCode::ERRCODE_IO_ERROR, format!("could not read {source}: {error}"))
                    .detail(format!("It failed in line {line}."))
            }
        }
    }
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
