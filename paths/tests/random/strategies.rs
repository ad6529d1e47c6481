//! What random expressions, queries and documents are made of.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Names of elements, types, functions, and of nothing.
pub fn name() -> impl Strategy<Value = String> {
    const NAMES: [&str; 40] = [
        "Patient",
        "Observation",
        "Resource",
        "DomainResource",
        "name",
        "value",
        "code",
        "coding",
        "subject",
        "component",
        "entry",
        "resource",
        "extension",
        "contained",
        "meta",
        "lastUpdated",
        "id",
        "reference",
        "effective",
        "deceased",
        "item",
        "active",
        "system",
        "is",
        "as",
        "div",
        "mod",
        "in",
        "contains",
        "and",
        "or",
        "xor",
        "implies",
        "true",
        "false",
        "FHIR",
        "System",
        "medication",
        "text",
        "event",
    ];
    prop_oneof![9 => select(&NAMES).prop_map(str::to_owned), 1 => "[a-zA-Z_][a-z0-9_]{0,5}|`[^`\\\\]{0,4}`"]
}

/// Expressions that are mostly grammatical.
pub fn expression() -> impl Strategy<Value = String> {
    const CONSTANTS: [&str; 14] = [
        "'x'",
        "1",
        "1.50",
        "0",
        "{}",
        "@2020-01-01T00:00:00Z",
        "@T12:00",
        "%resource",
        "%context",
        "%'a-b'",
        "$this",
        "99999999999999999999999999999999999999999",
        "'\\u00e9\\n'",
        "1 'mg'",
    ];
    const OPERATORS: [&str; 14] = ["|", "=", "!=", "and", "or", "+", "-", "<", ">=", "~", "in", "&", "*", "implies"];
    const CALLS: [&str; 14] = [
        "where",
        "exists",
        "first",
        "extension",
        "hasExtension",
        "ofType",
        "as",
        "not",
        "resolve",
        "empty",
        "is",
        "all",
        "select",
        "last",
    ];
    let leaf = prop_oneof![3 => name(), 1 => select(&CONSTANTS).prop_map(str::to_owned)];
    leaf.prop_recursive(6, 40, 3, |inner| {
        prop_oneof![
            4 => (inner.clone(), name()).prop_map(|(of, name)| format!("{of}.{name}")),
            3 => (inner.clone(), select(&CALLS), vec(inner.clone(), 0..3))
                .prop_map(|(of, call, arguments)| format!("{of}.{call}({})", arguments.join(", "))),
            2 => (inner.clone(), select(&OPERATORS), inner.clone()).prop_map(|(a, sign, b)| format!("{a} {sign} {b}")),
            1 => (inner.clone(), name()).prop_map(|(of, name)| format!("({of} as {name})")),
            1 => (inner.clone(), name()).prop_map(|(of, name)| format!("({of} is {name})")),
            1 => (inner.clone(), inner.clone()).prop_map(|(of, index)| format!("{of}[{index}]")),
            1 => inner.prop_map(|of| format!("-({of})")),
        ]
    })
}

/// The name of a parameter, a modifier, and what might be a value.
pub fn clause() -> impl Strategy<Value = String> {
    const NAMES: [&str; 22] = [
        "code",
        "date",
        "subject",
        "patient",
        "value-quantity",
        "code-value-quantity",
        "combo-code-value-quantity",
        "_id",
        "_lastUpdated",
        "_tag",
        "_profile",
        "_source",
        "status",
        "identifier",
        "value-string",
        "component-value-concept",
        "foo",
        "_has:a",
        "subject.name",
        "category",
        "issued",
        "",
    ];
    const MODIFIERS: [&str; 12] =
        ["", "", "", "", ":not", ":missing", ":Patient", ":identifier", ":exact", ":contains", ":below", ":x"];
    const PARTS: [&str; 34] = [
        "2020",
        "-01",
        "T10:00",
        "Z",
        "gt",
        "ne",
        "ap",
        "1",
        "e5",
        ".5",
        "true",
        "|",
        "|",
        ",",
        "$",
        "\\",
        "\\,",
        "%",
        "%20",
        "%C3%A9",
        "%ff",
        "%00",
        "Patient/",
        "https://ours.example/fhir/",
        "urn:",
        "http://x|1",
        "x",
        "Ä",
        "u\u{308}",
        "/",
        "_history/",
        "+01:00",
        "-",
        "9999999999999999999999999999999999999",
    ];
    let value = prop_oneof![9 => vec(select(&PARTS), 0..6).prop_map(|parts| parts.concat()), 1 => any::<String>()];
    (select(&NAMES), select(&MODIFIERS), value).prop_map(|(name, modifier, value)| format!("{name}{modifier}={value}"))
}

/// JSON, with names that mean something in FHIR and in Aidbox's form.
pub fn json() -> impl Strategy<Value = String> {
    const NAMES: [&str; 40] = [
        "status",
        "code",
        "coding",
        "system",
        "value",
        "Quantity",
        "string",
        "dateTime",
        "Period",
        "Timing",
        "start",
        "end",
        "effective",
        "subject",
        "id",
        "resourceType",
        "uri",
        "localRef",
        "reference",
        "type",
        "contained",
        "component",
        "category",
        "concept",
        "identifier",
        "SampledData",
        "origin",
        "lowerLimit",
        "low",
        "high",
        "Range",
        "repeat",
        "bounds",
        "event",
        "issued",
        "tag",
        "extension",
        "url",
        "text",
        "unit",
    ];
    const SCALARS: [&str; 16] = [
        "null",
        "true",
        "1",
        "-1.50",
        "1e20",
        "\"x\"",
        "\"2020\"",
        "\"2020-05-10T10:00:00Z\"",
        "\"Patient/1\"",
        "\"Patient\"",
        "\"\"",
        "\"http://x|1\"",
        "\"Ä\"",
        "\"urn:x\"",
        "\"x\\u0001\"",
        "0",
    ];
    select(&SCALARS).prop_map(str::to_owned).prop_recursive(8, 60, 6, |inner| {
        prop_oneof![
            1 => vec(inner.clone(), 0..5).prop_map(|elements| format!("[{}]", elements.join(","))),
            3 => vec((select(&NAMES), inner), 0..6).prop_map(|members| {
                let members: Vec<_> = members.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}
