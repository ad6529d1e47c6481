//! Live resources of a table as lines, streamed from a portal.

use super::ResourceTable;
use super::table::sql;
use crate::error::{Error, Result};
use crate::pg::portal::{Fetched, Parameter, Portal, Row};
use crate::pg::session;
use fhir_bulk_codec::instant;
use fhir_bulk_codec::resource::{Envelope, Writer};
use pgrx::{PgSqlErrorCode, pg_sys};
use std::ops::ControlFlow;

/// PostgreSQL's `infinity` and `-infinity`, which ISO 8601 cannot write.
const INFINITE: [i64; 2] = [i64::MAX, i64::MIN];

/// Whether a reader has more to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// It paused.
    Yes,
    /// All rows are read.
    No,
}

/// Reads a table's live rows under one snapshot.
pub struct Reader {
    portal: Portal,
    writer: Writer,
    /// For rows that do not say.
    resource_type: String,
    last_updated: Instant,
    created_at: Instant,
}

impl Reader {
    /// Opens a table; with `since` only what was created after it.
    ///
    /// # Errors
    /// 42703 for `since` on a table without `cts`.
    pub fn open(table: &ResourceTable, resource_type: &str, since: Option<i64>, writer: Writer) -> Result<Reader> {
        let has_cts = table.has_column(c"cts");
        if since.is_some() && !has_cts {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                format!("table {} has no column cts, so it does not know when a resource was created", table.sql_name),
            )
            .hint("Leave out since, or add the column: ALTER TABLE … ADD COLUMN cts timestamptz;"));
        }
        let created = if has_cts { "cts::pg_catalog.timestamptz" } else { "NULL::pg_catalog.timestamptz" };
        let after = if since.is_some() { " AND cts OPERATOR(pg_catalog.>) $1" } else { "" };
        let query = format!(
            "SELECT id::pg_catalog.text, txid::pg_catalog.int8, ts::pg_catalog.timestamptz, {created}, \
             resource_type::pg_catalog.text, resource::pg_catalog.jsonb FROM {} \
             WHERE status OPERATOR(pg_catalog.<>) 'deleted'{after}",
            table.sql_name
        );
        let parameters: Vec<_> = since.into_iter().map(Parameter::timestamptz).collect();
        Ok(Reader {
            portal: Portal::open(&sql(query), &parameters),
            writer,
            resource_type: resource_type.to_owned(),
            last_updated: Instant::default(),
            created_at: Instant::default(),
        })
    }

    /// Has the portal closed when the calling statement ends.
    pub fn close_with_statement(&self, fcinfo: pg_sys::FunctionCallInfo) {
        self.portal.close_with_statement(fcinfo);
    }

    /// Appends lines, without their newlines, to `out` until `pause`, called after each, says so.
    ///
    /// # Errors
    /// 22023 for a row whose `resource` is not an object.
    pub fn read(&mut self, out: &mut Vec<u8>, mut pause: impl FnMut(&mut Vec<u8>) -> bool) -> Result<More> {
        let Reader { portal, writer, resource_type, last_updated, created_at } = self;
        let mut failed = None;
        let fetched = portal.fetch(|row| match write_row(row, writer, resource_type, last_updated, created_at, out) {
            Ok(()) if pause(out) => ControlFlow::Break(()),
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        match fetched {
            Fetched::Paused => Ok(More::Yes),
            Fetched::End => {
                portal.close();
                Ok(More::No)
            }
            Fetched::Lost => Err(Error::new(
                PgSqlErrorCode::ERRCODE_INVALID_CURSOR_STATE,
                format!("the dump of {resource_type} was rolled back before its end"),
            )
            .hint("Read a dump within the subtransaction that it was started in.")),
        }
    }
}

fn write_row(
    row: &Row<'_>,
    writer: &Writer,
    resource_type: &str,
    last_updated: &mut Instant,
    created_at: &mut Instant,
    out: &mut Vec<u8>,
) -> Result<()> {
    let null = |column: &str| {
        Error::new(
            PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            format!("a {resource_type} has NULL in column {column}"),
        )
    };
    let id = row.text(0).ok_or_else(|| null("id"))?;
    let envelope = Envelope {
        id,
        resource_type: row.text(4).unwrap_or(resource_type),
        version_id: row.int8(1),
        last_updated: last_updated.text(row.int8(2)),
        created_at: created_at.text(row.int8(3)),
    };
    let resource = row.jsonb(5).ok_or_else(|| null("resource"))?;
    writer.write(&envelope, resource, out).map_err(|_| {
        Error::invalid_argument(format!("the resource of {resource_type} \"{id}\" is not a JSON object"))
            .hint("Correct or delete this row; a resource is an object.")
    })
}

/// The text of the last instant: a load gives all its rows the same.
#[derive(Default)]
struct Instant {
    micros: Option<i64>,
    text: String,
}

impl Instant {
    fn text(&mut self, micros: Option<i64>) -> Option<&str> {
        let micros = micros.filter(|at| !INFINITE.contains(at))?;
        if self.micros != Some(micros) {
            self.text = instant::format(micros, session::utc_offset(micros));
            self.micros = Some(micros);
        }
        Some(&self.text)
    }
}
