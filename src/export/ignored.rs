//! What a lenient request asked for in vain. The files of `error` tell it.

use fhir_bulk_pg::error::Error;
use pgrx::PgSqlErrorCode;
use serde::{Deserialize, Serialize};

/// A parameter, or a part of its value, that was left out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ignored {
    /// The parameter.
    pub parameter: String,
    /// A code of HL7's code system issue-type.
    pub code: String,
    /// What was left out, and why.
    pub diagnostics: String,
}

/// The most that a request may ask for in vain.
pub const MOST: usize = 100;

impl Ignored {
    /// A parameter that is not known.
    pub fn unknown(parameter: &str) -> Ignored {
        let parameter = shown(parameter);
        let diagnostics = format!("The parameter \"{parameter}\" is not known, and was ignored.");
        Ignored { parameter, code: "not-supported".to_owned(), diagnostics }
    }

    /// Something that is refused with this error if the request is not lenient.
    pub fn new(parameter: &str, what: &str, error: &Error) -> Ignored {
        let code = match error.code() {
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED => "not-supported",
            PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE => "not-found",
            _ => "invalid",
        };
        let diagnostics = format!("{what}: {}.", error.message());
        Ignored { parameter: parameter.to_owned(), code: code.to_owned(), diagnostics }
    }
}

/// The beginning of a text, for messages.
pub fn shown(text: &str) -> String {
    let mut chars = text.chars();
    let shown: String = chars.by_ref().take(200).collect();
    if chars.next().is_some() { shown + "..." } else { shown }
}
