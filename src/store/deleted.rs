//! Which resources are no more.

use super::read::check_moment;
use super::statement::sql;
use super::{ResourceTable, ResourceType};
use fhir_bulk_pg::cursor::Cursor;
use fhir_bulk_pg::error::Result;
use fhir_bulk_pg::spi::Parameter;
use std::ops::ControlFlow;

/// Whether the current role may read the older versions of a type, if there is a table of them.
///
/// # Errors
/// 3F000.
pub fn may_read_history(resource_type: &ResourceType) -> Result<bool> {
    ResourceTable::find_history(resource_type)?.map_or(Ok(true), |history| history.is_readable())
}

/// Hands the ids of resources to `handle` that were deleted at or after `since`, and before `until`, and are not there
/// again. A deletion is a row with status `deleted`, in the history table, if the current role may read that, or where it
/// was.
///
/// # Errors
/// 3F000; 40001 when a table was written anew since the transaction's snapshot; those of `handle`; PostgreSQL's own are
/// raised.
pub fn deleted(
    table: &ResourceTable,
    resource_type: &ResourceType,
    since: i64,
    until: Option<i64>,
    mut handle: impl FnMut(&str) -> Result<()>,
) -> Result<()> {
    let live = &table.sql_name;
    let mut parameters = vec![Parameter::timestamptz(since)];
    let mut before = "";
    if let Some(until) = until {
        before = " AND ts OPERATOR(pg_catalog.<) $2";
        parameters.push(Parameter::timestamptz(until));
    }
    let within = |table: &ResourceTable| {
        let status = table.status("");
        format!("{status} OPERATOR(pg_catalog.=) 'deleted' AND ts OPERATOR(pg_catalog.>=) $1{before}")
    };
    let mut from = format!("SELECT id::pg_catalog.text AS id FROM {live} WHERE {}", within(table));
    // Without a history nothing is known of rows that are gone.
    if let Some(history) = ResourceTable::find_history(resource_type)?
        && history.is_readable()?
    {
        from.push_str(&format!(
            " UNION SELECT h.id::pg_catalog.text FROM {} h WHERE {} AND NOT EXISTS \
             (SELECT FROM {live} l WHERE l.id OPERATOR(pg_catalog.=) h.id AND {} OPERATOR(pg_catalog.<>) 'deleted')",
            history.sql_name,
            within(&history),
            table.status("l.")
        ));
    }
    let mut cursor = Cursor::open(&sql(from), &parameters);
    check_moment(&cursor)?;
    cursor.fetch(|row| handle(row.text(0).unwrap_or_default()).map(ControlFlow::Continue))?;
    cursor.close();
    Ok(())
}
