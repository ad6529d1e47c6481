//! Reads the JSON of a ViewDefinition, element by element.

use crate::error::Invalid;
use serde_json::{Map, Value};

/// Members that every element of FHIR may have.
const COMMON: [&str; 3] = ["id", "extension", "modifierExtension"];

/// An object with only such members, and those that every element may have.
pub fn object<'v>(value: &'v Value, element: &str, known: &[&str]) -> Result<&'v Map<String, Value>, Invalid> {
    let Value::Object(object) = value else { return Err(Invalid::new(element, "it is not an object")) };
    let is_known =
        |name: &String| known.contains(&name.as_str()) || COMMON.contains(&name.as_str()) || name.starts_with('_');
    match object.keys().find(|name| !is_known(name)) {
        None => Ok(object),
        Some(name) => {
            let hint = format!("It may have {}.", known.join(", "));
            Err(Invalid::new(element, format!("\"{}\" is not known here", shown(name))).hint(hint))
        }
    }
}

/// The place of a member.
pub fn member(around: &str, name: &str) -> String {
    if around.is_empty() { name.to_owned() } else { format!("{around}.{name}") }
}

/// A member that is a text, if it is there.
pub fn text<'v>(object: &'v Map<String, Value>, name: &str, around: &str) -> Result<Option<&'v str>, Invalid> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Invalid::new(&member(around, name), "it is not a string")),
    }
}

/// The member `path`, which has to be there, and its place.
pub fn path<'v>(object: &'v Map<String, Value>, around: &str) -> Result<(&'v str, String), Invalid> {
    let element = member(around, "path");
    match text(object, "path", around)? {
        Some(text) => Ok((text, element)),
        None => Err(Invalid::new(&element, "it is missing")),
    }
}

/// A member that is true or false; false if it is not there.
pub fn flag(object: &Map<String, Value>, name: &str, around: &str) -> Result<bool, Invalid> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(Invalid::new(&member(around, name), "it is not true or false")),
    }
}

/// A member that is a list, if it is there.
pub fn list<'v>(object: &'v Map<String, Value>, name: &str, around: &str) -> Result<Option<&'v [Value]>, Invalid> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(list)) => Ok(Some(list)),
        Some(_) => Err(Invalid::new(&member(around, name), "it is not a list")),
    }
}

/// The name of a column or a constant.
pub fn name<'v>(object: &'v Map<String, Value>, around: &str) -> Result<&'v str, Invalid> {
    let element = member(around, "name");
    let name = text(object, "name", around)?.ok_or_else(|| Invalid::new(&element, "it is missing"))?;
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic());
    if !starts || name.len() > 255 || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(Invalid::new(&element, format!("\"{}\" is not a name", shown(name)))
            .hint("A name is a letter and letters, digits and underscores after it."));
    }
    Ok(name)
}

/// The beginning of a text that is told in an error.
pub fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}
