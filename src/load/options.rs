//! Reads the argument `options` of a load.

use crate::arguments::{self, wrong};
use crate::store::Known;
use fhir_bulk_pg::error::{Error, Result};
use serde_json::Value;

const KNOWN: &str = "update, skip_unchanged, on_conflict, strip-nulls, merge, on_error, max_errors";

/// What to do with a line that cannot be loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// End the load.
    #[default]
    Abort,
    /// Store it as a rejected line and go on, for up to `max_errors` lines.
    Skip { max_errors: u64 },
}

/// Checked options.
#[derive(Debug, Default)]
pub struct Options {
    /// What becomes of a resource whose id comes again.
    pub known: Known,
    /// Leave out object members that are null, at any depth.
    pub strip_nulls: bool,
    /// JSON text of members, without the braces, that every resource gets at its top; empty for none.
    pub merge: String,
    /// See [`OnError`].
    pub on_error: OnError,
}

impl Options {
    /// Reads `{"update": …, "skip_unchanged": …, "on_conflict": …, "strip-nulls": …, "merge": {…}, "on_error": …, "max_errors": …}`.
    ///
    /// # Errors
    /// 22023 for an option that is unknown or has a wrong value.
    pub fn parse(options: Value) -> Result<Options> {
        let mut options = arguments::Options::new(options)?;
        let (keep_history, skip_unchanged) = (options.flag("update")?, options.flag("skip_unchanged")?);
        let refuse = match options.string("on_conflict")?.as_deref() {
            None | Some("update") => false,
            Some("error") => true,
            Some(_) => return Err(wrong("on_conflict", "\"update\" or \"error\"")),
        };
        let known = known(refuse, keep_history, skip_unchanged, ["on_conflict", "update", "skip_unchanged"])?;
        let strip_nulls = options.flag("strip-nulls")?;
        let merge = merge(options.take("merge"))?;
        let max_errors = match options.take("max_errors") {
            None => None,
            Some(value) => Some(value.as_u64().ok_or_else(|| wrong("max_errors", "a whole number, 0 or more"))?),
        };
        let on_error = match options.take("on_error") {
            None => OnError::Abort,
            Some(Value::String(word)) if word == "abort" => OnError::Abort,
            Some(Value::String(word)) if word == "skip" => OnError::Skip { max_errors: max_errors.unwrap_or(u64::MAX) },
            Some(_) => return Err(wrong("on_error", "\"abort\" or \"skip\"")),
        };
        if max_errors.is_some() && on_error == OnError::Abort {
            return Err(Error::invalid_argument("option max_errors needs on_error \"skip\""));
        }
        options.end("a load", KNOWN)?;
        Ok(Options { known, strip_nulls, merge, on_error })
    }
}

/// What becomes of known ids, by three options with these names.
///
/// # Errors
/// 22023 if an id cannot be both refused and replaced.
pub fn known(refuse: bool, keep_history: bool, skip_unchanged: bool, names: [&str; 3]) -> Result<Known> {
    let [conflict, update, skip] = names;
    match (refuse, keep_history, skip_unchanged) {
        (false, ..) => Ok(Known::Replace { keep_history, skip_unchanged }),
        (true, false, false) => Ok(Known::Refuse),
        (true, keeps, _) => {
            let other = if keeps { update } else { skip };
            Err(Error::invalid_argument(format!("{conflict} \"error\" does not go with {other}"))
                .hint("A known id that is an error is not replaced."))
        }
    }
}

fn merge(value: Option<Value>) -> Result<String> {
    match value {
        None => Ok(String::new()),
        Some(Value::Object(members)) => {
            if let Some(name) = members.keys().find(|name| matches!(name.as_str(), "id" | "resourceType")) {
                return Err(Error::invalid_argument(format!("option merge may not set {name}")));
            }
            let text = Value::Object(members).to_string();
            Ok(text[1..text.len() - 1].to_owned())
        }
        Some(_) => Err(wrong("merge", "an object")),
    }
}
