//! `bulk_sql_run`: the rows of a subject of SQL on FHIR, which is a ViewDefinition, or a Library with a query. What it finds, it
//! runs as `dump_view` and `dump_sql` do.

mod library;
mod request;
mod resolve;

use crate::arguments::required;
use crate::parquet::no_gzip;
use crate::sql_dump;
use crate::stream::{ChunkStream, Lines, More, chunk_size};
use crate::views;
use fhir_bulk_pg::cursor::Calling;
use fhir_bulk_pg::datum::Bytea;
use fhir_bulk_pg::error::{Result, or_raise};
use fhir_bulk_pg::whole::reporting;
use pgrx::prelude::*;
use pgrx::{JsonB, default};
use request::Request;
use resolve::Subject;

/// Returns the body in chunks.
#[pg_extern(stable, parallel_unsafe)]
fn bulk_sql_run(
    request: Option<JsonB>,
    gzip: default!(Option<bool>, "false"),
    chunk_bytes: default!(Option<i32>, "65536"),
    calling: Calling,
) -> SetOfIterator<'static, Bytea> {
    let chunk_bytes = or_raise(chunk_size(chunk_bytes));
    let gzip = or_raise(required(gzip, "gzip"));
    let body = reporting(|| or_raise(open(request, calling)));
    if gzip && !body.has_lines() {
        or_raise(Err(no_gzip()))
    }
    ChunkStream::new(body, gzip, chunk_bytes).rows()
}

/// 1. check the request
/// 2. find the subject, and what it depends on
/// 3. start to read, as the function for its kind does
fn open(request: Option<JsonB>, calling: Calling) -> Result<Body> {
    let request = Request::parse(required(request, "request")?.0)?;
    let subject = resolve::subject(&request)?;
    let format = request.format;
    Ok(match subject {
        Subject::View(view) => {
            let options = request.options_of_view(&view)?;
            Body::View(Box::new(views::open(&view, format, options, calling)?))
        }
        Subject::Query(query) => {
            let options = request.options_of_query(&query)?;
            Body::Query(sql_dump::open(&query.text, format, options, calling)?)
        }
    })
}

/// An open subject.
enum Body {
    View(Box<views::Reader>),
    Query(sql_dump::Reader),
}

impl Lines for Body {
    fn has_lines(&self) -> bool {
        match self {
            Body::View(reader) => reader.has_lines(),
            Body::Query(reader) => reader.has_lines(),
        }
    }

    fn read(&mut self, out: &mut Vec<u8>, pause: impl FnMut(&mut Vec<u8>) -> bool) -> Result<More> {
        match self {
            Body::View(reader) => reader.read(out, pause),
            Body::Query(reader) => reader.read(out, pause),
        }
    }
}
