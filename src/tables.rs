//! `bulk_create_table`, `bulk_write_path`, `bulk_resource_types`, `bulk_resource_counts`, `bulk_search_parameters`: create,
//! explain and list resource tables, say how large they are, and what filters of them may have.

use crate::arguments::required;
use crate::store::{
    ResourceTable, ResourceType, Size, check, count_live, make_sequence, path_into, readable_types, search_parameters,
    unknown,
};
use fhir_bulk_paths::search::Definition;
use fhir_bulk_pg::datum::Regclass;
use fhir_bulk_pg::error::{Error, Result, or_raise};
use fhir_bulk_pg::session;
use pgrx::prelude::*;
use pgrx::{PgSqlErrorCode, default};

/// Creates `<type>`, `<type>_history` and the sequence of their `txid`s if they do not exist, and checks that `<type>` is a
/// resource table.
#[pg_extern(volatile, parallel_unsafe)]
fn bulk_create_table(resource_type: Option<&str>) -> Regclass {
    session::prevent_if_read_only(c"bulk_create_table()");
    let table = required(resource_type, "resource_type")
        .and_then(ResourceType::new)
        .and_then(|resource_type| ResourceTable::get_or_create(&resource_type))
        .and_then(|table| check(&table).map(|()| table))
        .and_then(|table| make_sequence().map(|()| table));
    Regclass::new(or_raise(table).oid)
}

/// Returns the path that a load by the current role would take into a table, and why.
#[pg_extern(stable, parallel_unsafe)]
fn bulk_write_path(resource_type: Option<&str>) -> String {
    let chosen = required(resource_type, "resource_type")
        .and_then(ResourceType::new)
        .and_then(|resource_type| ResourceTable::get(&resource_type))
        .and_then(|table| path_into(&table));
    let (path, reason) = or_raise(chosen);
    format!("{}: {reason}", path.name())
}

/// Returns the resource types that the current role may read, sorted by name.
#[pg_extern(stable, parallel_unsafe)]
fn bulk_resource_types() -> SetOfIterator<'static, String> {
    let types = or_raise(readable_types());
    SetOfIterator::new(types.into_iter().map(|resource_type| resource_type.as_str().to_owned()))
}

/// Returns how many resources a type has, and how many bytes its table: of each type that the current role may read, or of
/// one. Exact counts read the tables; without `exact` they are what the planner expects.
#[pg_extern(stable, parallel_unsafe)]
fn bulk_resource_counts(
    resource_type: default!(Option<&str>, "NULL"),
    exact: default!(Option<bool>, "false"),
) -> TableIterator<'static, (name!(name, String), name!(resources, Option<i64>), name!(bytes, Option<i64>))> {
    TableIterator::new(or_raise(counts(resource_type, exact)))
}

/// A type, how many resources it has, and in how many bytes.
type Counted = (String, Option<i64>, Option<i64>);

fn counts(resource_type: Option<&str>, exact: Option<bool>) -> Result<Vec<Counted>> {
    let exact = required(exact, "exact")?;
    let types = match resource_type {
        Some(name) => vec![ResourceType::new(name).map_err(|_| unknown(name))?],
        None => readable_types()?,
    };
    let mut counts = Vec::new();
    for found in &types {
        // A table that was dropped since it was listed is left out.
        let table = match ResourceTable::find(found)? {
            Some(table) => table,
            None if resource_type.is_none() => continue,
            None => return Err(unknown(found.as_str())),
        };
        if resource_type.is_some() && !table.is_readable()? {
            let message = format!("permission denied for table {}", table.name());
            return Err(Error::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, message));
        }
        let known = Size::known(&table);
        let resources = if exact { Some(count_live(&table)) } else { known.rows };
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        counts.push((found.canonical().to_owned(), resources.map(number), known.bytes.map(number)));
    }
    Ok(counts)
}

/// Returns the search parameters that filters may have, of the types that the current role may read.
#[pg_extern(stable, parallel_unsafe)]
fn bulk_search_parameters()
-> TableIterator<'static, (name!(resource_type, String), name!(name, String), name!(kind, String), name!(url, String))>
{
    let types = or_raise(readable_types());
    let row = |(resource_type, known): (&str, Definition)| {
        (resource_type.to_owned(), known.code, known.kind.name().to_owned(), known.url)
    };
    let rows: Vec<_> = search_parameters(&types).into_iter().map(row).collect();
    TableIterator::new(rows)
}
