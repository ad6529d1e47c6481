//! The live rows of a table, as resources under one snapshot.

use super::moment::check_moment;
use super::statement::sql;
use super::{Changed, Filter, ResourceTable, identifiers};
use crate::stream::More;
use fhir_bulk_codec::resource::Identifier;
use fhir_bulk_paths::item::Resource;
use fhir_bulk_pg::cursor::{Calling, Cursor, Fetched, Row};
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::spi::Parameter;
use fhir_bulk_pg::value::INFINITE_TIMES;
use pgrx::PgSqlErrorCode;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// Which of a table's live rows to read.
#[derive(Clone, Copy)]
pub enum Rows<'a> {
    /// All.
    All,
    /// Those created after an instant.
    CreatedAfter(i64),
    /// Those last changed at a certain time.
    Changed(Changed),
    /// Those with these ids.
    WithIds(&'a [String]),
    /// Those in a range of its blocks.
    Within(Blocks),
    /// Those that have one of these identifiers; without an index also other rows.
    Identified(&'a [Identifier<'a>]),
}

/// Blocks of a table from `first` to before `end`; without `end` to the last one.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Blocks {
    pub first: u32,
    pub end: Option<u32>,
}

/// Live rows that are being read.
pub struct Live {
    cursor: Cursor,
    /// The type of rows in which it is NULL.
    resource_type: String,
    filter: Option<Filter>,
}

/// How a query is planned.
enum Plan {
    /// As PostgreSQL thinks best.
    Any,
    /// By an index, if there is one.
    ByIndex,
}

impl Live {
    /// Opens a table for the current role. Of the rows, those count that the filter lets through.
    ///
    /// # Errors
    /// 42703 for [`Rows::CreatedAfter`] in a table without `cts`. PostgreSQL raises its own errors.
    pub fn open(table: &ResourceTable, resource_type: &str, rows: Rows<'_>, filter: Option<Filter>) -> Result<Live> {
        let has_cts = table.has_column(c"cts");
        let created = if has_cts { "cts::pg_catalog.timestamptz" } else { "NULL::pg_catalog.timestamptz" };
        let mut query = format!(
            "SELECT id::pg_catalog.text, txid::pg_catalog.int8, ts::pg_catalog.timestamptz, {created}, \
             resource_type::pg_catalog.text, resource::pg_catalog.jsonb FROM {} \
             WHERE {} OPERATOR(pg_catalog.<>) 'deleted'",
            table.sql_name,
            table.status("")
        );
        let mut parameters = Vec::new();
        let mut plan = Plan::Any;
        match rows {
            Rows::All => {}
            Rows::CreatedAfter(_) if !has_cts => return Err(no_creation_time(table)),
            Rows::CreatedAfter(at) => {
                query.push_str(" AND cts OPERATOR(pg_catalog.>) $1");
                parameters.push(Parameter::timestamptz(at));
            }
            Rows::Changed(changed) => changed.narrow(&mut query, &mut parameters),
            Rows::WithIds(ids) => {
                query.push_str(" AND id::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($1)");
                parameters.push(Parameter::strings(ids.iter().map(String::as_bytes)));
            }
            Rows::Within(Blocks { first, end }) => {
                for (block, operator) in [(Some(first), ">="), (end, "<")] {
                    if let Some(block) = block {
                        let place = format!("'({block},0)'::pg_catalog.tid");
                        query.push_str(&format!(" AND ctid OPERATOR(pg_catalog.{operator}) {place}"));
                    }
                }
            }
            Rows::Identified(wanted) => {
                if let Some((condition, patterns)) = identifiers::indexed(table, wanted) {
                    query.push_str(&condition);
                    parameters.push(patterns);
                    plan = Plan::ByIndex;
                }
            }
        }
        if let Some(filter) = &filter {
            filter.narrow(table, &mut query, &mut parameters);
        }
        let query = sql(query);
        let cursor = match plan {
            Plan::Any => Cursor::open(&query, &parameters),
            Plan::ByIndex => identifiers::by_index(|| Cursor::open(&query, &parameters)),
        };
        Ok(Live { cursor, resource_type: resource_type.to_owned(), filter })
    }

    /// Ends the query when the calling statement ends.
    pub fn close_with_statement(&self, calling: Calling) {
        self.cursor.close_with_statement(calling);
    }

    /// Ends the query.
    pub fn close(&mut self) {
        self.cursor.close();
    }

    /// Checks that the transaction's snapshot shows this table, for one of several reads under that snapshot.
    ///
    /// # Errors
    /// 40001 if the table was truncated or rewritten after the snapshot.
    pub fn check_moment(&self) -> Result<()> {
        check_moment(&self.cursor)
    }

    /// Passes resources to `handle` until it breaks, each with its creation time, if there is one. After the last one the query
    /// is closed.
    ///
    /// # Errors
    /// The errors of `handle`; 22004 for a row without an id or a resource.
    pub fn each(&mut self, handle: impl FnMut(Resource<'_>, Option<i64>) -> Result<ControlFlow<()>>) -> Result<More> {
        match self.fetch(handle)? {
            Fetched::Paused => Ok(More::Yes),
            Fetched::End => {
                self.close();
                Ok(More::No)
            }
        }
    }

    /// Passes all resources to `handle`, and goes back to the first: what is read next are the same rows again, under the
    /// same snapshot.
    ///
    /// # Errors
    /// As for [`Live::each`].
    pub fn look_through(&mut self, mut handle: impl FnMut(Resource<'_>) -> Result<()>) -> Result<()> {
        self.fetch(|resource, _| handle(resource).map(ControlFlow::Continue))?;
        self.cursor.rewind();
        Ok(())
    }

    fn fetch(
        &mut self,
        mut handle: impl FnMut(Resource<'_>, Option<i64>) -> Result<ControlFlow<()>>,
    ) -> Result<Fetched> {
        let Live { cursor, resource_type, filter } = self;
        let filter = filter.as_ref();
        cursor.fetch(|row| {
            let resource = resource(row, resource_type)?;
            if filter.is_some_and(|filter| !filter.matches(resource)) {
                return Ok(ControlFlow::Continue(()));
            }
            handle(resource, instant(row, 3))
        })
    }
}

#[inline]
fn resource<'a>(row: &'a Row<'_>, resource_type: &'a str) -> Result<Resource<'a>> {
    let null = |column: &str| {
        Error::new(
            PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            format!("a {resource_type} has NULL in column {column}"),
        )
    };
    // First: its memory is on the way while the others are read.
    let json = row.jsonb(5).ok_or_else(|| null("resource"))?;
    Ok(Resource {
        id: row.text(0).ok_or_else(|| null("id"))?,
        resource_type: row.text(4).unwrap_or(resource_type),
        last_updated: instant(row, 2),
        version_id: row.int8(1),
        json,
    })
}

/// A time that is finite.
#[inline]
fn instant(row: &Row<'_>, column: usize) -> Option<i64> {
    row.int8(column).filter(|at| !INFINITE_TIMES.contains(at))
}

fn no_creation_time(table: &ResourceTable) -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
        format!("table {} has no column cts, so it does not know when a resource was created", table.sql_name),
    )
    .hint("Leave out since, or add the column: ALTER TABLE ... ADD COLUMN cts timestamptz;")
}
