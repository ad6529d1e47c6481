//! `dump_sql` and `dump_sql_chunks`: return the rows of a query as CSV, JSON, `INSERT`s, the body of a `_bulk` request, or a
//! Parquet file.

mod csv;
mod format;
mod json;
mod parquet;
mod sql;
mod writer;

use crate::arguments::required;
use crate::stream::{ChunkStream, LineStream, Lines, More, chunk_size};
use fhir_bulk_pg::catalog;
use fhir_bulk_pg::cursor::{Calling, Fetched};
use fhir_bulk_pg::datum::{Bytea, Text};
use fhir_bulk_pg::error::{Error, Result, or_raise};
use fhir_bulk_pg::query::Query;
use fhir_bulk_pg::whole::reporting;
use format::Format;
use pgrx::prelude::*;
use pgrx::{JsonB, PgSqlErrorCode, default, pg_sys};
use std::ffi::CString;
use std::ops::ControlFlow;
use writer::Writer;

/// Returns one line of the body per row. An `INSERT`, the two lines of a `_bulk` document, and a CSV record with newlines in
/// its values are one row too.
#[pg_extern(stable, parallel_unsafe)]
fn dump_sql(
    query: Option<&str>,
    format: default!(Option<&str>, "'csv'"),
    options: default!(Option<JsonB>, "'{}'"),
    calling: Calling,
) -> SetOfIterator<'static, Text> {
    let format = or_raise(parse(format, options));
    if !format.has_lines() {
        let why = Error::invalid_argument("format parquet is binary, and has no lines");
        or_raise(Err(why.hint("Call dump_sql_chunks().")))
    }
    let reader = reporting(|| or_raise(open(query, format, calling)));
    LineStream::new(reader).rows()
}

/// Returns the body in chunks.
#[pg_extern(stable, parallel_unsafe)]
fn dump_sql_chunks(
    query: Option<&str>,
    format: default!(Option<&str>, "'csv'"),
    gzip: default!(Option<bool>, "false"),
    options: default!(Option<JsonB>, "'{}'"),
    chunk_bytes: default!(Option<i32>, "65536"),
    calling: Calling,
) -> SetOfIterator<'static, Bytea> {
    let chunk_bytes = or_raise(chunk_size(chunk_bytes));
    let gzip = or_raise(required(gzip, "gzip"));
    let format = or_raise(parse(format, options));
    if gzip && !format.has_lines() {
        let why = Error::invalid_argument("format parquet is compressed in itself, and takes no gzip");
        or_raise(Err(why.hint("Leave out gzip.")))
    }
    let reader = reporting(|| or_raise(open(query, format, calling)));
    ChunkStream::new(reader, gzip, chunk_bytes).rows()
}

fn parse(format: Option<&str>, options: Option<JsonB>) -> Result<Format> {
    Format::parse(required(format, "format")?, required(options, "options")?.0)
}

/// 1. plan and start the query, which cannot write
/// 2. check that its columns suit the format
fn open(query: Option<&str>, format: Format, calling: Calling) -> Result<Reader> {
    let text = CString::new(required(query, "query")?).map_err(|_| Error::invalid_argument("the query has a NUL"))?;
    let query = Query::open(&text, format.settings())?;
    query.close_with_statement(calling);
    Reader::new(query, format)
}

/// The rows of a query as objects, one per line.
///
/// # Errors
/// 42701 for a repeated column.
pub fn objects(query: Query) -> Result<Reader> {
    Reader::new(query, Format::Ndjson)
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
}

impl Reader {
    fn new(query: Query, format: Format) -> Result<Reader> {
        let has_lines = format.has_lines();
        let writer = format.writer(query.columns())?;
        Ok(Reader { query, writer, has_lines, at_start: true })
    }
}

impl Lines for Reader {
    fn has_lines(&self) -> bool {
        self.has_lines
    }

    fn read(&mut self, out: &mut Vec<u8>, mut pause: impl FnMut(&mut Vec<u8>) -> bool) -> Result<More> {
        let Reader { query, writer, at_start, .. } = self;
        if std::mem::take(at_start) && writer.start(out) && pause(out) {
            return Ok(More::Yes);
        }
        let fetched = query.fetch(|row| {
            let ended = writer.row(row, out)?;
            Ok(if ended && pause(out) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        match fetched {
            Fetched::Paused => Ok(More::Yes),
            Fetched::End => {
                if writer.end(out)? {
                    pause(out);
                }
                Ok(More::No)
            }
        }
    }
}
