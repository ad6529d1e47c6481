//! `bulk_read`: returns one resource.

use crate::arguments::required;
use crate::settings::{self, VersionId};
use crate::store::{Reader, ResourceTable, ResourceType, Rows, unknown};
use fhir_bulk_codec::resource::{Form, Writer};
use fhir_bulk_pg::error::{Error, Result, or_raise};
use pgrx::prelude::*;
use pgrx::{PgSqlErrorCode, default};
use serde_json::Value;
use std::ops::ControlFlow;

/// Returns a live resource by its id, or NULL if there is none that the caller may see.
#[pg_extern(stable, parallel_unsafe)]
fn bulk_read(resource_type: Option<&str>, id: Option<&str>, fhir: default!(Option<bool>, "true")) -> Option<String> {
    or_raise(read(resource_type, id, fhir))
}

/// A live resource by its id, in FHIR's form.
///
/// # Errors
/// 42P01 for a type without a table; 54001 for one that is nested too deeply to be read here.
pub fn resource(resource_type: &str, id: &str) -> Result<Option<Value>> {
    let Some(text) = read(Some(resource_type), Some(id), Some(true))? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| {
        let message = format!("{resource_type} \"{id}\" cannot be read: {error}");
        Error::new(PgSqlErrorCode::ERRCODE_STATEMENT_TOO_COMPLEX, message)
    })
}

fn read(resource_type: Option<&str>, id: Option<&str>, fhir: Option<bool>) -> Result<Option<String>> {
    let (name, id) = (required(resource_type, "resource_type")?, required(id, "id")?);
    let form = if required(fhir, "fhir")? { Form::Fhir(settings::fhir_version()) } else { Form::Aidbox };
    let resource_type = ResourceType::new(name).map_err(|_| unknown(name))?;
    let table = ResourceTable::lock_to_read(&resource_type)?;
    let writer = Writer::new(form, &settings::created_at_url(), settings::version_id() == VersionId::String);
    let mut reader = Reader::open(&table, resource_type.canonical(), Rows::WithIds(&[id.to_owned()]), None, writer)?;
    let mut line = None;
    // To its end, which closes the query: an id has one row.
    reader.each(|stored| {
        let mut text = Vec::new();
        stored.write(&mut text)?;
        line.get_or_insert(text);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(line.map(|line| String::from_utf8(line).expect("JSON of a UTF8 database")))
}
