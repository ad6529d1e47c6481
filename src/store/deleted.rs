//! Finds deleted resources.

use super::read::check_moment;
use super::statement::sql;
use super::{ResourceTable, ResourceType};
use fhir_bulk_pg::cursor::Cursor;
use fhir_bulk_pg::error::Result;
use fhir_bulk_pg::spi::Parameter;
use std::ops::ControlFlow;

/// Whether the current role may read a type's history table. True if there is none.
///
/// # Errors
/// 3F000.
pub fn may_read_history(resource_type: &ResourceType) -> Result<bool> {
    ResourceTable::find_history(resource_type)?.map_or(Ok(true), |history| history.is_readable())
}

/// Calls `handle` with the ids of resources that were deleted at or after `since` and before `until`, and have not been
/// created again. A deletion is a row with status `deleted`, in the resource table or, if the current role may read it, in
/// the history table.
///
/// # Errors
/// 3F000; 40001 if a table was truncated or rewritten since the transaction's snapshot; the errors of `handle`. PostgreSQL
/// raises its own errors.
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
    // Without a history table, deleted rows leave no trace.
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
