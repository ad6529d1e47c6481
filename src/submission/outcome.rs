//! OperationOutcomes: why a line, or a whole manifest, is left out.

use fhir_bulk_pg::error::Error;
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::{Value, json};
use std::fmt;

const SOURCE: &str = "http://hl7.org/fhir/StructureDefinition/operationoutcome-sourceResource";
/// The longest id of a resource.
const MOST_ID: usize = 64;

/// Where a line is.
pub struct Place<'a> {
    /// `fhirBaseUrl`, without a slash at its end.
    pub base: &'a str,
    /// The file's name in messages.
    pub file: &'a str,
    /// Counted from 1.
    pub line: u64,
    /// Where the line begins in the decompressed stream.
    pub offset: u64,
}

/// The outcome of a line that is left out, as a line. `bytes` are the line's, perhaps not all of them.
pub fn of_line(place: &Place<'_>, error: &Error, bytes: &[u8]) -> String {
    let Place { base, file, line, offset } = place;
    let message = error.message();
    // Its place is said once.
    let why = message.strip_prefix(&format!("line {line} of {file}: ")).unwrap_or(message);
    let text = format!("line {line} (byte {offset}) of {file}: {why}");
    let head = Head::of(bytes);
    let source = head.reference().map(|reference| format!("{base}/{reference}"));
    line_of(code(error), &text, source)
}

/// The outcome of a manifest that is left out, as a line.
pub fn of_manifest(name: &str, reason: &str) -> String {
    line_of("incomplete", &format!("{name} is left out: {reason}"), None)
}

fn line_of(code: &str, text: &str, source: Option<String>) -> String {
    let issue = json!({"severity": "error", "code": code, "details": {"text": text}});
    let mut outcome = json!({"resourceType": "OperationOutcome"});
    if let Some(source) = source {
        outcome["extension"] = json!([{"url": SOURCE, "valueReference": {"reference": source}}]);
    }
    outcome["issue"] = json!([issue]);
    format!("{outcome}\n")
}

/// The code of HL7's issue-type value set for an error of a line.
fn code(error: &Error) -> &'static str {
    match error.sqlstate().get(..2) {
        Some("54") => "too-long",
        Some("0A") => "not-supported",
        _ if error.sqlstate() == "22P02" => "structure",
        _ => "invalid",
    }
}

/// The type and the id that a line says, as far as it can be read.
#[derive(Default)]
pub struct Head {
    pub resource_type: Option<String>,
    id: Option<String>,
}

impl Head {
    pub fn of(bytes: &[u8]) -> Head {
        let mut head = Head::default();
        // What comes before the error counts.
        let _ = serde_json::Deserializer::from_slice(bytes).deserialize_map(Reading(&mut head));
        head
    }

    fn reference(&self) -> Option<String> {
        let name = self.resource_type.as_deref().filter(|name| {
            name.starts_with(|first: char| first.is_ascii_alphabetic())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
        });
        let id = self.id.as_deref().filter(|id| is_id(id));
        Some(format!("{}/{}", name?, id?))
    }
}

/// Whether a text is an id of FHIR.
pub fn is_id(text: &str) -> bool {
    (1..=MOST_ID).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

struct Reading<'a>(&'a mut Head);

impl<'de> Visitor<'de> for Reading<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a resource")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            let member = match key.as_str() {
                "resourceType" => &mut self.0.resource_type,
                "id" => &mut self.0.id,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *member = map.next_value::<Value>()?.as_str().map(str::to_owned);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(line: &str) -> Option<String> {
        Head::of(line.as_bytes()).reference()
    }

    #[test]
    fn a_line_says_which_resource_it_is_up_to_its_error() {
        assert_eq!(reference(r#"{"resourceType":"Patient","id":"p-1","name":[}"#).as_deref(), Some("Patient/p-1"));
        assert_eq!(
            reference(r#"{"id":"p-1","a":{"id":"x"},"resourceType":"Patient"}}"#).as_deref(),
            Some("Patient/p-1")
        );
        for line in [
            "",
            "[1]",
            r#"{"name":[},"resourceType":"Patient","id":"p-1"}"#,
            r#"{"resourceType":"Patient"}"#,
            r#"{"resourceType":"Patient","id":7}"#,
            r#"{"resourceType":"Patient","id":"a b"}"#,
            r#"{"resourceType":"../x","id":"a"}"#,
        ] {
            assert_eq!(reference(line), None, "{line}");
        }
    }

    #[test]
    fn an_outcome_says_its_place_once() {
        let place = Place { base: "https://h/fhir", file: "https://h/p.ndjson", line: 17, offset: 20413 };
        let error = Error::invalid_argument("line 17 of https://h/p.ndjson: the resource has no id");
        let line = of_line(&place, &error, br#"{"resourceType":"Patient","id":"p-1"}"#);
        let outcome: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            outcome,
            json!({"resourceType": "OperationOutcome",
                "extension": [{"url": SOURCE, "valueReference": {"reference": "https://h/fhir/Patient/p-1"}}],
                "issue": [{"severity": "error", "code": "invalid",
                    "details": {"text": "line 17 (byte 20413) of https://h/p.ndjson: the resource has no id"}}]})
        );
        assert!(line.ends_with("}\n") && line.lines().count() == 1);
    }
}
