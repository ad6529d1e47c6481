//! Numbers: numeric bytes ↔ text, their order, and as whole numbers, against decimal text.

use crate::reference;
use fhir_bulk_codec::jsonb::numeric::{compare, of_decimal, scaled, write_text};
use std::cmp::Ordering;

/// Checks two numbers, separated by a space: whether they are JSON's, their bytes, texts, and order.
pub fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let (first, second) = text.split_once(' ').unwrap_or((text, "0"));
    let (Some(first), Some(second)) = (number(first), number(second)) else { return };
    let order = by_definition(&first.0, &second.0);
    assert_eq!(compare(&first.1, &second.1), Some(order), "{} and {}", first.0, second.0);
    assert_eq!(compare(&second.1, &first.1), Some(order.reverse()));
    // NaN and the infinities, which jsonb never has.
    for head in [0xC000_u16, 0xD000, 0xF000].map(u16::to_le_bytes) {
        let mut text = Vec::new();
        write_text(&head, &mut text);
        assert_eq!((compare(&first.1, &head), scaled(&head), &*text), (None, None, &b"null"[..]));
    }
}

/// A number's text, and its numeric without length header.
fn number(json: &str) -> Option<(String, Vec<u8>)> {
    if json.contains(|c: char| c.is_whitespace())
        || !matches!(serde_json::from_str(json), Ok(serde_json::Value::Number(_)))
    {
        return None;
    }
    let text = reference::numeric_text(json);
    let (mantissa, exponent) = json.split_once(['e', 'E']).unwrap_or((json, "0"));
    let (negative, digits) = mantissa.strip_prefix('-').map_or((false, mantissa), |digits| (true, digits));
    let (integer, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let exponent = exponent.parse::<i64>().ok()?.checked_sub(fraction.len() as i64)?;
    let made = of_decimal(negative, format!("{integer}{fraction}").as_bytes(), exponent);
    let Some(text) = text else {
        assert_eq!(made, None, "{json} is beyond numeric");
        return None;
    };
    let made = made.unwrap_or_else(|| panic!("{json} is refused"));
    assert_eq!(*made, reference::numeric(&text)[4..], "{json}");
    let mut written = b"x".to_vec();
    write_text(&made, &mut written);
    assert_eq!(str::from_utf8(&written).ok(), Some(format!("x{text}").as_str()));
    // As a whole number, if it fits.
    let digits = text.replace('.', "");
    let scale = text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    if let Some((whole, found)) = scaled(&made) {
        assert_eq!((whole.to_string(), usize::from(found)), (plain(&digits), scale), "{json}");
    } else {
        assert!(digits.len() > 34, "{json} fits");
    }
    Some((text, made.into()))
}

/// Digits without zeros at the start.
fn plain(digits: &str) -> String {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    match digits.trim_start_matches('0') {
        "" => "0".into(),
        digits => format!("{sign}{digits}"),
    }
}

fn by_definition(a: &str, b: &str) -> Ordering {
    let parts = |text: &str| {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
        let (integer, fraction) = text.split_once('.').unwrap_or((text, ""));
        let (integer, fraction) =
            (integer.trim_start_matches('0').to_owned(), fraction.trim_end_matches('0').to_owned());
        let sign = if integer.is_empty() && fraction.is_empty() {
            0
        } else if negative {
            -1
        } else {
            1
        };
        (sign, integer.len(), integer, fraction)
    };
    let (a, b) = (parts(a), parts(b));
    match (a.0, b.0) {
        (-1, -1) => (b.1, &b.2, &b.3).cmp(&(a.1, &a.2, &a.3)),
        (1, 1) => (a.1, &a.2, &a.3).cmp(&(b.1, &b.2, &b.3)),
        (a, b) => a.cmp(&b),
    }
}
