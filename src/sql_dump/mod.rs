//! `dump_sql` and `dump_sql_chunks`: return the rows of a query as CSV, JSON, `INSERT`s, or the body of a `_bulk` request.

mod csv;
mod format;
mod json;
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
    let reader = reporting(|| or_raise(open(query, format, options, calling)));
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
    let reader = reporting(|| or_raise(open(query, format, options, calling)));
    ChunkStream::new(reader, gzip, chunk_bytes).rows()
}

/// 1. check the arguments
/// 2. plan and start the query, which cannot write
/// 3. check that its columns suit the format
fn open(query: Option<&str>, format: Option<&str>, options: Option<JsonB>, calling: Calling) -> Result<Reader> {
    let text = CString::new(required(query, "query")?).map_err(|_| Error::invalid_argument("the query has a NUL"))?;
    let format = Format::parse(required(format, "format")?, required(options, "options")?.0)?;
    let query = Query::open(&text, format.settings())?;
    query.close_with_statement(calling);
    let writer = format.writer(&query.columns().collect::<Vec<_>>())?;
    Ok(Reader { query, writer, at_start: true })
}

/// The rows of a query as objects, one per line.
///
/// # Errors
/// 42701 for a repeated column.
pub fn objects(query: Query) -> Result<Reader> {
    let writer = Format::Ndjson.writer(&query.columns().collect::<Vec<_>>())?;
    Ok(Reader { query, writer, at_start: true })
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
    at_start: bool,
}

impl Lines for Reader {
    fn read(&mut self, out: &mut Vec<u8>, mut pause: impl FnMut(&mut Vec<u8>) -> bool) -> Result<More> {
        let Reader { query, writer, at_start } = self;
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
                if writer.end(out) {
                    pause(out);
                }
                Ok(More::No)
            }
        }
    }
}
