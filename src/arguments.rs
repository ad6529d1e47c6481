//! Checks that all SQL functions make on their arguments.

use fhir_bulk_codec::jsonb::text::{Spacing, TextWriter};
use fhir_bulk_codec::rows::sql::write_identifier;
use fhir_bulk_pg::catalog;
use fhir_bulk_pg::datum::{self, JsonbBytes};
use fhir_bulk_pg::error::{Error, Result};
use pgrx::PgSqlErrorCode;
use serde_json::{Map, Value};
use std::ffi::CString;
use std::ops::RangeInclusive;

/// Returns an argument that must not be NULL.
///
/// # Errors
/// 22004 if it is NULL.
pub fn required<T>(argument: Option<T>, name: &str) -> Result<T> {
    argument.ok_or_else(|| {
        Error::new(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, format!("argument {name} must not be NULL"))
    })
}

/// Reads a jsonb argument that must not be NULL.
///
/// # Errors
/// 22004 if it is NULL; 22023 if it is nested too deeply to be read.
pub fn parsed(argument: Option<JsonbBytes<'_>>, name: &str) -> Result<Value> {
    let JsonbBytes(bytes) = required(argument, name)?;
    let mut text = Vec::new();
    TextWriter::new(Spacing::Compact).write(bytes, &mut text);
    // It is JSON, and serde_json's only limit is its depth.
    serde_json::from_slice(&text).map_err(|_| {
        Error::invalid_argument(format!("argument {name} is nested too deeply"))
            .hint("Its objects and arrays nest 127 levels deep at most.")
    })
}

/// The members of an argument `options`. The caller takes them one by one.
pub struct Options(Map<String, Value>);

impl Options {
    /// # Errors
    /// 22023 if it is not an object.
    pub fn new(options: Value) -> Result<Options> {
        match options {
            Value::Object(members) => Ok(Options(members)),
            _ => Err(Error::invalid_argument("options is not a JSON object").hint("Leave it out, or pass '{}'.")),
        }
    }

    /// Takes a member of any type.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    /// Takes a member that is true or false; false if it is missing.
    ///
    /// # Errors
    /// 22023 for another value.
    pub fn flag(&mut self, name: &str) -> Result<bool> {
        match self.take(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => Err(wrong(name, "true or false")),
        }
    }

    /// Takes a member that is a string.
    ///
    /// # Errors
    /// 22023 for another value.
    pub fn string(&mut self, name: &str) -> Result<Option<String>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong(name, "a string")),
        }
    }

    /// Takes a string that must be there.
    ///
    /// # Errors
    /// 22023 if it is missing or another value.
    pub fn needed(&mut self, name: &str, by: &str, example: &str) -> Result<String> {
        self.string(name)?.ok_or_else(|| {
            Error::invalid_argument(format!("{by} needs the option {name}"))
                .hint(format!("For example options => '{example}'."))
        })
    }

    /// Takes a member that is a point in time, in microseconds since 2000-01-01T00:00:00Z.
    ///
    /// # Errors
    /// 22023 for another value.
    pub fn instant(&mut self, name: &str) -> Result<Option<i64>> {
        let expected = || wrong(name, "a timestamp, such as \"2025-01-01T00:00:00Z\"");
        let Some(value) = self.take(name) else { return Ok(None) };
        let text = value.as_str().and_then(|text| CString::new(text).ok()).ok_or_else(expected)?;
        datum::timestamptz(&text).map(Some).map_err(|why| expected().detail(format!("{}.", why.message())))
    }

    /// Takes a member that is a whole number within bounds.
    ///
    /// # Errors
    /// 22023 for another value.
    pub fn count(&mut self, name: &str, bounds: RangeInclusive<u64>) -> Result<Option<u64>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let count = value.as_u64().filter(|count| bounds.contains(count));
        let expected = || format!("a whole number from {} to {}", bounds.start(), bounds.end());
        count.map(Some).ok_or_else(|| wrong(name, &expected()))
    }

    /// Checks that no member is left.
    ///
    /// # Errors
    /// 22023 with the name of such a member, and with the `known` options of `whose` as HINT.
    pub fn end(self, whose: &str, known: &str) -> Result<()> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => {
                let hint = if known.is_empty() {
                    format!("There are no options for {whose}.")
                } else {
                    format!("The options of {whose} are {known}.")
                };
                Err(Error::invalid_argument(format!("unknown option \"{name}\"")).hint(hint))
            }
        }
    }
}

/// The error for an option whose value is not what `expected` says (22023).
pub fn wrong(name: &str, expected: &str) -> Error {
    Error::invalid_argument(format!("option {name} is not {expected}"))
}

/// Quotes each part of a relation's name. `what` is the argument or option that has it.
///
/// # Errors
/// 42602 if it is not a name.
pub fn quoted_name(what: &str, name: &str) -> Result<String> {
    let parts = CString::new(name).ok().and_then(|name| catalog::split_name(&name));
    let parts = parts.filter(|parts| (1..=3).contains(&parts.len())).ok_or_else(|| {
        Error::new(PgSqlErrorCode::ERRCODE_INVALID_NAME, format!("{what} is not a table name: {name}"))
            .hint(r#"Write it as in SQL: patient_copy, public.patient_copy, "Patient Copy"."#)
    })?;
    let mut out = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            out.push(b'.');
        }
        write_identifier(part, &mut out);
    }
    Ok(String::from_utf8(out).expect("made of strings"))
}
