//! Values of placeholders: JSON's own, or `{"type", "value"}` with a type of FHIR's.

use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::spi::Parameter;
use pgrx::pg_sys;
use serde_json::Value;
use std::ffi::CString;

/// FHIR's types, and what a value of each is in SQL.
const TYPES: [(&str, pg_sys::Oid); 18] = [
    ("string", pg_sys::TEXTOID),
    ("code", pg_sys::TEXTOID),
    ("id", pg_sys::TEXTOID),
    ("uri", pg_sys::TEXTOID),
    ("url", pg_sys::TEXTOID),
    ("canonical", pg_sys::TEXTOID),
    ("oid", pg_sys::TEXTOID),
    ("uuid", pg_sys::TEXTOID),
    ("markdown", pg_sys::TEXTOID),
    ("boolean", pg_sys::BOOLOID),
    ("integer", pg_sys::INT4OID),
    ("positiveInt", pg_sys::INT4OID),
    ("unsignedInt", pg_sys::INT4OID),
    ("integer64", pg_sys::INT8OID),
    ("decimal", pg_sys::NUMERICOID),
    ("date", pg_sys::DATEOID),
    ("dateTime", pg_sys::TIMESTAMPTZOID),
    ("instant", pg_sys::TIMESTAMPTZOID),
];

/// The value of a placeholder.
///
/// # Errors
/// 22023 for one that is none of its type, or none at all; the message has the name.
pub fn parameter(name: &str, value: &Value) -> Result<Parameter> {
    let refused = |what: &str| Error::invalid_argument(format!("option parameters: \"{name}\" {what}"));
    let typed = value.as_object();
    let (type_name, value) = match typed {
        None => (None, value),
        Some(members) => match (members.get("type").and_then(Value::as_str), members.get("value"), members.len()) {
            (Some(type_name), Some(value), 2) => (Some(type_name), value),
            _ => return Err(refused("is neither a value nor {\"type\", \"value\"}")),
        },
    };
    let text = match value {
        Value::Null if type_name.is_some() => None,
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null => {
            return Err(refused("is null, which needs a type").hint("Write {\"type\": \"decimal\", \"value\": null}."));
        }
        Value::Array(_) | Value::Object(_) => return Err(refused("is not a string, a number, true or false")),
    };
    let (shown, type_oid) = match type_name {
        Some(wanted) => *TYPES.iter().find(|(known, _)| *known == wanted).ok_or_else(|| {
            let names: Vec<&str> = TYPES.iter().map(|(known, _)| *known).collect();
            refused("has a type that is not known").hint(format!("The types are {}.", names.join(", ")))
        })?,
        None => own_type(value),
    };
    let wrong = || refused(&format!("is not a value of type {shown}"));
    let Some(text) = text else { return Parameter::read(type_oid, None) };
    if !is_written(type_oid, value, &text) {
        return Err(match type_oid {
            pg_sys::DATEOID => wrong().hint("Write it as 2024-01-31."),
            pg_sys::TIMESTAMPTZOID => wrong().hint("Write it as 2024-01-31T12:00:00Z."),
            _ => wrong(),
        });
    }
    let text = CString::new(text).map_err(|_| refused("has a NUL"))?;
    Parameter::read(type_oid, Some(&text)).map_err(|error| wrong().detail(error.message().to_owned()))
}

/// The type of a value of JSON.
fn own_type(value: &Value) -> (&'static str, pg_sys::Oid) {
    match value {
        Value::Bool(_) => ("boolean", pg_sys::BOOLOID),
        Value::Number(number) => {
            let text = number.to_string();
            match (text.parse::<i32>(), text.parse::<i64>()) {
                (Ok(_), _) => ("integer", pg_sys::INT4OID),
                (Err(_), Ok(_)) => ("integer64", pg_sys::INT8OID),
                _ => ("decimal", pg_sys::NUMERICOID),
            }
        }
        _ => ("string", pg_sys::TEXTOID),
    }
}

/// Whether a value of JSON may be one of a type: PostgreSQL would also read `now`, `infinity` or `yes`.
fn is_written(type_oid: pg_sys::Oid, value: &Value, text: &str) -> bool {
    match type_oid {
        pg_sys::BOOLOID => value.is_boolean(),
        pg_sys::INT4OID | pg_sys::INT8OID => text.parse::<i64>().is_ok() && !text.starts_with('+'),
        pg_sys::NUMERICOID => !value.is_boolean() && serde_json::from_str::<serde_json::Number>(text).is_ok(),
        pg_sys::DATEOID => value.is_string() && has_shape(text, "0000-00-00"),
        pg_sys::TIMESTAMPTZOID => value.is_string() && is_time(text),
        _ => value.is_string(),
    }
}

/// `2024-01-31`, `2024-01-31T12:00`, with seconds, their fraction and an offset, or without.
fn is_time(text: &str) -> bool {
    let Some((date, time)) = text.split_once('T') else { return has_shape(text, "0000-00-00") };
    let (clock, offset) = time.find(['Z', '+', '-']).map_or((time, ""), |at| time.split_at(at));
    let (whole, fraction) = clock.split_once('.').map_or((clock, None), |(whole, fraction)| (whole, Some(fraction)));
    let is_fraction = |digits: &str| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    let has_clock = has_shape(whole, "00:00:00") || fraction.is_none() && has_shape(whole, "00:00");
    let has_offset = ["", "Z"].contains(&offset) || has_shape(&offset[1..], "00:00");
    has_shape(date, "0000-00-00") && has_clock && fraction.is_none_or(is_fraction) && has_offset
}

/// Whether `text` has a digit wherever `shape` has one, and the same characters elsewhere.
fn has_shape(text: &str, shape: &str) -> bool {
    text.len() == shape.len()
        && text.bytes().zip(shape.bytes()).all(|(t, s)| if s == b'0' { t.is_ascii_digit() } else { t == s })
}

#[cfg(test)]
mod tests {
    use super::is_time;

    #[test]
    fn times_have_the_shapes_of_fhir() {
        for text in ["2024-01-31", "2024-01-31T12:00", "2024-01-31T12:00:00.5+01:00", "2024-01-31T12:00:00Z"] {
            assert!(is_time(text), "{text}");
        }
        for text in [
            "2024",
            "now",
            "2024-01-31 12:00",
            "2024-01-31T",
            "2024-01-31T12:00:00.",
            "2024-01-31T12:00:00+1",
            "2024-01-31T12:00Zx",
        ] {
            assert!(!is_time(text), "{text}");
        }
    }
}
