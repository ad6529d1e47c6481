//! An independent reading of JSON and an independent writing of jsonb text, for tests to compare with.
#![allow(dead_code)] // Each test file uses a part of it.

use fhir_bulk_codec::LineError;
use fhir_bulk_codec::error::IdRule;
use fhir_bulk_codec::fhir::Version;
use fhir_bulk_codec::jsonb::text::{Spacing, TextWriter};
use fhir_bulk_codec::resource::{Encoder, Envelope, Form, Writer};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

pub const CREATED_AT_URL: &str = "ex:createdAt";

/// What a line became.
#[derive(Debug, PartialEq, Eq)]
pub struct Stored {
    pub id: String,
    pub resource_type: Option<String>,
    pub created_at: Option<String>,
    /// The jsonb after its length header.
    pub jsonb: Vec<u8>,
}

impl Stored {
    pub fn text(&self, spacing: Spacing) -> String {
        let mut out = Vec::new();
        TextWriter::new(spacing).write(&self.jsonb, &mut out);
        String::from_utf8(out).expect("jsonb text is UTF-8")
    }
}

pub fn encode(id_rule: IdRule, line: impl AsRef<[u8]>) -> Result<Stored, LineError> {
    encode_with(&mut Encoder::new(id_rule, CREATED_AT_URL), line.as_ref())
}

pub fn encode_with(encoder: &mut Encoder, line: &[u8]) -> Result<Stored, LineError> {
    let encoded = encoder.encode(line)?;
    let mut jsonb = Vec::new();
    encoded.write(&mut jsonb)?;
    Ok(Stored {
        id: encoded.id().to_owned(),
        resource_type: encoded.resource_type().map(str::to_owned),
        created_at: encoded.created_at().map(str::to_owned),
        jsonb,
    })
}

/// What is stored of a line in Aidbox form, as PostgreSQL would print it.
pub fn stored_text(line: &str) -> String {
    encode(IdRule::Aidbox, line).expect(line).text(Spacing::Postgres)
}

pub fn write(form: Form, row: &Envelope<'_>, jsonb: &[u8]) -> String {
    let mut out = Vec::new();
    Writer::new(form, CREATED_AT_URL, false).write(row, jsonb, &mut out).expect("an object");
    String::from_utf8(out).expect("lines are UTF-8")
}

/// An encoder of lines in FHIR form.
pub fn from_fhir(version: Version) -> Encoder {
    Encoder::new(IdRule::Aidbox, CREATED_AT_URL).from_fhir(version, true, None)
}

/// A stored resource in FHIR form, without what only the row's columns say.
pub fn to_fhir(version: Version, stored: &Stored) -> String {
    let resource_type = stored.resource_type.as_deref().unwrap_or("Basic");
    write(Form::Fhir(version), &Envelope { id: &stored.id, resource_type, ..Envelope::default() }, &stored.jsonb)
}

/// Data beside the checkout: in `$FHIR_BULK_SHARED_DATA`, or in `../shared/data`. Says so where it is not.
pub fn shared_data(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("FHIR_BULK_SHARED_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"), PathBuf::from);
    let path = root.join(folder);
    if !path.is_dir() {
        println!("skipped: no ../shared/data/{folder}");
        return None;
    }
    Some(path)
}

/// A JSON number as PostgreSQL's `numeric` prints it: no exponent, the digits after the point kept.
pub fn numeric_text(json: &str) -> String {
    let (mantissa, exponent) = json.split_once(['e', 'E']).unwrap_or((json, "0"));
    let exponent: i64 = exponent.parse().expect("an exponent");
    let (negative, digits) = mantissa.strip_prefix('-').map_or((false, mantissa), |digits| (true, digits));
    let (integer, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let scale = usize::try_from(fraction.len() as i64 - exponent).unwrap_or(0);
    let zeros = usize::try_from(exponent - fraction.len() as i64).unwrap_or(0);
    let all = format!("{integer}{fraction}{}", "0".repeat(zeros));
    let all = format!("{}{all}", "0".repeat((scale + 1).saturating_sub(all.len())));
    let (before, after) = all.split_at(all.len() - scale);
    let before = before.trim_start_matches('0');
    let sign = if negative && all.bytes().any(|b| b != b'0') { "-" } else { "" };
    let point = if after.is_empty() { "" } else { "." };
    format!("{sign}{}{point}{after}", if before.is_empty() { "0" } else { before })
}

/// The value with every number as its numeric text.
pub fn normalized(value: Value) -> Value {
    match value {
        Value::Number(number) => Value::String(format!("number {}", numeric_text(&number.to_string()))),
        Value::Array(elements) => Value::Array(elements.into_iter().map(normalized).collect()),
        Value::Object(members) => Value::Object(members.into_iter().map(|(k, v)| (k, normalized(v))).collect()),
        other => other,
    }
}

/// `jsonb_out` by its definition, or the same without spaces.
pub fn jsonb_text(value: &Value, spaced: bool, out: &mut String) {
    let (comma, colon) = if spaced { (", ", ": ") } else { (",", ":") };
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&numeric_text(&number.to_string())),
        Value::String(text) => json_string(text, out),
        Value::Array(elements) => {
            out.push('[');
            for (index, element) in elements.iter().enumerate() {
                out.push_str(if index > 0 { comma } else { "" });
                jsonb_text(element, spaced, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| (name.len(), name.as_bytes()));
            out.push('{');
            for (index, (name, value)) in members.into_iter().enumerate() {
                out.push_str(if index > 0 { comma } else { "" });
                json_string(name, out);
                out.push_str(colon);
                jsonb_text(value, spaced, out);
            }
            out.push('}');
        }
    }
}

/// PostgreSQL's `escape_json`.
fn json_string(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '\u{8}' => out.push_str("\\b"),
            '\u{C}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            other if other < ' ' => out.push_str(&format!("\\u{:04x}", other as u32)),
            other => out.push(other),
        }
    }
    out.push('"');
}

/// The equality that a round trip keeps: without what the row says, and without a `meta` that is empty then.
pub fn without_row_members(mut resource: Map<String, Value>) -> Map<String, Value> {
    if let Some(Value::Object(meta)) = resource.get_mut("meta") {
        for name in ["lastUpdated", "versionId", "createdAt"] {
            meta.remove(name);
        }
        if let Some(Value::Array(extensions)) = meta.get_mut("extension") {
            let before = extensions.len();
            extensions.retain(|extension| extension.get("url") != Some(&Value::from(CREATED_AT_URL)));
            if extensions.is_empty() && before > 0 {
                meta.remove("extension");
            }
        }
        if meta.is_empty() {
            resource.remove("meta");
        }
    }
    resource
}
