//! `bulk_create_table`: the tables of a resource type, made before the first load.

use crate::arguments::required;
use crate::error::or_raise;
use crate::pg::datum::Regclass;
use crate::pg::session;
use crate::store::{ResourceTable, ResourceType};
use pgrx::prelude::*;

/// Makes `<type>` and `<type>_history` unless they are there.
#[pg_extern(volatile, parallel_unsafe)]
fn bulk_create_table(resource_type: Option<&str>) -> Regclass {
    session::prevent_if_read_only(c"bulk_create_table()");
    let table = required(resource_type, "resource_type")
        .and_then(ResourceType::new)
        .and_then(|resource_type| ResourceTable::get_or_create(&resource_type));
    Regclass::new(or_raise(table).oid)
}
