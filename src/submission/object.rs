//! A request as an object of members, which are taken one by one.

use super::key::Submitter;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_transfer::join;
use serde_json::{Map, Value};

/// The longest text of a request: ids, URLs.
const MOST_BYTES: usize = 4096;
/// The longest text of several lines: keys.
const MOST_LINES_BYTES: usize = 16 << 10;

/// The members that are left.
pub struct Object(Map<String, Value>);

impl Object {
    /// # Errors
    /// 22023 if it is not an object.
    pub fn of(request: Value) -> Result<Object> {
        match request {
            Value::Object(members) => Ok(Object::new(members)),
            _ => Err(Error::invalid_argument("the request is not a JSON object")),
        }
    }

    /// A null counts as missing.
    pub fn new(mut members: Map<String, Value>) -> Object {
        members.retain(|_, value| !value.is_null());
        Object(members)
    }

    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    pub fn text(&mut self, name: &str) -> Result<Option<String>> {
        self.take(name).map(|value| text(name, value)).transpose()
    }

    /// A text of several lines. Errors don't have it.
    pub fn lines(&mut self, name: &str) -> Result<Option<String>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.len() <= MOST_LINES_BYTES => Ok(Some(text)),
            Some(_) => Err(wrong(name, &format!("a string of up to {MOST_LINES_BYTES} bytes"))),
        }
    }

    pub fn url(&mut self, name: &str) -> Result<Option<String>> {
        self.take(name).map(|value| url(name, value)).transpose()
    }

    /// The Identifier `submitter`.
    pub fn submitter(&mut self) -> Result<Submitter> {
        match self.take("submitter") {
            None => Err(missing("submitter")),
            Some(Value::Object(mut identifier)) => {
                let system = identifier.remove("system").map(|system| text("submitter.system", system)).transpose()?;
                let value = identifier.remove("value").ok_or_else(|| missing("submitter.value"))?;
                Ok(Submitter { system, value: text("submitter.value", value)? })
            }
            Some(_) => Err(wrong("submitter", "an Identifier, an object with system and value")),
        }
    }

    /// The names of the members that are left.
    pub fn names(self) -> Vec<String> {
        self.0.into_iter().map(|(name, _)| name).collect()
    }

    /// # Errors
    /// 22023 for a member that is left.
    pub fn end(self) -> Result<()> {
        self.names().first().map_or(Ok(()), |name| Err(unknown(name)))
    }
}

/// A text without control characters.
pub fn text(name: &str, value: Value) -> Result<String> {
    match value {
        Value::String(text) if !text.is_empty() && text.len() <= MOST_BYTES && !text.contains(char::is_control) => {
            Ok(text)
        }
        _ => Err(wrong(name, &format!("a string of up to {MOST_BYTES} bytes, without control characters"))),
    }
}

/// An http or https URL.
pub fn url(name: &str, value: Value) -> Result<String> {
    let url = text(name, value)?;
    match join(&url, "") {
        Ok(_) => Ok(url),
        Err(error) => Err(wrong(name, "an http or https URL").detail(format!("{error}."))),
    }
}

pub fn wrong(name: &str, expected: &str) -> Error {
    Error::invalid_argument(format!("\"{name}\" of the request is not {expected}"))
}

pub fn missing(name: &str) -> Error {
    Error::invalid_argument(format!("\"{name}\" of the request is missing"))
}

pub fn unknown(name: &str) -> Error {
    let shown: String = name.chars().take(80).collect();
    Error::invalid_argument(format!("the request has the unknown member \"{shown}\""))
}
