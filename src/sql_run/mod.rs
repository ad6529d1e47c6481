//! `bulk_sql_run`: the rows of a subject of SQL on FHIR, which is a ViewDefinition, or a Library with a query. What it finds, it
//! runs as `dump_view` and `dump_sql` do.

mod request;

use crate::arguments::{parsed, required};
use crate::parquet::no_gzip;
use crate::stream::{ChunkStream, Lines as _, chunk_size};
use crate::subject::{Body, Context};
use fhir_bulk_pg::cursor::Calling;
use fhir_bulk_pg::datum::{Bytea, JsonbBytes};
use fhir_bulk_pg::error::{Result, or_raise};
use fhir_bulk_pg::whole::reporting;
use pgrx::default;
use pgrx::prelude::*;
use request::Request;

/// Returns the body in chunks.
#[pg_extern(stable, parallel_unsafe)]
fn bulk_sql_run(
    request: Option<JsonbBytes<'_>>,
    gzip: default!(Option<bool>, "false"),
    chunk_bytes: default!(Option<i32>, "65536"),
    calling: Calling,
) -> SetOfIterator<'static, Bytea> {
    let chunk_bytes = or_raise(chunk_size(chunk_bytes));
    let gzip = or_raise(required(gzip, "gzip"));
    let body = reporting(|| or_raise(open(request)));
    if gzip && !body.has_lines() {
        or_raise(Err(no_gzip()))
    }
    body.close_with_statement(calling);
    ChunkStream::new(body, gzip, chunk_bytes).rows()
}

/// 1. check the request
/// 2. find the subject, and what it depends on
/// 3. start to read, as the function for its kind does
fn open(request: Option<JsonbBytes<'_>>) -> Result<Body> {
    let request = Request::parse(parsed(request, "request")?)?;
    let context = Context::new(&request.context)?;
    let subject = context.subject(&request.subject, request.parameters.as_ref())?.subject;
    context.is_used()?;
    subject.open(request.format, request.options(&subject)?)
}
