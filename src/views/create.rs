//! `bulk_create_view`: a view of SQL with the rows of a view of SQL on FHIR.

use super::{compile, select};
use crate::arguments::{quoted_name, required};
use crate::store::{self, ResourceTable, ResourceType};
use fhir_bulk_codec::rows::sql::write_identifier;
use fhir_bulk_pg::datum::{JsonbBytes, Regclass};
use fhir_bulk_pg::error::{Error, Result, or_raise};
use fhir_bulk_pg::session;
use fhir_bulk_pg::spi::{self, Parameter};
use pgrx::prelude::*;
use pgrx::{PgSqlErrorCode, default};
use std::ffi::CString;

/// Creates a view with typed columns, or a materialized view.
#[pg_extern(volatile, parallel_unsafe)]
fn bulk_create_view(
    name: Option<&str>,
    view: Option<JsonbBytes<'_>>,
    materialized: default!(Option<bool>, "false"),
) -> Regclass {
    session::prevent_if_read_only(c"bulk_create_view()");
    or_raise(create(name, view, materialized))
}

/// 1. compile the view
/// 2. find the table of its type, which the caller may read
/// 3. create the view of SQL, which has the rights of whoever reads it
fn create(name: Option<&str>, view: Option<JsonbBytes<'_>>, materialized: Option<bool>) -> Result<Regclass> {
    let name = qualified(required(name, "name")?)?;
    let materialized = required(materialized, "materialized")?;
    let (view, text) = compile(view)?;
    let resource_type = ResourceType::new(view.resource_type()).map_err(|_| store::unknown(view.resource_type()))?;
    let table = ResourceTable::lock_to_read(&resource_type)?;
    let kind = if materialized { "MATERIALIZED VIEW" } else { "VIEW" };
    // A materialized view has its maker's rights: its rows are there already.
    let options = if materialized { "" } else { " WITH (security_invoker = true)" };
    let statement = format!("CREATE {kind} {name}{options} AS {}", select::query(&view, &text, &table)?);
    let statement = CString::new(statement).map_err(|_| Error::invalid_argument("the view has a NUL"))?;
    spi::execute(&statement, &[]);
    let found = spi::catalog_texts(c"SELECT to_regclass($1)::oid::text", &[Parameter::string(&name)]);
    let oid = found.first().and_then(|oid| oid.parse::<u32>().ok());
    let oid = oid.ok_or_else(|| {
        let message = format!("{name} is not there after it was created");
        Error::new(PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE, message).hint("An event trigger may have changed it.")
    })?;
    Ok(Regclass::new(oid.into()))
}

/// A name with its schema: that in which PostgreSQL would create it.
fn qualified(name: &str) -> Result<String> {
    let quoted = quoted_name("argument name", name)?;
    let parts = CString::new(name).ok().and_then(|name| fhir_bulk_pg::catalog::split_name(&name)).unwrap_or_default();
    if parts.len() > 1 {
        return Ok(quoted);
    }
    let schema = spi::texts(c"SELECT pg_catalog.current_schema()::pg_catalog.text", &[]);
    let schema = schema.first().ok_or_else(|| {
        Error::new(PgSqlErrorCode::ERRCODE_INVALID_SCHEMA_NAME, "no schema has been selected to create in")
            .hint("Set search_path, or name the schema: public.patient_flat.")
    })?;
    let mut full = Vec::new();
    write_identifier(schema, &mut full);
    Ok(format!("{}.{quoted}", String::from_utf8_lossy(&full)))
}
