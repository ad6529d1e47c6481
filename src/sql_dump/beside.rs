//! What a query has beside its text: views under names of the caller's, and values of its placeholders.

use super::values;
use crate::arguments::{Options, wrong};
use crate::views::{self, Selection};
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::placeholders;
use fhir_bulk_pg::query::{Beside, Place, Table};
use fhir_bulk_pg::{catalog, spi::Parameter};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::ffi::{CStr, CString};

/// The options, which all formats have.
pub const KNOWN: &str = "views, parameters, patient, group, since, limit";
/// How deep a view may be a query that sees views.
const MAX_DEPTH: usize = 16;

/// The options of a query.
pub struct Given {
    views: Map<String, Value>,
    parameters: Option<Map<String, Value>>,
    selection: Selection,
}

impl Given {
    /// Takes the options.
    ///
    /// # Errors
    /// 22023 for other values, and for a choice of resources without a view; P0002 for a Group that is not there.
    pub fn parse(options: &mut Options) -> Result<Given> {
        let object = |options: &mut Options, name: &str, example: &str| match options.take(name) {
            None => Ok(None),
            Some(Value::Object(members)) => Ok(Some(members)),
            Some(_) => Err(wrong(name, &format!("an object, such as {example}"))),
        };
        let views = object(options, "views", r#"{"bp": {"resource": "Observation", …}}"#)?.unwrap_or_default();
        let parameters = object(options, "parameters", r#"{"min": 140}"#)?;
        Given::new(views, parameters, Selection::parse(options)?)
    }

    /// # Errors
    /// 22023 for a choice of resources without a view.
    pub fn new(
        views: Map<String, Value>,
        parameters: Option<Map<String, Value>>,
        selection: Selection,
    ) -> Result<Given> {
        if selection.resources.is_some() {
            return Err(Error::invalid_argument("unknown option \"resources\"")
                .hint("dump_view() makes a view of given resources."));
        }
        if views.is_empty() && (selection.patients.is_some() || selection.since.is_some()) {
            let what = if selection.since.is_some() { "since" } else { "patient or group" };
            return Err(Error::invalid_argument(format!("option {what} is for views, and there are none"))
                .hint("A query itself says which rows it reads."));
        }
        Ok(Given { views, parameters, selection })
    }

    /// At most so many rows.
    pub fn limit(&self) -> Option<u64> {
        self.selection.limit
    }

    /// Makes tables of the views, and finds the placeholders of the query.
    ///
    /// # Errors
    /// 22023 for an invalid view, for a placeholder without a value, and for a value without a placeholder; 42P01 for a view of
    /// a type without a table. PostgreSQL raises its own errors.
    pub fn beside(&self, text: &CStr) -> Result<Beside> {
        let tables = tables(&self.views, &self.selection, 0)?;
        let Some(parameters) = &self.parameters else {
            return Ok(Beside { tables, ..Beside::default() });
        };
        let names: Vec<&String> = parameters.keys().collect();
        let values: Vec<Parameter> =
            parameters.iter().map(|(name, value)| values::parameter(name, value)).collect::<Result<_>>()?;
        let mut used = BTreeSet::new();
        let mut places = Vec::new();
        for found in placeholders::find(text) {
            let value =
                names.iter().position(|name| **name == found.name).ok_or_else(|| missing(&found.name, &names))?;
            used.insert(value);
            places.push(Place { at: found.at, length: found.name.len() + 1, value });
        }
        match (0..names.len()).find(|value| !used.contains(value)) {
            None => Ok(Beside { tables, places, values }),
            Some(value) => {
                let message = format!("option parameters has \"{}\", which the query does not use", names[value]);
                Err(Error::invalid_argument(message)
                    .hint("The query writes it as :name; between the bounds of a slice as (:name)."))
            }
        }
    }
}

fn missing(name: &str, known: &[&String]) -> Error {
    let known: Vec<&str> = known.iter().map(|name| name.as_str()).collect();
    let hint = match known.join(", ") {
        none if none.is_empty() => "The option has no values.".to_owned(),
        known => format!("It has {known}."),
    };
    Error::invalid_argument(format!("the query has :{name}, of which option parameters has no value")).hint(hint)
}

/// The tables of views by their names: each is a ViewDefinition, or a query, `{query, views}`, that sees views of its own.
fn tables(views: &Map<String, Value>, selection: &Selection, depth: usize) -> Result<Vec<Table>> {
    if depth == MAX_DEPTH {
        return Err(Error::invalid_argument(format!("option views is nested more than {MAX_DEPTH} times")));
    }
    let mut tables: Vec<Table> = Vec::new();
    for (label, view) in views {
        let name = table_name(label)?;
        if tables.iter().any(|table| table.name == name) {
            let message = format!("option views has two views that a query names {}", name.to_string_lossy());
            return Err(Error::invalid_argument(message).hint("A name without double quotes is read in lower case."));
        }
        let about = |error: Error| error.about(&format!("option views, {label}"));
        let (query, inner) = match view.as_object().filter(|members| members.contains_key("query")) {
            Some(members) => query_of(members).map_err(about)?,
            None => (views::select(view, selection).map_err(about)?, None),
        };
        let query = CString::new(query).map_err(|_| about(Error::invalid_argument("the query has a NUL")))?;
        let inner = inner.map_or(Ok(Vec::new()), |inner| self::tables(inner, selection, depth + 1))?;
        tables.push(Table { name, query, tables: inner });
    }
    Ok(tables)
}

/// A query that is a view, and the views that it sees.
fn query_of(members: &Map<String, Value>) -> Result<(String, Option<&Map<String, Value>>)> {
    if let Some(unknown) = members.keys().find(|name| !["query", "views"].contains(&name.as_str())) {
        return Err(Error::invalid_argument(format!("unknown member \"{unknown}\" of a query"))
            .hint("A query has the members query and views."));
    }
    let Some(Value::String(query)) = members.get("query") else {
        return Err(Error::invalid_argument("query is not a string"));
    };
    match members.get("views") {
        None => Ok((query.clone(), None)),
        Some(Value::Object(views)) => Ok((query.clone(), Some(views))),
        Some(_) => Err(Error::invalid_argument("views is not an object")),
    }
}

/// The name by which a query finds a view: the label as SQL reads it, in lower case unless it is in double quotes.
fn table_name(label: &str) -> Result<CString> {
    let parts = CString::new(label).ok().and_then(|label| catalog::split_name(&label)).unwrap_or_default();
    match <[String; 1]>::try_from(parts) {
        Ok([name]) if !name.is_empty() => Ok(CString::new(name).expect("a part of a C string")),
        _ => {
            let shown: String = label.chars().take(80).collect();
            Err(Error::invalid_argument(format!("option views: \"{shown}\" is not a table name"))
                .hint(r#"Write it as in SQL, without a schema: bp, "Blood Pressure"."#))
        }
    }
}
