//! `bulk_dump` and `bulk_dump_chunks`: return the live resources of one type as NDJSON.

use crate::arguments::required;
use crate::settings::{self, VersionId};
use crate::store::{Beside, Filter, Live, Reader, ResourceTable, ResourceType, Rows};
use crate::stream::{ChunkStream, LineStream, chunk_size};
use fhir_bulk_codec::resource::{Form, Writer};
use fhir_bulk_pg::cursor::Calling;
use fhir_bulk_pg::datum::{Bytea, Text};
use fhir_bulk_pg::error::{Result, or_raise};
use pgrx::default;
use pgrx::prelude::*;

/// Returns one resource per row.
#[pg_extern(stable, parallel_unsafe)]
fn bulk_dump(
    resource_type: Option<&str>,
    since: default!(Option<TimestampWithTimeZone>, "NULL"),
    fhir: default!(Option<bool>, "false"),
    filter: default!(Option<&str>, "NULL"),
    calling: Calling,
) -> SetOfIterator<'static, Text> {
    let reader = or_raise(open(resource_type, since, fhir, filter));
    reader.close_with_statement(calling);
    LineStream::new(reader).rows()
}

/// Returns the NDJSON body in chunks.
#[pg_extern(stable, parallel_unsafe)]
fn bulk_dump_chunks(
    resource_type: Option<&str>,
    since: default!(Option<TimestampWithTimeZone>, "NULL"),
    fhir: default!(Option<bool>, "false"),
    gzip: default!(Option<bool>, "false"),
    chunk_bytes: default!(Option<i32>, "65536"),
    filter: default!(Option<&str>, "NULL"),
    calling: Calling,
) -> SetOfIterator<'static, Bytea> {
    let chunk_bytes = or_raise(chunk_size(chunk_bytes));
    let gzip = or_raise(required(gzip, "gzip"));
    let lines = Beside::of(or_raise(open(resource_type, since, fhir, filter)));
    lines.close_with_statement(calling);
    ChunkStream::new(lines, gzip, chunk_bytes).rows()
}

fn open(
    resource_type: Option<&str>,
    since: Option<TimestampWithTimeZone>,
    fhir: Option<bool>,
    filter: Option<&str>,
) -> Result<Reader> {
    let name = required(resource_type, "resource_type")?;
    let form = if required(fhir, "fhir")? { Form::Fhir(settings::fhir_version()) } else { Form::Aidbox };
    let writer = Writer::new(form, &settings::created_at_url(), settings::version_id() == VersionId::String);
    Ok(Reader::of(open_type(name, since.map(i64::from), filter)?, writer))
}

/// 1. find the table of a type, and lock it
/// 2. compile the filter, and start to read
///
/// # Errors
/// 42P01 for a type without a table; those of a filter, and of [`Live::open`].
pub fn open_type(name: &str, since: Option<i64>, filter: Option<&str>) -> Result<Live> {
    // An invalid name gets the same error as a type without a table.
    let resource_type = ResourceType::new(name).map_err(|_| crate::store::unknown(name))?;
    let table = ResourceTable::lock_to_read(&resource_type)?;
    let filter = filter.map(|query| Filter::new(query, resource_type.canonical())).transpose()?;
    filter.iter().for_each(Filter::warn);
    Live::open(&table, resource_type.canonical(), since.map_or(Rows::All, Rows::CreatedAfter), filter)
}
