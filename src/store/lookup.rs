//! Finds resources by their ids.

use super::moment::check_moment;
use super::statement::sql;
use super::{ResourceTable, ResourceType};
use fhir_bulk_pg::cursor::Cursor;
use fhir_bulk_pg::error::Result;
use fhir_bulk_pg::spi::Parameter;
use std::ops::ControlFlow;

/// Passes id and content (the jsonb after its length header) of the live resources of a type with these ids. Returns how
/// many there are; none if the type has no table.
///
/// # Errors
/// 3F000; 40001 if the table was truncated or rewritten since the transaction's snapshot; the errors of `handle`. PostgreSQL
/// raises its own errors.
pub fn each_live<'a>(
    resource_type: &ResourceType,
    ids: impl Iterator<Item = &'a str>,
    mut handle: impl FnMut(&str, &[u8]) -> Result<()>,
) -> Result<usize> {
    let Some(table) = ResourceTable::find(resource_type)? else { return Ok(0) };
    let query = format!(
        "SELECT id::pg_catalog.text, resource::pg_catalog.jsonb FROM {} \
         WHERE {} OPERATOR(pg_catalog.<>) 'deleted' AND id::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($1)",
        table.sql_name,
        table.status("")
    );
    let mut cursor = Cursor::open(&sql(query), &[Parameter::strings(ids.map(str::as_bytes))]);
    check_moment(&cursor)?;
    let mut count = 0;
    cursor.fetch(|row| {
        if let (Some(id), Some(json)) = (row.text(0), row.jsonb(1)) {
            count += 1;
            handle(id, json)?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    cursor.close();
    Ok(count)
}
