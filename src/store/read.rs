//! Reads the live resources of a table, as a stream of lines.

use super::moment::check_moment;
use super::statement::sql;
use super::{Changed, Filter, ResourceTable, identifiers};
use crate::stream::{Lines, More};
use fhir_bulk_codec::instant;
use fhir_bulk_codec::resource::{Envelope, Identifier, Writer};
use fhir_bulk_paths::item::Resource;
use fhir_bulk_pg::cursor::{Calling, Cursor, Fetched, Row};
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::session;
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

/// Reads a table's live rows under one snapshot.
pub struct Reader {
    cursor: Cursor,
    writer: Writer,
    /// The type of rows in which it is NULL.
    resource_type: String,
    last_updated: Instant,
    created_at: Instant,
    zone: Zone,
    filter: Option<Filter>,
}

/// How a query is planned.
enum Plan {
    /// As PostgreSQL thinks best.
    Any,
    /// By an index, if there is one.
    ByIndex,
}

/// The time zone in which instants are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Zone {
    Session,
    Utc,
}

impl Reader {
    /// Opens a table for the current role. Of the rows, those count that the filter lets through.
    ///
    /// # Errors
    /// 42703 for [`Rows::CreatedAfter`] in a table without `cts`. PostgreSQL raises its own errors.
    pub fn open(
        table: &ResourceTable,
        resource_type: &str,
        rows: Rows<'_>,
        filter: Option<Filter>,
        writer: Writer,
    ) -> Result<Reader> {
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
        Ok(Reader {
            cursor,
            writer,
            resource_type: resource_type.to_owned(),
            last_updated: Instant::default(),
            created_at: Instant::default(),
            zone: Zone::Session,
            filter,
        })
    }

    /// Writes instants in UTC instead of the session's TimeZone.
    pub fn in_utc(self) -> Reader {
        Reader { zone: Zone::Utc, ..self }
    }

    /// Ends the query when the calling statement ends.
    pub fn close_with_statement(&self, calling: Calling) {
        self.cursor.close_with_statement(calling);
    }

    /// Checks that the transaction's snapshot shows this table, for one of several reads under that snapshot.
    ///
    /// # Errors
    /// 40001 if the table was truncated or rewritten after the snapshot.
    pub fn of_one_moment(self) -> Result<Reader> {
        check_moment(&self.cursor)?;
        Ok(self)
    }

    /// Passes resources to `handle` until it breaks.
    ///
    /// # Errors
    /// The errors of `handle`; 22004 for a row without an id or a resource.
    pub fn each(&mut self, mut handle: impl FnMut(&Stored<'_>) -> Result<ControlFlow<()>>) -> Result<More> {
        let Reader { cursor, writer, resource_type, last_updated, created_at, zone, filter } = self;
        let filter = filter.as_ref();
        let fetched = cursor.fetch(|row| {
            let resource = row.jsonb(5);
            if let (Some(filter), Some(json)) = (filter, resource)
                && !is_wanted(filter, row, resource_type, json)
            {
                return Ok(ControlFlow::Continue(()));
            }
            let (last_updated, created_at) =
                (last_updated.text(row.int8(2), *zone), created_at.text(row.int8(3), *zone));
            handle(&stored(row, resource, writer, resource_type, last_updated, created_at)?)
        })?;
        match fetched {
            Fetched::Paused => Ok(More::Yes),
            Fetched::End => {
                cursor.close();
                Ok(More::No)
            }
        }
    }
}

impl Lines for Reader {
    /// Fails like [`Reader::each`], and with 22023 for a row whose `resource` is not an object.
    fn read(&mut self, out: &mut Vec<u8>, mut pause: impl FnMut(&mut Vec<u8>) -> bool) -> Result<More> {
        self.each(|stored| {
            stored.write(out)?;
            Ok(if pause(out) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
    }
}

/// A resource in its row.
pub struct Stored<'a> {
    envelope: Envelope<'a>,
    /// Column `ts`, if it is finite.
    changed_at: Option<i64>,
    /// The jsonb after its length header.
    pub resource: &'a [u8],
    writer: &'a Writer,
}

impl Stored<'_> {
    /// The resource, for filters.
    pub fn as_resource(&self) -> Resource<'_> {
        let Envelope { id, resource_type, .. } = self.envelope;
        Resource { id, resource_type, last_updated: self.changed_at, json: self.resource }
    }

    /// Appends its line, without a newline.
    ///
    /// # Errors
    /// 22023 if it is not an object.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<()> {
        self.writer.write(&self.envelope, self.resource, out).map_err(|_| {
            let Envelope { id, resource_type, .. } = self.envelope;
            Error::invalid_argument(format!("the resource of {resource_type} \"{id}\" is not a JSON object"))
                .hint("Correct or delete this row; a resource is an object.")
        })
    }
}

/// Whether a filter lets a row through. That a row has no id is for [`stored`] to say.
#[inline]
fn is_wanted(filter: &Filter, row: &Row<'_>, resource_type: &str, json: &[u8]) -> bool {
    let Some(id) = row.text(0) else { return true };
    let last_updated = changed_at(row);
    filter.matches(Resource { id, resource_type: row.text(4).unwrap_or(resource_type), last_updated, json })
}

#[inline]
fn changed_at(row: &Row<'_>) -> Option<i64> {
    row.int8(2).filter(|at| !INFINITE_TIMES.contains(at))
}

fn stored<'a>(
    row: &'a Row<'_>,
    resource: Option<&'a [u8]>,
    writer: &'a Writer,
    resource_type: &'a str,
    last_updated: Option<&'a str>,
    created_at: Option<&'a str>,
) -> Result<Stored<'a>> {
    let null = |column: &str| {
        Error::new(
            PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            format!("a {resource_type} has NULL in column {column}"),
        )
    };
    let envelope = Envelope {
        id: row.text(0).ok_or_else(|| null("id"))?,
        resource_type: row.text(4).unwrap_or(resource_type),
        version_id: row.int8(1),
        last_updated,
        created_at,
    };
    let resource = resource.ok_or_else(|| null("resource"))?;
    Ok(Stored { envelope, changed_at: changed_at(row), resource, writer })
}

fn no_creation_time(table: &ResourceTable) -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
        format!("table {} has no column cts, so it does not know when a resource was created", table.sql_name),
    )
    .hint("Leave out since, or add the column: ALTER TABLE ... ADD COLUMN cts timestamptz;")
}

/// The text of the last instant: all rows of a load have the same.
#[derive(Default)]
struct Instant {
    micros: Option<i64>,
    text: String,
}

impl Instant {
    fn text(&mut self, micros: Option<i64>, zone: Zone) -> Option<&str> {
        let micros = micros.filter(|at| !INFINITE_TIMES.contains(at))?;
        if self.micros != Some(micros) {
            let offset = if zone == Zone::Utc { 0 } else { session::utc_offset(micros) };
            self.text = instant::format(micros, offset);
            self.micros = Some(micros);
        }
        Some(&self.text)
    }
}
