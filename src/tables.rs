//! `bulk_create_table`, `bulk_write_path`, `bulk_resource_types`, `bulk_search_parameters`: create, explain and list resource
//! tables, and what filters of them may have.

use crate::arguments::required;
use crate::store::{ResourceTable, ResourceType, check, make_sequence, path_into, readable_types, search_parameters};
use fhir_bulk_paths::search::Definition;
use fhir_bulk_pg::datum::Regclass;
use fhir_bulk_pg::error::or_raise;
use fhir_bulk_pg::session;
use pgrx::prelude::*;

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
