//! Libraries of SQL on FHIR: a SQLQuery or SQLView has a query, the views that it reads, and the parameters that it declares.

use fhir_bulk_codec::rows::json::read_base64;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::placeholders;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::ffi::CString;

/// The kinds of Libraries that are subjects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Query,
    View,
}

/// The kind of a Library; `None` if it has no query.
pub fn kind(library: &Value) -> Option<Kind> {
    let codings = library["type"]["coding"].as_array()?;
    codings.iter().find_map(|coding| match coding["code"].as_str() {
        Some("sql-query") => Some(Kind::Query),
        Some("sql-view") => Some(Kind::View),
        _ => None,
    })
}

/// The text of its query: the one for PostgreSQL, or the one for any dialect.
///
/// # Errors
/// 22023 if there is none.
pub fn text(library: &Value) -> Result<String> {
    let contents = items(&library["content"]);
    let dialect = |content: &&Value| {
        let mut parts = content["contentType"].as_str()?.split(';').map(str::trim);
        let is_sql = parts.next()?.eq_ignore_ascii_case("application/sql");
        let dialect = parts.find_map(|part| part.strip_prefix("dialect=")).map(|name| name.trim_matches('"'));
        is_sql.then(|| dialect.unwrap_or_default().to_ascii_lowercase())
    };
    let with = |wanted: &str| contents.iter().find(|content| dialect(content).as_deref() == Some(wanted));
    let content = with("postgresql")
        .or_else(|| with(""))
        .ok_or_else(|| mistake("has no content of type application/sql;dialect=postgresql, or application/sql"))?;
    if let Some(data) = content["data"].as_str() {
        let bytes = read_base64(data).ok_or_else(|| mistake("has data that is not base64"))?;
        return String::from_utf8(bytes).map_err(|_| mistake("has a query that is not UTF-8"));
    }
    let extensions = items(&content["extension"]);
    let is_text = |extension: &&Value| extension["url"].as_str().is_some_and(|url| url.ends_with("/sql-text"));
    let text = extensions.iter().find(is_text).and_then(|extension| extension["valueString"].as_str());
    text.map(str::to_owned).ok_or_else(|| mistake("has a content without data"))
}

/// What it depends on: labels, and canonical URLs.
///
/// # Errors
/// 22023 for one without a label or a URL, and for a label that is there twice.
pub fn dependencies(library: &Value) -> Result<Vec<(&str, &str)>> {
    let mut found: Vec<(&str, &str)> = Vec::new();
    for related in items(&library["relatedArtifact"]) {
        if related["type"] != "depends-on" {
            continue;
        }
        let (Some(label), Some(url)) = (related["label"].as_str(), related["resource"].as_str()) else {
            return Err(mistake("has a relatedArtifact of type depends-on without label or resource"));
        };
        if found.iter().any(|(known, _)| *known == label) {
            return Err(mistake(&format!("has two dependencies with the label \"{label}\"")));
        }
        found.push((label, url));
    }
    Ok(found)
}

/// The values of those parameters that the query uses, each with the type that it declares. One that is not given is NULL.
///
/// # Errors
/// 22023 for a parameter that it does not declare, that has another type, or that is missing.
pub fn values(library: &Value, text: &str, given: Option<&Value>) -> Result<Map<String, Value>> {
    let declared: Vec<&Value> =
        items(&library["parameter"]).iter().filter(|declared| declared["use"] == "in").collect();
    let given = given.map_or(&[][..], |given| items(&given["parameter"]));
    let mut seen = BTreeSet::new();
    for part in given {
        let name = part["name"].as_str().unwrap_or_default();
        if !declared.iter().any(|declared| declared["name"] == name) {
            return Err(of_parameters(&format!("have \"{name}\", which the query does not declare")));
        }
        if !seen.insert(name) {
            return Err(of_parameters(&format!("have \"{name}\" twice")));
        }
    }
    let text = CString::new(text).map_err(|_| mistake("has a query with a NUL"))?;
    let used: BTreeSet<String> = placeholders::find(&text).into_iter().map(|found| found.name).collect();
    let mut values = Map::new();
    for declared in declared {
        let (Some(name), Some(type_name)) = (declared["name"].as_str(), declared["type"].as_str()) else {
            return Err(mistake("declares a parameter without name or type"));
        };
        let part = given.iter().find(|part| part["name"] == name);
        if part.is_none() && declared["min"].as_u64().is_some_and(|min| min > 0) {
            return Err(of_parameters(&format!("lack \"{name}\", which the query needs")));
        }
        let value = part.map_or(Ok(Value::Null), |part| {
            value(part, type_name)
                .ok_or_else(|| of_parameters(&format!("have another type for \"{name}\" than {type_name}")))
        })?;
        if used.contains(name) {
            values.insert(name.to_owned(), json!({"type": type_name, "value": value}));
        }
    }
    Ok(values)
}

/// The value of a parameter, if it has the type, or one that is contained in it.
fn value(part: &Value, type_name: &str) -> Option<Value> {
    let (key, value) = part.as_object()?.iter().find(|(key, _)| key.starts_with("value"))?;
    let given = &key["value".len()..];
    let fits = given.eq_ignore_ascii_case(type_name)
        || match type_name {
            "string" => ["Code", "Id", "Uri", "Url", "Canonical", "Oid", "Uuid", "Markdown"].contains(&given),
            "integer" => ["PositiveInt", "UnsignedInt"].contains(&given),
            "integer64" => ["Integer", "PositiveInt", "UnsignedInt"].contains(&given),
            "decimal" => ["Integer", "PositiveInt", "UnsignedInt", "Integer64"].contains(&given),
            "dateTime" => ["Instant", "Date"].contains(&given),
            _ => false,
        };
    fits.then(|| value.clone())
}

/// The elements of an array; none of anything else.
fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A mistake in a Library.
pub fn mistake(what: &str) -> Error {
    Error::invalid_argument(format!("the Library {what}"))
}

fn of_parameters(what: &str) -> Error {
    Error::invalid_argument(format!("parameters {what}"))
}
