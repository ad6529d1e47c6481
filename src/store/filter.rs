//! Filters on resources: FHIR's search queries, and the patients that resources belong to. The rows' bytes decide; where an
//! index can find the rows, the statement asks for it.

use super::identifiers::indexed_expressions;
use super::parameters::own_parameters;
use super::{Membership, Patients, ResourceTable};
use crate::settings;
use fhir_bulk_paths::item::Resource;
use fhir_bulk_paths::search::{self, Necessary, Problem, Refused, Searched};
use fhir_bulk_pg::datum;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::spi::Parameter;
use pgrx::{PgSqlErrorCode, pg_sys};
use serde_json::Value;
use std::ffi::CString;

/// A filter for the resources of one type: a query, or the patients that they have to belong to, or both.
pub struct Filter {
    query: Option<search::Filter>,
    membership: Option<Membership>,
}

impl Filter {
    /// A search query, the part of a search URL after the question mark, for a type.
    ///
    /// # Errors
    /// 0A000 for what is not supported, 22023 for what is no query; both name the search parameter.
    pub fn new(query: &str, resource_type: &str) -> Result<Filter> {
        let (own, bases) = (own_parameters(), settings::base_urls());
        let searched = Searched { version: settings::fhir_version(), resource_type, own: &own, bases: &bases };
        let query = search::Filter::new(query, &searched).map_err(refused)?;
        Ok(Filter { query: Some(query), membership: None })
    }

    /// A filter that lets through what one of the queries does, which are for the same type.
    pub fn any_of(filters: impl IntoIterator<Item = Filter>) -> Option<Filter> {
        let query = search::Filter::any_of(filters.into_iter().filter_map(|filter| filter.query))?;
        Some(Filter { query: Some(query), membership: None })
    }

    /// What `filter` lets through, as far as it belongs to one of these patients; without patients, to any.
    pub fn of_patients(filter: Option<Filter>, resource_type: &str, patients: Option<Patients>) -> Filter {
        let membership = Some(Membership::new(resource_type, patients));
        Filter { query: filter.and_then(|filter| filter.query), membership }
    }

    /// Warns of what the query has that means nothing.
    pub fn warn(&self) {
        for sentence in self.ignored() {
            pgrx::warning!("{sentence}");
        }
    }

    /// What the query has that means nothing, as sentences.
    pub fn ignored(&self) -> &[String] {
        self.query.as_ref().map_or(&[], |query| &query.ignored)
    }

    /// Whether it lets a resource through.
    #[inline]
    pub fn matches(&self, resource: Resource<'_>) -> bool {
        self.query.as_ref().is_none_or(|query| query.matches(resource))
            && self.membership.as_ref().is_none_or(|membership| membership.has(resource))
    }

    /// Whether an index of the table may find the rows for the current role.
    pub fn has_index(&self, table: &ResourceTable) -> bool {
        let mut parameters = Vec::new();
        self.narrow(table, &mut String::new(), &mut parameters);
        !parameters.is_empty()
    }

    /// Adds to a statement's WHERE what all rows have that the filter lets through, as far as an index of the table can
    /// find it for the current role.
    pub fn narrow(&self, table: &ResourceTable, query: &mut String, parameters: &mut Vec<Parameter>) {
        let mut indexed = None;
        for necessary in self.query.iter().flat_map(search::Filter::necessary) {
            match necessary {
                Necessary::Ids(ids) => {
                    parameters.push(Parameter::strings(ids.iter().map(String::as_bytes)));
                    let number = parameters.len();
                    query.push_str(&format!(" AND id::pg_catalog.text OPERATOR(pg_catalog.=) ANY (${number})"));
                }
                Necessary::Changed { from, until } => {
                    for (at, operator) in [(from, ">="), (until, "<")] {
                        if let Some(at) = at {
                            parameters.push(Parameter::timestamptz(at));
                            query.push_str(&format!(" AND ts OPERATOR(pg_catalog.{operator}) ${}", parameters.len()));
                        }
                    }
                }
                Necessary::Contains(patterns) => {
                    let indexed = indexed.get_or_insert_with(|| indexed_expressions(table));
                    if let Some((expression, mut patterns)) = containment(indexed, &patterns) {
                        parameters.push(Parameter::jsonbs(&mut patterns));
                        let number = parameters.len();
                        query.push_str(&format!(" AND {expression} OPERATOR(pg_catalog.@>) ANY (${number})"));
                    }
                }
            }
        }
    }
}

/// An indexed expression that may contain one of these patterns, and the patterns for it. A pattern is an object with one
/// member, and an index is on the resource or on that member.
fn containment(indexed: &[String], patterns: &[String]) -> Option<(String, Vec<pg_sys::Datum>)> {
    let has = |expression: &str| indexed.iter().any(|found| found == expression);
    let jsonb = |text: String| datum::input(pg_sys::JSONBOID, &CString::new(text).expect("JSON text has no NUL"));
    let members: Vec<(String, Value)> = patterns
        .iter()
        .filter_map(|pattern| match serde_json::from_str(pattern) {
            Ok(Value::Object(members)) => members.into_iter().next(),
            _ => None,
        })
        .collect();
    let (name, _) = members.first()?;
    // The smaller index first. Names of elements need no quotes.
    if name.bytes().all(|byte| byte.is_ascii_alphanumeric()) && has(&format!("resource -> '{name}'::text")) {
        let expression = format!("(resource OPERATOR(pg_catalog.->) '{name}'::pg_catalog.text)");
        return Some((expression, members.iter().map(|(_, value)| jsonb(value.to_string())).collect()));
    }
    has("resource").then(|| ("resource".to_owned(), patterns.iter().cloned().map(jsonb).collect()))
}

fn refused(Refused { problem, parameter, message, hint }: Refused) -> Error {
    let code = match problem {
        Problem::NotSupported => PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        Problem::Invalid => PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
    };
    let message = if parameter.is_empty() {
        format!("the filter is refused: {message}")
    } else {
        format!("search parameter \"{parameter}\": {message}")
    };
    let error = Error::new(code, message);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
