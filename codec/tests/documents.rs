//! Random documents, and random damage to them.

mod common;

use common::{encode, jsonb_text};
use fhir_bulk_codec::error::IdRule;
use fhir_bulk_codec::jsonb::text::Spacing;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;

/// A piece of a JSON string as it is written in a document.
fn piece() -> impl Strategy<Value = String> {
    const ESCAPES: [&str; 8] = ["\\\"", "\\\\", "\\/", "\\b", "\\f", "\\n", "\\r", "\\t"];
    prop_oneof![
        8 => "[ !#-\\[\\]-~]{1,12}",
        2 => any::<char>().prop_filter("a plain character", |c| *c >= ' ' && *c != '"' && *c != '\\').prop_map(String::from),
        1 => select(&ESCAPES).prop_map(str::to_owned),
        1 => (1u32..0x10000).prop_filter_map("a character", char::from_u32).prop_map(|c| format!("\\u{:04x}", c as u32)),
        1 => (0x10000u32..0x110000).prop_map(|code| {
            format!("\\u{:04X}\\u{:04x}", 0xD800 + ((code - 0x10000) >> 10), 0xDC00 + ((code - 0x10000) & 0x3FF))
        }),
    ]
}

fn string() -> impl Strategy<Value = String> {
    vec(piece(), 0..6).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

/// Names collide in length, in their first bytes, and altogether; some are longer than 255 bytes.
fn name() -> impl Strategy<Value = String> {
    let long = |length: usize, last: char| format!("\"{}{last}\"", "n".repeat(length - 1));
    const KNOWN: [&str; 8] =
        ["\"\"", "\"a\"", "\"b\"", "\"code\"", "\"c\\u006fde\"", "\"display\"", "\"valueCode\"", "\"valueCoda\""];
    prop_oneof![
        4 => select(&KNOWN).prop_map(str::to_owned),
        1 => (select(&[7usize, 8, 9, 254, 255, 256, 300]), select(&['x', 'y'])).prop_map(move |(n, c)| long(n, c)),
        1 => (select(&[255usize, 256, 300]), select(&['x', 'y'])).prop_map(|(n, c)| format!("\"{c}{}\"", "n".repeat(n - 1))),
        3 => string(),
    ]
}

fn number() -> impl Strategy<Value = String> {
    const EDGES: [&str; 12] =
        ["0", "-0", "-0.0", "0.00", "1.10", "10000", "0.0001", "9999.9999", "1e4", "1E-22", "0e-7", "100e-2"];
    prop_oneof![
        2 => "-?(0|[1-9][0-9]{0,8})(\\.[0-9]{1,8})?",
        1 => "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,90})?",
        1 => "-?(0|[1-9][0-9]{0,17})(\\.[0-9]{1,17})?[eE][+-]?[0-9]{1,3}",
        1 => select(&EDGES).prop_map(str::to_owned),
    ]
}

fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => string(),
        3 => number(),
        1 => select(&["true", "false", "null"]).prop_map(str::to_owned),
    ]
}

fn space() -> impl Strategy<Value = &'static str> {
    select(&["", "", "", "", " ", "\t", "\r", "  \t "])
}

fn array(elements: Vec<(&str, String)>) -> String {
    let elements: Vec<_> = elements.into_iter().map(|(space, element)| format!("{space}{element}{space}")).collect();
    format!("[{}]", elements.join(","))
}

fn object(members: Vec<(String, &str, String)>) -> String {
    let members: Vec<_> =
        members.into_iter().map(|(name, space, value)| format!("{space}{name}{space}:{space}{value}{space}")).collect();
    format!("{{{}}}", members.join(","))
}

/// Containers of more than 32 items hold offsets among the lengths.
fn wide() -> impl Strategy<Value = String> {
    let size = select(&[31usize, 32, 33, 64, 65, 130]);
    // Out of order, and in the second case with names that repeat.
    let named =
        |names: usize| move |(index, value): (usize, String)| (format!("\"k{}\"", index * 37 % names), "", value);
    prop_oneof![
        size.clone().prop_flat_map(|size| vec((space(), scalar()), size)).prop_map(array),
        (size.prop_flat_map(|size| vec(scalar(), size)), select(&[131usize, 26]))
            .prop_map(move |(values, names)| object(values.into_iter().enumerate().map(named(names)).collect())),
    ]
}

fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![12 => scalar(), 1 => wide(), 1 => select(&["{}", "[]"]).prop_map(str::to_owned)];
    leaf.prop_recursive(6, 60, 6, |inner| {
        prop_oneof![
            vec((space(), inner.clone()), 0..6).prop_map(array),
            vec((name(), space(), inner), 0..6).prop_map(object),
        ]
    })
}

fn document() -> impl Strategy<Value = String> {
    let identity = ["id", "meta", "resourceType"];
    let members = vec((name(), space(), value()), 0..8).prop_filter("no identity", move |members| {
        members.iter().all(|(name, ..)| !identity.contains(&serde_json::from_str::<String>(name).unwrap().as_str()))
    });
    (members, any::<prop::sample::Index>()).prop_map(|(mut members, place)| {
        members.insert(place.index(members.len() + 1), ("\"id\"".to_owned(), "", "\"x\"".to_owned()));
        object(members)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 400 }))]

    /// A loaded document would come back altered: a value, an order of keys, a number's digits, an escape.
    #[test]
    fn what_is_stored_is_what_an_independent_reader_reads(line in document()) {
        let mut expected: Value = serde_json::from_str(&line).unwrap();
        expected.as_object_mut().unwrap().remove("id");
        let stored = encode(IdRule::Fhir, &line).unwrap();
        for (spacing, spaced) in [(Spacing::Postgres, true), (Spacing::Compact, false)] {
            let mut text = String::new();
            jsonb_text(&expected, spaced, &mut text);
            prop_assert_eq!(stored.text(spacing), text);
        }
    }

    /// Two dumps of one resource would differ, or `jsonb = jsonb` would fail: bytes must not depend on the spelling of the
    /// text.
    #[test]
    fn stored_bytes_are_canonical(line in document()) {
        let stored = encode(IdRule::Fhir, &line).unwrap();
        let text = stored.text(Spacing::Postgres);
        let again = text.replacen('{', if text == "{}" { "{\"id\":\"x\"" } else { "{\"id\":\"x\"," }, 1);
        prop_assert_eq!(encode(IdRule::Fhir, again).unwrap().jsonb, stored.jsonb);
    }

    /// A bad line in a load would end the backend.
    #[test]
    fn arbitrary_bytes_never_panic(line in vec(any::<u8>(), 0..200)) {
        let _ = encode(IdRule::Aidbox, line);
    }

    /// The same, for bytes that are more like JSON.
    #[test]
    fn arbitrary_tokens_never_panic(tokens in vec(select(&[
        "{", "}", "[", "]", ",", ":", "\"", "\"id\"", "\"meta\"", "\"extension\"", "\"url\"", "\"ex:createdAt\"", "\"a\"",
        "\\", "\\u", "d800", "1", "-", ".", "e", "true", "null", " ", "\0", "é",
    ]), 0..40)) {
        let _ = encode(IdRule::Aidbox, tokens.concat());
        let _ = encode(IdRule::Aidbox, format!("{{\"id\":\"x\",\"meta\":{}", tokens.concat()));
    }

    /// Damaged JSON would be stored differently from what PostgreSQL reads, or end the backend.
    #[test]
    fn damaged_documents_are_refused_or_read_alike(
        line in document(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 1..4),
    ) {
        let mut line = line.into_bytes();
        for (place, byte, how) in damage {
            let at = place.index(line.len());
            match how {
                0 => line[at] = byte,
                1 => line.insert(at, byte),
                _ => drop(line.remove(at)),
            }
            if line.is_empty() {
                return Ok(());
            }
        }
        let stored = encode(IdRule::Fhir, &line);
        let read = serde_json::from_slice::<Value>(&line);
        let Ok(stored) = stored else { return Ok(()) };
        let mut expected = common::without_row_members(read.unwrap().as_object().unwrap().clone());
        expected.remove("id");
        expected.remove("resourceType");
        let mut text = String::new();
        jsonb_text(&Value::Object(expected), true, &mut text);
        prop_assert_eq!(stored.text(Spacing::Postgres), text);
    }
}
