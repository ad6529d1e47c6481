//! Finds resources by their ids.

use super::moment::check_moment;
use super::statement::sql;
use super::{Changed, ResourceTable, ResourceType};
use fhir_bulk_paths::item::Resource;
use fhir_bulk_pg::cursor::Cursor;
use fhir_bulk_pg::error::Result;
use fhir_bulk_pg::spi::{self, Parameter};
use fhir_bulk_pg::value::INFINITE_TIMES;
use std::ops::ControlFlow;

/// Passes id and content (the jsonb after its length header) of the live resources of a type with these ids. Returns how
/// many there are; none if the type has no table.
///
/// # Errors
/// As for [`each_live_changed`].
pub fn each_live<'a>(
    resource_type: &ResourceType,
    ids: impl Iterator<Item = &'a str>,
    mut handle: impl FnMut(&str, &[u8]) -> Result<()>,
) -> Result<usize> {
    let at_any_time = Changed::Within { from: None, until: None };
    each_live_changed(resource_type, ids, at_any_time, |resource| handle(resource.id, resource.json))
}

/// Passes the live resources of a type with these ids that were changed at a certain time, without their versions. Returns how
/// many there are; none if the type has no table.
///
/// # Errors
/// 3F000; 40001 if the table was truncated or rewritten since the transaction's snapshot; the errors of `handle`. PostgreSQL
/// raises its own errors.
pub fn each_live_changed<'a>(
    resource_type: &ResourceType,
    ids: impl Iterator<Item = &'a str>,
    changed: Changed,
    mut handle: impl FnMut(Resource<'_>) -> Result<()>,
) -> Result<usize> {
    let Some(table) = ResourceTable::find(resource_type)? else { return Ok(0) };
    let mut query = format!(
        "SELECT id::pg_catalog.text, ts::pg_catalog.timestamptz, resource::pg_catalog.jsonb FROM {} \
         WHERE {} OPERATOR(pg_catalog.<>) 'deleted' AND id::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($1)",
        table.sql_name,
        table.status("")
    );
    let mut parameters = vec![Parameter::strings(ids.map(str::as_bytes))];
    changed.narrow(&mut query, &mut parameters);
    let mut cursor = Cursor::open(&sql(query), &parameters);
    check_moment(&cursor)?;
    let mut count = 0;
    cursor.fetch(|row| {
        if let (Some(id), Some(json)) = (row.text(0), row.jsonb(2)) {
            count += 1;
            let last_updated = row.int8(1).filter(|at| !INFINITE_TIMES.contains(at));
            handle(Resource { id, resource_type: resource_type.canonical(), last_updated, version_id: None, json })?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    cursor.close();
    Ok(count)
}

/// The ids of the live resources of a type whose content contains a JSON object, the one that was changed last first; none if
/// the type has no table.
///
/// # Errors
/// 3F000. PostgreSQL raises its own errors.
pub fn ids_with(resource_type: &ResourceType, content: &str) -> Result<Vec<String>> {
    let Some(table) = ResourceTable::find(resource_type)? else { return Ok(Vec::new()) };
    let query = format!(
        "SELECT id::pg_catalog.text FROM {} WHERE {} OPERATOR(pg_catalog.<>) 'deleted' \
         AND resource::pg_catalog.jsonb OPERATOR(pg_catalog.@>) $1::pg_catalog.jsonb ORDER BY ts DESC, id",
        table.sql_name,
        table.status("")
    );
    Ok(spi::texts(&sql(query), &[Parameter::string(content)]))
}
