//! Takes the members of a request one by one.

use fhir_bulk_pg::error::{Error, Result};
use serde_json::{Map, Value};

/// Takes a member that is true or false; false if it is missing.
///
/// # Errors
/// 22023 for another value, as all here.
pub fn flag(members: &mut Map<String, Value>, name: &str) -> Result<bool> {
    match members.remove(name) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(flag),
        Some(_) => Err(wrong(name, "true or false")),
    }
}

/// Takes a member that is one of some words.
pub fn one_of(members: &mut Map<String, Value>, name: &str, known: &[&str]) -> Result<Option<String>> {
    match members.remove(name) {
        None => Ok(None),
        Some(Value::String(word)) if known.contains(&word.as_str()) => Ok(Some(word)),
        Some(_) => Err(wrong(name, &format!("one of {}", known.join(", ")))),
    }
}

/// Checks that no member is left.
pub fn nothing_else(members: &Map<String, Value>, place: &str, known: &str) -> Result<()> {
    match members.keys().next() {
        None => Ok(()),
        Some(name) => Err(Error::invalid_argument(format!("the request has an unknown member \"{place}{name}\""))
            .hint(format!("The known members are {known}."))),
    }
}

/// The error for a member with a wrong value, which it does not show.
pub fn wrong(name: &str, expected: &str) -> Error {
    Error::invalid_argument(format!("\"{name}\" of the request is not {expected}"))
}
