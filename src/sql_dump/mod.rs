//! `dump_sql` and `dump_sql_chunks`: return the rows of a query as CSV, JSON, `INSERT`s, the body of a `_bulk` request, or a
//! Parquet file.

mod beside;
mod csv;
mod format;
mod json;
mod parquet;
mod sql;
mod values;
mod writer;

use crate::arguments::{Options, parsed, required};
use crate::parquet::{no_gzip, no_lines};
use crate::stream::{ChunkStream, Divisible, Division, LineStream, Lines, More, chunk_size};
use crate::views::Selection;
use beside::Given;
use fhir_bulk_pg::catalog;
use fhir_bulk_pg::cursor::{Calling, Fetched};
use fhir_bulk_pg::datum::{Bytea, JsonbBytes, Text};
use fhir_bulk_pg::error::{Error, Result, or_raise};
use fhir_bulk_pg::query::Query;
use fhir_bulk_pg::whole::reporting;
use format::Format;
use pgrx::prelude::*;
use pgrx::{PgSqlErrorCode, default, pg_sys};
use serde_json::{Map, Value};
use std::ffi::CString;
use std::ops::ControlFlow;
use writer::Writer;

/// Returns one line of the body per row. An `INSERT`, the two lines of a `_bulk` document, and a CSV record with newlines in
/// its values are one row too.
#[pg_extern(stable, parallel_unsafe)]
fn dump_sql(
    query: Option<&str>,
    format: default!(Option<&str>, "'csv'"),
    options: default!(Option<JsonbBytes<'_>>, "'{}'"),
    calling: Calling,
) -> SetOfIterator<'static, Text> {
    let asked = or_raise(parsed(options, "options").and_then(|options| parse(format, options)));
    if !asked.format.has_lines() {
        or_raise(Err(no_lines("dump_sql_chunks")))
    }
    let reader = reporting(|| or_raise(start(query, asked)));
    reader.close_with_statement(calling);
    LineStream::new(reader).rows()
}

/// Returns the body in chunks.
#[pg_extern(stable, parallel_unsafe)]
fn dump_sql_chunks(
    query: Option<&str>,
    format: default!(Option<&str>, "'csv'"),
    gzip: default!(Option<bool>, "false"),
    options: default!(Option<JsonbBytes<'_>>, "'{}'"),
    chunk_bytes: default!(Option<i32>, "65536"),
    calling: Calling,
) -> SetOfIterator<'static, Bytea> {
    let chunk_bytes = or_raise(chunk_size(chunk_bytes));
    let gzip = or_raise(required(gzip, "gzip"));
    let asked = or_raise(parsed(options, "options").and_then(|options| parse(format, options)));
    if gzip && !asked.format.has_lines() {
        or_raise(Err(no_gzip()))
    }
    let reader = reporting(|| or_raise(start(query, asked)));
    reader.close_with_statement(calling);
    ChunkStream::new(reader, gzip, chunk_bytes).rows()
}

/// What is asked of a query's rows.
struct Asked {
    format: Format,
    given: Given,
}

/// Checks the arguments `format` and `options`.
fn parse(format: Option<&str>, options: Value) -> Result<Asked> {
    let name = required(format, "format")?;
    let mut options = Options::new(options)?;
    let format = Format::parse(name, &mut options)?;
    let given = Given::parse(&mut options)?;
    options.end(&format!("format {name}"), &format.known_options())?;
    Ok(Asked { format, given })
}

/// The rows of a query, as a caller of `dump_sql_chunks` gets them.
///
/// # Errors
/// Those of the arguments and of the query.
pub fn open(query: &str, format: &str, options: Value) -> Result<Reader> {
    start(Some(query), parse(Some(format), options)?)
}

/// Locks what a query reads until the transaction ends, also what its views, and policies, read. Takes no snapshot.
///
/// # Errors
/// As for [`open`].
pub fn lock_reads(query: &str, views: Map<String, Value>, parameters: Option<Map<String, Value>>) -> Result<()> {
    let given = Given::new(views, parameters, Selection::default())?;
    let text = c_text(query)?;
    Query::lock_reads(&text, &given.beside(&text)?)
}

/// 1. plan and start the query, with its views and values; it cannot write
/// 2. check that its columns suit the format
fn start(query: Option<&str>, Asked { format, given }: Asked) -> Result<Reader> {
    let text = c_text(required(query, "query")?)?;
    let query = Query::open_beside(&text, format.settings(), &given.beside(&text)?)?;
    Reader::new(query, format, given.limit())
}

fn c_text(query: &str) -> Result<CString> {
    CString::new(query).map_err(|_| Error::invalid_argument("the query has a NUL"))
}

/// The rows of a query as objects, one per line.
///
/// # Errors
/// 42701 for a repeated column.
pub fn objects(query: Query) -> Result<Reader> {
    Reader::new(query, Format::Ndjson, None)
}

/// The rows of a relation as objects, one per line. As in COPY, rows of child tables are not included.
///
/// # Errors
/// 42809 for a relation that has no rows; PostgreSQL's own are raised.
pub fn objects_of_relation(relation: pg_sys::Oid) -> Result<Reader> {
    let (schema, name) = catalog::full_name(relation);
    let name = format!("{}.{}", catalog::quote_identifier(&schema), catalog::quote_identifier(&name));
    let only = match catalog::kind(relation) {
        b'r' => "ONLY ",
        b'p' | b'f' | b'v' | b'm' => "",
        _ => return Err(Error::new(PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE, format!("{name} is no table or view"))),
    };
    let text = CString::new(format!("SELECT * FROM {only}{name}")).expect("names have no NUL");
    objects(Query::open_whole(&text)?)
}

/// An open query and the format of its rows.
pub struct Reader {
    query: Query,
    writer: Box<dyn Writer>,
    has_lines: bool,
    at_start: bool,
    /// How many rows may still be returned.
    left: Option<u64>,
    division: Division,
}

impl Reader {
    fn new(query: Query, format: Format, left: Option<u64>) -> Result<Reader> {
        let has_lines = format.has_lines();
        let writer = format.writer(query.columns())?;
        Ok(Reader { query, writer, has_lines, at_start: true, left, division: Division::default() })
    }

    /// Ends the query when the calling statement ends.
    pub fn close_with_statement(&self, calling: Calling) {
        self.query.close_with_statement(calling);
    }

    /// Ends the query, of which no more rows are wanted.
    pub fn close(&mut self) {
        self.query.close();
    }
}

impl Lines for Reader {
    fn has_lines(&self) -> bool {
        self.has_lines
    }

    fn read(&mut self, out: &mut Vec<u8>, mut pause: impl FnMut(&mut Vec<u8>) -> bool) -> Result<More> {
        let Reader { query, writer, at_start, left, division, .. } = self;
        if std::mem::take(at_start) && writer.start(out) && pause(out) {
            return Ok(More::Yes);
        }
        let fetched = if *left == Some(0) {
            Fetched::End
        } else {
            query.fetch(|row| {
                if division.count() {
                    if writer.end(out)? {
                        pause(out);
                    }
                    division.begin(out.len());
                    if writer.start(out) {
                        pause(out);
                    }
                }
                let ended = writer.row(row, out)?;
                let is_last = left.as_mut().is_some_and(|left| {
                    *left -= 1;
                    *left == 0
                });
                let pauses = ended && pause(out);
                Ok(if pauses || is_last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?
        };
        match fetched {
            Fetched::Paused if *left != Some(0) => Ok(More::Yes),
            _ => {
                query.close();
                if writer.end(out)? {
                    pause(out);
                }
                Ok(More::No)
            }
        }
    }
}

impl Divisible for Reader {
    fn division(&mut self) -> &mut Division {
        &mut self.division
    }
}
