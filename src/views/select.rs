//! A view as a query of SQL, for a query of the caller's that sees it as a table.

use super::options::Selection;
use super::sql_types::ColumnType;
use super::{errors, row};
use crate::arguments::required;
use crate::extension;
use crate::settings;
use crate::store::{self, Membership, Patients, ResourceTable, ResourceType};
use fhir_bulk_codec::instant;
use fhir_bulk_codec::rows::sql::{write_identifier, write_literal};
use fhir_bulk_paths::item::Resource;
use fhir_bulk_pg::datum::JsonbBytes;
use fhir_bulk_pg::error::{Error, Result, or_raise};
use fhir_bulk_pg::site::Site;
use fhir_bulk_views::View;
use pgrx::prelude::*;
use serde_json::Value;
use std::rc::Rc;

/// A query with the typed columns and the rows of a view, of the resources that are chosen. The caller's transaction has the
/// table locked.
///
/// # Errors
/// 22023 for an invalid view; 42P01 for a type without a table.
pub fn select(view: &Value, selection: &Selection) -> Result<String> {
    let compiled = View::compile(settings::fhir_version(), view).map_err(errors::invalid)?;
    let name = compiled.resource_type();
    let resource_type = ResourceType::new(name).map_err(|_| store::unknown(name))?;
    let table = ResourceTable::lock_to_read(&resource_type)?;
    let mut select = query(&compiled, &view.to_string(), &table)?;
    let literal = |text: &str| {
        let mut out = Vec::new();
        write_literal(text.as_bytes(), &mut out);
        String::from_utf8(out).expect("made of strings")
    };
    if let Some(since) = selection.since {
        let since = literal(&instant::format(since, 0));
        select.push_str(&format!(" AND p.ts OPERATOR(pg_catalog.>=) {since}::pg_catalog.timestamptz"));
    }
    if let Some(patients) = selection.patients.clone() {
        let mut ids: Vec<String> = patients.into();
        ids.sort_unstable();
        let ids = literal(&Value::from(ids).to_string());
        select.push_str(&format!(
            " AND {}.bulk_belongs_to({ids}, {}, p.id::pg_catalog.text, p.resource::pg_catalog.jsonb)",
            extension::schema(),
            literal(resource_type.canonical()),
        ));
    }
    Ok(select)
}

/// One row of the function for each row of the view. The resource's id comes from the table, so that a condition on it finds the
/// row by the table's key.
pub(super) fn query(view: &View, text: &str, table: &ResourceTable) -> Result<String> {
    let (mut columns, mut constants) = (Vec::new(), Vec::new());
    for (at, column) in view.columns().iter().enumerate() {
        let ColumnType { name, is_base64 } = ColumnType::of(column)?;
        let cell = format!("(r.cells)[{}]", at + 1);
        let value = match (view.is_id(at), is_base64) {
            (true, _) => "p.id::pg_catalog.text".to_owned(),
            (false, true) => format!("pg_catalog.decode({cell}, 'base64')"),
            (false, false) => cell,
        };
        let mut out = format!("CAST({value} AS {name}) AS ").into_bytes();
        write_identifier(&column.name, &mut out);
        columns.push(String::from_utf8(out).expect("made of strings"));
    }
    for constant in [text, row::number_of(settings::fhir_version())] {
        let mut out = Vec::new();
        write_literal(constant.as_bytes(), &mut out);
        constants.push(String::from_utf8(out).expect("made of strings"));
    }
    Ok(format!(
        "SELECT {} FROM {} AS p CROSS JOIN LATERAL {}.bulk_view_rows({}, p.id::pg_catalog.text, p.txid::pg_catalog.int8, \
         p.ts::pg_catalog.timestamptz, p.resource_type::pg_catalog.text, p.resource::pg_catalog.jsonb) AS r(cells) \
         WHERE {} OPERATOR(pg_catalog.<>) 'deleted'",
        columns.join(", "),
        table.sql_name,
        extension::schema(),
        constants.join(", "),
        table.status("p."),
    ))
}

/// Whether a resource belongs to one of some patients, a JSON array of ids.
#[pg_extern(stable, parallel_safe)]
fn bulk_belongs_to(
    patients: Option<&str>,
    resource_type: Option<&str>,
    id: Option<&str>,
    resource: Option<JsonbBytes<'_>>,
    site: Site,
) -> bool {
    let make = || membership(required(patients, "patients")?, required(resource_type, "resource_type")?);
    let belongs = || {
        // In a query both are constants: there may be very many patients.
        let membership = match site.kept(&[0, 1], make)? {
            Some(kept) => kept,
            None => Rc::new(make()?),
        };
        let (Some(id), Some(JsonbBytes(json))) = (id, resource) else { return Ok(false) };
        let resource_type = required(resource_type, "resource_type")?;
        Ok(membership.has(Resource { id, resource_type, last_updated: None, version_id: None, json }))
    };
    or_raise(belongs())
}

fn membership(patients: &str, resource_type: &str) -> Result<Membership> {
    let ids: Vec<String> = serde_json::from_str(patients)
        .map_err(|_| Error::invalid_argument("argument patients is not a JSON array of ids"))?;
    Ok(Membership::new(resource_type, Some(Patients::from(ids))))
}
