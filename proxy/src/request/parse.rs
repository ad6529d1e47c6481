//! Parses a request's JSON or YAML body, its Accept header and its Prefer headers.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use crate::error::{Problem, Result};
use crate::request::yaml;

/// The media types of JSON, with FHIR's.
pub const JSON: &[&str] = &["application/json", "application/fhir+json"];

/// The kind of a body, by its Content-Type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An object with the arguments, in JSON.
    Json,
    /// The same in YAML, as in Aidbox's documentation.
    Yaml,
    /// Resources, one per line, perhaps compressed.
    Ndjson,
}

/// # Errors
/// 415 for any other type.
pub fn kind(headers: &HeaderMap) -> Result<Option<Kind>> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(None) };
    let value = value.to_str().unwrap_or_default().to_ascii_lowercase();
    let media_type = value.split(';').next().unwrap_or_default().trim();
    match media_type {
        "application/json" | "application/fhir+json" => Ok(Some(Kind::Json)),
        "application/yaml" | "application/x-yaml" | "text/yaml" | "text/x-yaml" => Ok(Some(Kind::Yaml)),
        "application/ndjson"
        | "application/x-ndjson"
        | "application/fhir+ndjson"
        | "application/gzip"
        | "application/x-gzip" => Ok(Some(Kind::Ndjson)),
        _ => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("the Content-Type {media_type} is not supported; use application/json or text/yaml"),
        )),
    }
}

/// A JSON object. The text of its members is passed on unchanged.
#[derive(Debug, Default)]
pub struct Object(BTreeMap<String, Box<RawValue>>);

impl Object {
    /// # Errors
    /// Why a text is not a JSON object.
    fn parse(text: &[u8]) -> serde_json::Result<Object> {
        serde_json::from_slice(text).map(Object)
    }

    /// A member's value.
    ///
    /// # Errors
    /// 400 for one that is nested too deeply.
    pub fn get(&self, name: &str) -> Result<Option<Value>> {
        let value = self.0.get(name).map(|raw| serde_json::from_str(raw.get())).transpose();
        value.map_err(|error| Problem::bad_request(format!("{name}: {error}")))
    }

    /// Whether there is a member with this name.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Sets a member.
    pub fn insert(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), to_raw_value(&value.into()).expect("a JSON value"));
    }

    /// Takes a member that must be a string.
    ///
    /// # Errors
    /// 400 if it is missing or another value.
    pub fn take_text(&mut self, name: &str) -> Result<String> {
        match self.0.remove(name).map(|raw| serde_json::from_str(raw.get())) {
            Some(Ok(text)) => Ok(text),
            Some(Err(_)) => Err(Problem::bad_request(format!("{name} is not a string"))),
            None => Err(Problem::bad_request(format!("{name} is missing"))),
        }
    }

    /// Takes a member that is true or false; false if it is missing.
    ///
    /// # Errors
    /// 400 if it is another value.
    pub fn take_flag(&mut self, name: &str) -> Result<bool> {
        match self.0.remove(name).map(|raw| serde_json::from_str(raw.get())) {
            None => Ok(false),
            Some(Ok(flag)) => Ok(flag),
            Some(Err(_)) => Err(Problem::bad_request(format!("{name} is neither true nor false"))),
        }
    }

    /// The object as JSON text.
    pub fn text(&self) -> String {
        serde_json::to_string(&self.0).expect("a JSON object")
    }
}

/// Reads a body that is one JSON or YAML object.
///
/// # Errors
/// 400 if it is not such an object, 413 if it has more than `max_bytes`, 415 for another Content-Type.
pub async fn object(headers: &HeaderMap, body: Body, max_bytes: u64) -> Result<Object> {
    let kind = kind(headers)?;
    if coding(headers).is_some() {
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "only an NDJSON body may be compressed"));
    }
    let limit = usize::try_from(max_bytes).unwrap_or(usize::MAX);
    let bytes = Limited::new(body, limit).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {max_bytes} bytes"));
        }
        Problem::bad_request("the body is incomplete").because(error)
    })?;
    let bytes = bytes.to_bytes();
    let is_json = || bytes.trim_ascii_start().starts_with(b"{");
    match kind {
        Some(Kind::Json) => from_json(&bytes),
        None if is_json() => from_json(&bytes),
        None | Some(Kind::Yaml) => from_yaml(&bytes, limit),
        Some(Kind::Ndjson) => {
            Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "this takes a JSON or YAML body, not NDJSON"))
        }
    }
}

/// The Content-Encoding of a body in lower case, if it has one.
pub fn coding(headers: &HeaderMap) -> Option<String> {
    let coding = headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes)?;
    let coding = String::from_utf8_lossy(coding).trim().to_ascii_lowercase();
    (coding != "identity").then_some(coding)
}

fn from_json(bytes: &[u8]) -> Result<Object> {
    Object::parse(bytes).map_err(|error| Problem::bad_request(format!("the body is not a JSON object: {error}")))
}

fn from_yaml(bytes: &[u8], most_bytes: usize) -> Result<Object> {
    let wrong = |why: &dyn std::fmt::Display| Problem::bad_request(format!("the body is not a YAML object: {why}"));
    let text = std::str::from_utf8(bytes).map_err(|error| wrong(&error))?;
    let json = yaml::to_json(text, most_bytes).map_err(|error| wrong(&error))?;
    Object::parse(json.as_bytes()).map_err(|error| wrong(&error))
}

/// Checks that the caller accepts the response's type. `types` are all its names.
///
/// # Errors
/// 406.
pub fn accepts(headers: &HeaderMap, types: &[&str]) -> Result<()> {
    let mut ranges = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).peekable();
    if ranges.peek().is_none() {
        return Ok(());
    }
    let takes = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let refused = parts.any(|part| {
            part.strip_prefix("q=").and_then(|weight| weight.parse::<f32>().ok()).is_some_and(|weight| weight == 0.0)
        });
        let group = name.strip_suffix('*').filter(|group| group.ends_with('/'));
        let matches = |offered: &&str| {
            let offered = offered.to_ascii_lowercase();
            name == "*/*" || name == offered || group.is_some_and(|group| offered.starts_with(group))
        };
        !refused && types.iter().any(matches)
    };
    if ranges.flat_map(|value| value.split(',')).any(|range| takes(range.trim())) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::NOT_ACCEPTABLE,
        format!("the response would be {}, which the Accept header does not allow", types[0]),
    ))
}

/// The value of a preference (RFC 7240), empty if it has none: the first one counts. Parameters of a preference are read as
/// preferences, too, because some clients write a semicolon for the comma.
pub fn preference(headers: &HeaderMap, name: &str) -> Option<String> {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split([',', ';'])).find_map(|preference| {
        let (given, value) = preference.split_once('=').unwrap_or((preference, ""));
        given.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"').to_owned())
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    #[test]
    fn what_a_body_holds_is_handed_on_letter_by_letter() {
        // A key with the name that serde_json uses internally for numbers is an ordinary key.
        let body =
            r#"{"merge":{"$serde_json::private::Number":"1"},"n":1.10E+400,"$serde_json::private::RawValue":"[1"}"#;
        let object = Object::parse(body.as_bytes()).unwrap();
        let mut members: Vec<&str> = body[1..body.len() - 1].split(",\"").map(|m| m.trim_start_matches('"')).collect();
        members.sort_unstable();
        assert_eq!(object.text(), format!("{{\"{}}}", members.join(",\"")));
        let yaml = from_yaml(b"merge: {$serde_json::private::Number: '1', n: 1.10}", 100).unwrap();
        assert_eq!(yaml.text(), r#"{"merge":{"$serde_json::private::Number":"1","n":1.10}}"#);
    }

    #[test]
    fn an_accept_header_that_rules_the_answer_out_is_heeded() {
        let takes = |accept: &str| {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            accepts(&headers, &["application/ndjson", "application/fhir+ndjson"]).is_ok()
        };
        for good in ["*/*", "application/*", "application/NDJSON", "text/html, application/fhir+ndjson;q=0.5"] {
            assert!(takes(good), "{good}");
        }
        for bad in ["text/html", "application/json", "application/ndjson;q=0", "application/ndjsonx"] {
            assert!(!takes(bad), "{bad}");
        }
        assert!(accepts(&HeaderMap::new(), &["application/ndjson"]).is_ok());
    }

    #[test]
    fn a_preference_is_found_in_whichever_header_and_spelling() {
        let of = |values: &[&str], name: &str| {
            let headers = values.iter().map(|value| (HeaderName::from_static("prefer"), value.parse().unwrap()));
            preference(&headers.collect(), name)
        };
        for values in [
            &["handling=lenient"][..],
            &["respond-async,handling=lenient"],
            &["Handling = lenient , respond-async"],
            &["respond-async; wait=10", "handling=\"lenient\""],
            &["respond-async;handling=lenient"],
            &["return=minimal", "handling=lenient", "handling=strict"],
        ] {
            assert_eq!(of(values, "handling").as_deref(), Some("lenient"), "{values:?}");
        }
        assert_eq!(of(&["RESPOND-ASYNC, handling=strict"], "respond-async").as_deref(), Some(""));
        for values in [&[][..], &["respond-asynchronously"], &["x-handling=lenient"], &["lenient"]] {
            assert_eq!(of(values, "handling"), None, "{values:?}");
            assert_eq!(of(values, "respond-async"), None, "{values:?}");
        }
    }
}
