//! jsonb by its definition (`convertToJsonb`, `numeric_in`), written for plainness: the second opinion on bytes and numbers.

use fhir_bulk_codec::jsonb::MAX_DEPTH;
use serde_json::{Map, Value};

/// The text of a JSON number as `numeric_out` prints it. `None` if numeric has no room for it.
pub fn numeric_text(json: &str) -> Option<String> {
    let (mantissa, exponent) = json.split_once(['e', 'E']).unwrap_or((json, "0"));
    let (negative, digits) = mantissa.strip_prefix('-').map_or((false, mantissa), |digits| (true, digits));
    let (integer, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let exponent: i64 = exponent.parse().ok().filter(|e: &i64| e.abs() < i64::from(i32::MAX / 2))?;
    let scale = usize::try_from(fraction.len() as i64 - exponent).unwrap_or(0);
    if scale > 0x3FFF {
        return None;
    }
    // The digits without zeros at the start, and the power of ten of the first one.
    let all = format!("{integer}{fraction}");
    let significant = all.trim_start_matches('0');
    let weight = significant.len() as i64 - fraction.len() as i64 + exponent;
    if significant.trim_end_matches('0').is_empty() {
        return Some(if scale == 0 { "0".into() } else { format!("0.{}", "0".repeat(scale)) });
    }
    if weight > 4 * 0x8000 {
        return None;
    }
    let before = usize::try_from(weight).unwrap_or(0);
    let mut digits = "0".repeat(usize::try_from(-weight).unwrap_or(0)) + significant;
    while digits.len() < before + scale {
        digits.push('0');
    }
    let (before, after) = digits.split_at(before);
    let sign = if negative { "-" } else { "" };
    let before = if before.is_empty() { "0" } else { before };
    Some(if scale == 0 { format!("{sign}{before}") } else { format!("{sign}{before}.{}", &after[..scale]) })
}

/// The numeric of a text of [`numeric_text`], with its length header.
pub fn numeric(text: &str) -> Vec<u8> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
    let (integer, fraction) = text.split_once('.').unwrap_or((text, ""));
    let scale = fraction.len();
    let integer = "0".repeat(integer.len().wrapping_neg() % 4) + integer;
    let fraction = fraction.to_owned() + &"0".repeat(scale.wrapping_neg() % 4);
    let mut weight = integer.len() as i32 / 4 - 1;
    let all = integer + &fraction;
    let mut groups: Vec<u16> = all
        .as_bytes()
        .chunks(4)
        .map(|four| four.iter().fold(0, |value, digit| value * 10 + u16::from(digit - b'0')))
        .collect();
    while groups.first() == Some(&0) {
        groups.remove(0);
        weight -= 1;
    }
    while groups.last() == Some(&0) {
        groups.pop();
    }
    if groups.is_empty() {
        weight = 0;
    }
    let negative = negative && !groups.is_empty();
    let mut out = vec![0; 4];
    if scale <= 63 && (-64..=63).contains(&weight) {
        let sign = if negative { 0x2000 } else { 0 };
        let header = 0x8000 | sign | (scale as u16) << 7 | (weight as u16 & 0x7F);
        out.extend_from_slice(&header.to_le_bytes());
    } else {
        let sign = if negative { 0x4000 } else { 0 };
        out.extend_from_slice(&(sign | scale as u16).to_le_bytes());
        out.extend_from_slice(&(weight as i16).to_le_bytes());
    }
    groups.iter().for_each(|group| out.extend_from_slice(&group.to_le_bytes()));
    let length = (out.len() as u32) << 2;
    out[..4].copy_from_slice(&length.to_le_bytes());
    out
}

/// Appends the text that `jsonb_out` prints, or the same without spaces. `None` for a number beyond numeric.
pub fn text(value: &Value, spaced: bool, out: &mut String) -> Option<()> {
    let (comma, colon) = if spaced { (", ", ": ") } else { (",", ":") };
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&numeric_text(number.as_str())?),
        Value::String(text) => string(text, out),
        Value::Array(elements) => {
            out.push('[');
            for (index, element) in elements.iter().enumerate() {
                out.push_str(if index > 0 { comma } else { "" });
                self::text(element, spaced, out)?;
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            for (index, (name, value)) in sorted(members).into_iter().enumerate() {
                out.push_str(if index > 0 { comma } else { "" });
                string(name, out);
                out.push_str(colon);
                self::text(value, spaced, out)?;
            }
            out.push('}');
        }
    }
    Some(())
}

/// `escape_json`.
fn string(text: &str, out: &mut String) {
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

fn sorted(members: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut members: Vec<_> = members.iter().collect();
    members.sort_by_key(|(name, _)| (name.len(), name.as_bytes()));
    members
}

/// A value's jsonb, without the length header of a datum. A scalar is an array of one, marked as such. `None` for a number
/// beyond numeric.
pub fn jsonb(value: &Value) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match value {
        Value::Array(_) | Value::Object(_) => container(value, &mut out)?,
        scalar => items(0x5000_0000 | 1, &[Item::Value(scalar)], &mut out)?,
    }
    Some(out)
}

enum Item<'v> {
    Name(&'v str),
    Value(&'v Value),
}

fn container(value: &Value, out: &mut Vec<u8>) -> Option<()> {
    match value {
        Value::Array(elements) => {
            let all: Vec<_> = elements.iter().map(Item::Value).collect();
            items(0x4000_0000 | elements.len() as u32, &all, out)
        }
        Value::Object(members) => {
            let members = sorted(members);
            let names = members.iter().map(|(name, _)| Item::Name(name));
            let all: Vec<_> = names.chain(members.iter().map(|(_, value)| Item::Value(value))).collect();
            items(0x2000_0000 | members.len() as u32, &all, out)
        }
        _ => unreachable!("a container"),
    }
}

fn items(header: u32, all: &[Item<'_>], out: &mut Vec<u8>) -> Option<()> {
    out.extend_from_slice(&header.to_le_bytes());
    let entries = out.len();
    out.resize(entries + 4 * all.len(), 0);
    let data = out.len();
    for (index, item) in all.iter().enumerate() {
        let start = out.len();
        let kind = match item {
            Item::Name(text) => bytes(text.as_bytes(), 0, out),
            Item::Value(Value::String(text)) => bytes(text.as_bytes(), 0, out),
            Item::Value(Value::Number(number)) => {
                out.resize(out.len().next_multiple_of(4), 0);
                bytes(&numeric(&numeric_text(number.as_str())?), 0x1000_0000, out)
            }
            Item::Value(Value::Bool(false)) => 0x2000_0000,
            Item::Value(Value::Bool(true)) => 0x3000_0000,
            Item::Value(Value::Null) => 0x4000_0000,
            Item::Value(inner) => {
                out.resize(out.len().next_multiple_of(4), 0);
                container(inner, out)?;
                0x5000_0000
            }
        };
        // Every 32nd entry has where its item ends, the others how long it is.
        let said = if index % 32 == 0 { 0x8000_0000 | (out.len() - data) as u32 } else { (out.len() - start) as u32 };
        out[entries + 4 * index..][..4].copy_from_slice(&(said | kind).to_le_bytes());
    }
    Some(())
}

fn bytes(bytes: &[u8], kind: u32, out: &mut Vec<u8>) -> u32 {
    out.extend_from_slice(bytes);
    kind
}

/// How deep the second opinion reads: `serde_json`'s own limit, less what a wrapper may add. Ours is [`MAX_DEPTH`].
pub const READ_DEPTH: usize = {
    assert!(MAX_DEPTH > 120);
    120
};

/// Parses JSON. `None` where the second opinion has none: it nests deeper than is read, or has a name that `serde_json` itself
/// uses.
pub fn parse(text: &[u8]) -> Option<serde_json::Result<Value>> {
    if has(text, b"$serde_json") {
        return None;
    }
    match serde_json::from_slice(text) {
        Err(error) if error.to_string().starts_with("recursion limit") => None,
        parsed => Some(parsed),
    }
}

/// Whether the bytes contain these.
pub fn has(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// The value with each number as the text of its numeric, for comparing. `None` for a number beyond numeric.
pub fn normalized(value: Value) -> Option<Value> {
    Some(match value {
        Value::Number(number) => Value::String(format!("number {}", numeric_text(number.as_str())?)),
        Value::Array(elements) => Value::Array(elements.into_iter().map(normalized).collect::<Option<_>>()?),
        Value::Object(members) => {
            let members = members.into_iter().map(|(name, value)| Some((name, normalized(value)?)));
            Value::Object(members.collect::<Option<_>>()?)
        }
        other => other,
    })
}

/// The value without members that are null, at any depth.
pub fn stripped(value: Value) -> Value {
    match value {
        Value::Array(elements) => Value::Array(elements.into_iter().map(stripped).collect()),
        Value::Object(members) => {
            let kept = members.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(name, value)| (name, stripped(value))).collect())
        }
        other => other,
    }
}
