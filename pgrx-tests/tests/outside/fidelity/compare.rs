//! When two resources are equal: as JSON, numbers by their numeric text, without what the server adds.

use serde_json::Value;

/// Takes away what a load does not keep and a dump adds: the version's number and times, and a `meta` that is empty
/// without them.
pub fn without_version(resource: &mut Value) {
    let Some(resource) = resource.as_object_mut() else { return };
    let Some(meta) = resource.get_mut("meta").and_then(Value::as_object_mut) else { return };
    for key in ["lastUpdated", "versionId", "createdAt"] {
        meta.remove(key);
    }
    if let Some(extensions) = meta.get_mut("extension").and_then(Value::as_array_mut) {
        let before = extensions.len();
        extensions.retain(|extension| extension["url"] != "ex:createdAt");
        if extensions.is_empty() && before > 0 {
            meta.remove("extension");
        }
    }
    if meta.is_empty() {
        resource.remove("meta");
    }
}

/// Equality with numbers compared as `numeric` prints them: `1E-22` equals its expansion, `1.10` not `1.1`.
pub fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((k, a), (l, b))| k == l && equal(a, b))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.to_string(), b.to_string());
            a == b || numeric_text(&a) == numeric_text(&b)
        }
        (a, b) => a == b,
    }
}

/// What PostgreSQL's `numeric` prints for a JSON number.
pub fn numeric_text(number: &str) -> String {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let exponent: i64 = exponent.parse().unwrap();
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = format!("{whole}{fraction}");
    let mut scale = fraction.len() as i64 - exponent;
    if scale < 0 {
        digits.push_str(&"0".repeat(scale.unsigned_abs() as usize));
        scale = 0;
    }
    let scale = scale as usize;
    if digits.len() <= scale {
        digits.insert_str(0, &"0".repeat(scale + 1 - digits.len()));
    }
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let whole = whole.trim_start_matches('0');
    let text = format!("{}{}{fraction}", if whole.is_empty() { "0" } else { whole }, if scale > 0 { "." } else { "" });
    if text.bytes().any(|b| (b'1'..=b'9').contains(&b)) { format!("{sign}{text}") } else { text }
}

#[test]
fn numeric_text_is_postgresqls() {
    let numbers =
        ["0", "-0", "-0.0", "1.10", "1E-22", "1e2", "1.5e1", "1.50e1", "12.5e-3", "0.1e1", "0e5", "-1e+3", "00.5"];
    let mut client = fhir_bulk_tests::Database::new().connect();
    for number in numbers {
        assert_eq!(
            numeric_text(number),
            crate::support::value(&mut client, &format!("SELECT '{number}'::numeric")),
            "{number}"
        );
    }
}

#[test]
fn different_resources_are_not_equal() {
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    for (a, b) in [
        (r#"{"a":1.10}"#, r#"{"a":1.1}"#),
        (r#"{"a":[1,2]}"#, r#"{"a":[2,1]}"#),
        (r#"{"a":null}"#, "{}"),
        (r#"{"a":"1"}"#, r#"{"a":1}"#),
        (r#"{"a":{}}"#, r#"{"a":[]}"#),
        (r#"{"a":12345678901234567890.1}"#, r#"{"a":12345678901234567890.2}"#),
    ] {
        assert!(!equal(&parse(a), &parse(b)), "{a} {b}");
        assert!(equal(&parse(a), &parse(a)));
    }
    assert!(equal(&parse("1e-3"), &parse("0.001")));
}
