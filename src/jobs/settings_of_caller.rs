//! The settings of the session that adds a job. Its workers run under the same settings.

use fhir_bulk_pg::guc;
use serde_json::{Map, Value};
use std::ffi::CString;

/// Whether a setting decides what a job does, or policies and triggers may read it.
fn matters(name: &str) -> bool {
    let starts = |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    (starts("fhir_bulk.") || starts("request.") && !starts("request.cookie"))
        || ["timezone", "search_path", "row_security"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Whether a header of a request is a credential. The queue must not store it: a reader of the queue, or of a backup, could
/// act as the caller.
fn is_secret(header: &str) -> bool {
    ["authorization", "proxy-authorization", "cookie", "x-api-key"]
        .iter()
        .any(|secret| header.eq_ignore_ascii_case(secret))
}

/// This session's settings, as an object of names and values.
pub fn settings() -> Value {
    let mut settings = Map::new();
    for (name, value) in guc::of_session(matters) {
        let header = name.get(.."request.header.".len()).filter(|start| start.eq_ignore_ascii_case("request.header."));
        if header.is_some_and(|start| is_secret(&name[start.len()..])) {
            continue;
        }
        let value = if name.eq_ignore_ascii_case("request.headers") { without_secrets(&value) } else { value };
        settings.insert(name, value.into());
    }
    Value::Object(settings)
}

/// Removes credentials from the headers, a JSON object as PostgREST sets it. Anything else is dropped, because it cannot be
/// read safely.
fn without_secrets(headers: &str) -> String {
    let Ok(Value::Object(mut headers)) = serde_json::from_str(headers) else { return String::new() };
    headers.retain(|name, _| !is_secret(name));
    Value::Object(headers).to_string()
}

/// Applies settings until the transaction ends.
pub fn apply(settings: &Map<String, Value>) {
    for (name, value) in settings {
        let text = |text: &str| CString::new(text).expect("settings have no NUL");
        guc::set_local(&text(name), &text(value.as_str().unwrap_or_default()));
    }
}
