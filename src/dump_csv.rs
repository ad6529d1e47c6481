//! `dump_csv` and `dump_csv_chunks`: return the live resources of one type as a CSV table, with a column for each path.

use crate::arguments::{Options, parsed, required};
use crate::dump;
use crate::store::{Live, not_an_object};
use crate::stream::{ChunkStream, LineStream, Lines, More, chunk_size};
use fhir_bulk_codec::flat::{Columns, Problem, Table};
use fhir_bulk_paths::item::Resource;
use fhir_bulk_pg::cursor::Calling;
use fhir_bulk_pg::datum::{Bytea, JsonbBytes, Text};
use fhir_bulk_pg::error::{Error, Result, or_raise};
use pgrx::prelude::*;
use pgrx::{PgSqlErrorCode, default};
use std::ops::ControlFlow;

/// Returns the header, then one resource per row. A row with newlines in its values is one row too.
#[pg_extern(stable, parallel_unsafe)]
fn dump_csv(
    resource_type: Option<&str>,
    options: default!(Option<JsonbBytes<'_>>, "'{}'"),
    calling: Calling,
) -> SetOfIterator<'static, Text> {
    LineStream::new(or_raise(open(resource_type, options, calling))).rows()
}

/// Returns the body in chunks.
#[pg_extern(stable, parallel_unsafe)]
fn dump_csv_chunks(
    resource_type: Option<&str>,
    gzip: default!(Option<bool>, "false"),
    options: default!(Option<JsonbBytes<'_>>, "'{}'"),
    chunk_bytes: default!(Option<i32>, "65536"),
    calling: Calling,
) -> SetOfIterator<'static, Bytea> {
    let chunk_bytes = or_raise(chunk_size(chunk_bytes));
    let gzip = or_raise(required(gzip, "gzip"));
    ChunkStream::new(or_raise(open(resource_type, options, calling)), gzip, chunk_bytes).rows()
}

fn open(resource_type: Option<&str>, options: Option<JsonbBytes<'_>>, calling: Calling) -> Result<Flat> {
    let name = required(resource_type, "resource_type")?;
    let mut options = Options::new(parsed(options, "options")?)?;
    let (since, filter) = (options.instant("since")?, options.string("filter")?);
    options.end("dump_csv", "since, filter")?;
    let live = dump::open_type(name, since, filter.as_deref())?;
    live.close_with_statement(calling);
    Ok(Flat { live, table: None })
}

/// The rows of a table of resources.
struct Flat {
    live: Live,
    /// `None` before the rows were read for the first time.
    table: Option<Table>,
}

impl Lines for Flat {
    /// 1. read all rows for the columns that they have
    /// 2. write the header
    /// 3. read the same rows again, and write them
    fn read(&mut self, out: &mut Vec<u8>, mut pause: impl FnMut(&mut Vec<u8>) -> bool) -> Result<More> {
        let Flat { live, table } = self;
        let table = match table {
            Some(table) => table,
            None => {
                let table = table.insert(columns(live)?);
                table.header(out);
                if pause(out) {
                    return Ok(More::Yes);
                }
                table
            }
        };
        live.each(|resource, _| {
            let written = table.row(resource.id, resource.resource_type, resource.json, out);
            written.map_err(|problem| refused(problem, &resource))?;
            Ok(if pause(out) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
    }
}

fn columns(live: &mut Live) -> Result<Table> {
    let mut columns = Columns::new();
    live.look_through(|resource| columns.add(resource.json).map_err(|problem| refused(problem, &resource)))?;
    Ok(columns.into_table())
}

/// 22023, 54000 or 40001.
fn refused(problem: Problem, resource: &Resource<'_>) -> Error {
    let resource_type = resource.resource_type;
    let at = format!("It was passed at {resource_type} \"{}\".", resource.id);
    let fewer = "Dump fewer resources at a time with option filter, or choose the columns with dump_sql().";
    match problem {
        Problem::NotAnObject => not_an_object(resource.resource_type, resource.id),
        Problem::TooManyColumns { limit } => Error::new(
            PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            format!("the {resource_type} resources have more than {limit} columns"),
        )
        .detail(at)
        .hint(fewer),
        Problem::NamesTooLong { limit } => Error::new(
            PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            format!("the names of the columns of {resource_type} take more than {} MB", limit >> 20),
        )
        .detail(at)
        .hint(fewer),
        Problem::NewPath(member) => Error::new(
            PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
            format!("{resource_type} \"{}\" has changed in the middle of the dump", resource.id),
        )
        .detail(format!("Its member {member} was not there when the rows were read for their columns."))
        .hint("The rows are read twice; a view or a policy on the table must let the same rows through each time."),
    }
}
