//! COPY … TO: dumps to the client, or to a file or program of the server.

use super::end;
use super::options::{Format, Options, Query};
use super::outlet::Outlet;
use crate::extension;
use crate::settings::{self, VersionId};
use crate::sql_dump;
use crate::store::{Beside, Filter, Reader, ResourceTable, Rows, type_of_table};
use crate::stream::{ChunkStream, Lines, More};
use fhir_bulk_codec::resource::{Form, Writer};
use fhir_bulk_pg::copy::{Copy, Subject};
use fhir_bulk_pg::error::Result;
use fhir_bulk_pg::progress::{self, Copying, Work};
use pgrx::pg_sys;
use std::cell::Cell;

/// How many bytes are written at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// 1. check that the role may write the file or run the program
/// 2. lock the table, and start to read it
/// 3. write all its lines
pub fn run(copy: &Copy<'_>, options: Options) -> Result<u64> {
    end::check(copy.end(), false)?;
    match (options.format, copy.subject()) {
        (Format::Ndjson, Subject::Query) => {
            let rows = sql_dump::objects(copy.open_query()?)?;
            write(copy, pg_sys::InvalidOid, rows, options.gzip)
        }
        (Format::Ndjson, Subject::Relation) => {
            let relation = copy.lock_relation();
            let rows = sql_dump::objects_of_relation(relation)?;
            write(copy, relation, rows, options.gzip)
        }
        (_, Subject::Query) => Err(Copy::unsupported("formats fhir and aidbox copy a table of resources, not a query")
            .hint("Format ndjson writes the rows of a query as JSON objects.")),
        (form, Subject::Relation) => {
            let relation = copy.lock_relation();
            if extension::is_own_relation(relation, c"bulk_resource") {
                return Err(Copy::unsupported("bulk_resource is for COPY FROM, and has no rows")
                    .hint("Copy the table of one type, or call bulk_export()."));
            }
            write(copy, relation, Beside::of(resources(relation, form, options.since, options.filter)?), options.gzip)
        }
    }
}

fn resources(relation: pg_sys::Oid, format: Format, since: Option<i64>, filter: Option<Query>) -> Result<Reader> {
    let table = ResourceTable::at(relation)?;
    let form = if format == Format::Fhir { Form::Fhir(settings::fhir_version()) } else { Form::Aidbox };
    let writer = Writer::new(form, &settings::created_at_url(), settings::version_id() == VersionId::String);
    // For rows in which it is NULL.
    let resource_type = type_of_table(&table);
    let name = table.name();
    let resource_type = resource_type.as_ref().map_or(&*name, |found| found.canonical());
    let compile = |Query { text, position }| Filter::new(&text, resource_type).map_err(|error| error.at(position));
    let filter = filter.map(compile).transpose()?;
    filter.iter().for_each(Filter::warn);
    Reader::open(&table, resource_type, since.map_or(Rows::All, Rows::CreatedAfter), filter, writer)
}

/// Writes all lines. Returns how many there were.
fn write(copy: &Copy<'_>, relation: pg_sys::Oid, lines: impl Lines, gzip: bool) -> Result<u64> {
    let count = Cell::new(0);
    let mut body = ChunkStream::new(Counted { lines, count: &count }, gzip, CHUNK_BYTES);
    let mut outlet = Outlet::open(copy.end())?;
    let work = Work::Copy { relation, through: end::through(copy.end()) };
    let mut written_bytes = 0;
    progress::show(Copying::To { written_bytes }, 0, work);
    while let Some(chunk) = body.chunk()? {
        outlet.write(chunk)?;
        written_bytes += chunk.len() as u64;
        progress::show(Copying::To { written_bytes }, count.get(), work);
    }
    outlet.end()?;
    progress::end();
    Ok(count.get())
}

/// Counts lines while they are read.
struct Counted<'a, L> {
    lines: L,
    count: &'a Cell<u64>,
}

impl<L: Lines> Lines for Counted<'_, L> {
    fn read(&mut self, out: &mut Vec<u8>, mut pause: impl FnMut(&mut Vec<u8>) -> bool) -> Result<More> {
        self.lines.read(out, |out| {
            self.count.set(self.count.get() + 1);
            pause(out)
        })
    }
}
