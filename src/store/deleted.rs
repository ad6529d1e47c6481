//! Finds deleted resources.

use super::moment::check_moment;
use super::statement::sql;
use super::{ResourceTable, ResourceType};
use fhir_bulk_codec::jsonb::EMPTY_OBJECT as EMPTY;
use fhir_bulk_paths::item::Resource;
use fhir_bulk_pg::cursor::Cursor;
use fhir_bulk_pg::error::Result;
use fhir_bulk_pg::spi::Parameter;
use fhir_bulk_pg::value::INFINITE_TIMES;
use std::ops::ControlFlow;

/// Whether the current role may read a type's history table. True if there is none.
///
/// # Errors
/// 3F000.
pub fn may_read_history(resource_type: &ResourceType) -> Result<bool> {
    ResourceTable::find_history(resource_type)?.map_or(Ok(true), |history| history.is_readable())
}

/// How a table tells that a resource was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// By a row with status `deleted`, there or in the history, as Aidbox does.
    Rows,
    /// Also by having no row any more, while the history has some: fhirbase moves the row of a deleted resource there, and
    /// adds one that tells when, with the status of the row.
    Absence,
    /// In both ways, but the current role may not see all rows of the table, so that only rows tell.
    Hidden,
}

/// How a type's table tells of deletions. One without column `cts` is fhirbase's.
///
/// # Errors
/// 3F000.
pub fn telling(table: &ResourceTable, resource_type: &ResourceType) -> Result<Telling> {
    let has_history = ResourceTable::find_history(resource_type)?.is_some();
    Ok(match table.has_column(c"cts") || !has_history {
        true => Telling::Rows,
        false if table.shows_all_rows() => Telling::Absence,
        false => Telling::Hidden,
    })
}

/// Which deletions to find.
#[derive(Clone, Copy)]
pub struct Deletions {
    /// At or after this, in microseconds since 2000-01-01T00:00:00Z.
    pub since: i64,
    /// Before this.
    pub until: Option<i64>,
    /// Whether the contents are read, too: they are large.
    pub with_content: bool,
}

/// Calls `handle` with each resource that was deleted and has not been created again. A deletion is a row with status
/// `deleted`, in the resource table or, if the current role may read it, in the history table; or, if the table tells it by
/// absence, the newest row in the history of a resource that is not in the table. The row has the last version's content; if
/// it has none, the version before it in the history table counts, and without one the content is an empty object. If
/// contents are not read, it is empty, too.
///
/// # Errors
/// 3F000; 40001 if a table was truncated or rewritten since the transaction's snapshot; the errors of `handle`. PostgreSQL
/// raises its own errors.
pub fn deleted(
    table: &ResourceTable,
    resource_type: &ResourceType,
    wanted: Deletions,
    mut handle: impl FnMut(Resource<'_>) -> Result<()>,
) -> Result<()> {
    let Deletions { since, until, with_content } = wanted;
    let live = &table.sql_name;
    let mut parameters = vec![Parameter::timestamptz(since)];
    let mut before = "";
    if let Some(until) = until {
        before = " AND ts OPERATOR(pg_catalog.<) $2";
        parameters.push(Parameter::timestamptz(until));
    }
    let in_time = format!("ts OPERATOR(pg_catalog.>=) $1{before}");
    let within = |table: &ResourceTable| format!("{} OPERATOR(pg_catalog.=) 'deleted' AND {in_time}", table.status(""));
    // Without a history table, deleted rows leave no trace.
    let history = ResourceTable::find_history(resource_type)?;
    let history = match history {
        Some(history) if history.is_readable()? => Some(history),
        _ => None,
    };
    let content = |of: &str| match (with_content, &history) {
        (false, _) => "NULL::pg_catalog.jsonb".to_owned(),
        (true, None) => format!("{of}.resource::pg_catalog.jsonb"),
        (true, Some(history)) => format!(
            "CASE WHEN {of}.resource::pg_catalog.text OPERATOR(pg_catalog.<>) '{{}}'::pg_catalog.text \
             THEN {of}.resource::pg_catalog.jsonb \
             ELSE (SELECT v.resource::pg_catalog.jsonb FROM {} v WHERE v.id OPERATOR(pg_catalog.=) {of}.id \
                   AND v.txid OPERATOR(pg_catalog.<) {of}.txid AND {} OPERATOR(pg_catalog.<>) 'deleted' \
                   ORDER BY v.txid DESC LIMIT 1) END",
            history.sql_name,
            history.status("v.")
        ),
    };
    let columns = |of: &str| {
        format!(
            "{of}.id::pg_catalog.text AS id, {of}.txid::pg_catalog.int8 AS txid, \
                 {of}.ts::pg_catalog.timestamptz AS ts, {} AS resource",
            content(of)
        )
    };
    let mut from = format!("SELECT {} FROM {live} l WHERE {}", columns("l"), within(table));
    if let Some(history) = &history {
        from.push_str(&format!(
            " UNION ALL SELECT {} FROM {} h WHERE {} AND NOT EXISTS \
             (SELECT FROM {live} l WHERE l.id OPERATOR(pg_catalog.=) h.id AND {} OPERATOR(pg_catalog.<>) 'deleted')",
            columns("h"),
            history.sql_name,
            within(history),
            table.status("l.")
        ));
        if telling(table, resource_type)? == Telling::Absence {
            // The newest row of all, not of those in time: it says when.
            from.push_str(&format!(
                " UNION ALL SELECT {} FROM {name} h WHERE {in_time} AND NOT EXISTS \
                 (SELECT FROM {live} l WHERE l.id OPERATOR(pg_catalog.=) h.id) AND NOT EXISTS \
                 (SELECT FROM {name} n WHERE n.id OPERATOR(pg_catalog.=) h.id AND n.txid OPERATOR(pg_catalog.>) h.txid)",
                columns("h"),
                name = history.sql_name
            ));
        }
    }
    let last = format!(
        "SELECT DISTINCT ON (d.id) d.id, d.ts, d.resource FROM ({from}) d \
         ORDER BY d.id, d.txid USING OPERATOR(pg_catalog.>)"
    );
    let mut cursor = Cursor::open(&sql(last), &parameters);
    check_moment(&cursor)?;
    cursor.fetch(|row| {
        handle(Resource {
            id: row.text(0).unwrap_or_default(),
            resource_type: resource_type.canonical(),
            last_updated: row.int8(1).filter(|at| !INFINITE_TIMES.contains(at)),
            version_id: None,
            json: row.jsonb(2).unwrap_or(EMPTY),
        })?;
        Ok(ControlFlow::Continue(()))
    })?;
    cursor.close();
    Ok(())
}
