//! What the session that asks for a job has set, for its workers to work under.

use crate::pg::guc;
use serde_json::{Map, Value};
use std::ffi::CString;

/// Settings whose values decide what a job does or what policies and triggers see of it.
fn matters(name: &str) -> bool {
    let starts = |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    starts("fhir_bulk.")
        || starts("request.")
        || ["timezone", "search_path", "row_security"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Name to value, of this session.
pub fn settings() -> Value {
    Value::Object(guc::of_session(matters).into_iter().map(|(name, value)| (name, value.into())).collect())
}

/// Sets them until the transaction ends.
pub fn apply(settings: &Map<String, Value>) {
    for (name, value) in settings {
        let text = |text: &str| CString::new(text).expect("settings have no NUL");
        guc::set_local(&text(name), &text(value.as_str().unwrap_or_default()));
    }
}
