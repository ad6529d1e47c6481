//! YAML → JSON: what comes out is JSON, not much longer than it may be, and JSON itself means the same when it is read as YAML.

use fhir_bulk_proxy::request::yaml::to_json;
use serde_json::Value;

/// The most bytes that aliases may expand to.
const MOST: usize = 4096;

/// Checks a text.
pub fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(json) = to_json(text, MOST) else { return };
    // What is written without aliases may be longer, by the escapes and quotes of JSON.
    assert!(json.len() <= MOST.max(text.len() * 6) + text.len() * 6 + 16, "{} bytes of {}", json.len(), text.len());
    let Some(read) = crate::reference::parse(json.as_bytes()) else { return };
    let read = read.unwrap_or_else(|error| panic!("{json} is no JSON: {error}"));
    // A JSON text that is read as YAML has the same meaning. Surrogates are characters of their own to YAML, and its white space
    // is another one.
    if crate::reference::has(data, b"\\u") || text.contains(['\t', '\r', '\u{85}', '\u{2028}', '\u{2029}', '\u{feff}'])
    {
        return;
    }
    if let Some(Ok(meant @ (Value::Object(_) | Value::Array(_)))) = crate::reference::parse(data) {
        assert_eq!(read, meant, "{text}");
    }
}
