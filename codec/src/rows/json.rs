//! Writes JSON values that do not come from jsonb.

pub use crate::jsonb::text::write_string;

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A member's name with its colon, prepared for appending to each row.
pub fn member_name(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write_string(name.as_bytes(), &mut out);
    out.push(b':');
    out
}

/// Appends the text of a PostgreSQL number. `NaN` and the infinities become strings, because JSON has no such numbers.
pub fn write_number(text: &[u8], out: &mut Vec<u8>) {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if digits.first().is_some_and(u8::is_ascii_digit) {
        out.extend_from_slice(text);
    } else {
        write_string(text, out);
    }
}

/// Appends JSON text on one line: newlines between values become spaces. JSON strings contain no newlines.
pub fn write_json(text: &[u8], out: &mut Vec<u8>) {
    let mut from = 0;
    for end in memchr::memchr2_iter(b'\n', b'\r', text) {
        out.extend_from_slice(&text[from..end]);
        out.push(b' ');
        from = end + 1;
    }
    out.extend_from_slice(&text[from..]);
}

/// Appends bytes as a string of base64 (RFC 4648, section 4, with padding, without line ends).
pub fn write_base64(bytes: &[u8], out: &mut Vec<u8>) {
    let letter = |bits: u32| BASE64[bits as usize & 63];
    out.reserve(bytes.len() / 3 * 4 + 6);
    out.push(b'"');
    let (triples, rest) = bytes.as_chunks::<3>();
    for &[a, b, c] in triples {
        let bits = u32::from_be_bytes([0, a, b, c]);
        out.extend_from_slice(&[letter(bits >> 18), letter(bits >> 12), letter(bits >> 6), letter(bits)]);
    }
    match *rest {
        [a] => {
            let bits = u32::from(a) << 16;
            out.extend_from_slice(&[letter(bits >> 18), letter(bits >> 12), b'=', b'=']);
        }
        [a, b] => {
            let bits = u32::from_be_bytes([0, a, b, 0]);
            out.extend_from_slice(&[letter(bits >> 18), letter(bits >> 12), letter(bits >> 6), b'=']);
        }
        _ => {}
    }
    out.push(b'"');
}

/// The bytes of a text in base64 (RFC 4648, section 4), with or without padding; white space is left out. `None` if it is none.
pub fn read_base64(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| {
        Some(u32::from(match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        }))
    };
    let text: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let digits = text.iter().position(|byte| *byte == b'=').unwrap_or(text.len());
    let is_padded = digits < text.len();
    if text[digits..].iter().any(|byte| *byte != b'=')
        || is_padded && (!text.len().is_multiple_of(4) || text.len() - digits > 2)
    {
        return None;
    }
    let mut out = Vec::with_capacity(digits / 4 * 3 + 2);
    for group in text[..digits].chunks(4) {
        if group.len() == 1 {
            return None;
        }
        let mut bits = 0;
        for byte in group {
            bits = bits << 6 | digit(*byte)?;
        }
        bits <<= 6 * (4 - group.len());
        let bytes = bits.to_be_bytes();
        out.extend_from_slice(&bytes[1..group.len()]);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::super::tests::written;
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(written(|out| write_base64(bytes.as_bytes(), out)), format!("\"{text}\""));
        }
        assert_eq!(written(|out| write_base64(&[0xFB, 0xFF, 0xBF], out)), "\"+/+/\"");
        for (text, bytes) in
            [("", ""), ("Zg==", "f"), ("Zg", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9v\n YmFy", "foobar")]
        {
            assert_eq!(read_base64(text).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        assert_eq!(read_base64("+/+/").as_deref(), Some(&[0xFB, 0xFF, 0xBF][..]));
        for text in ["Z", "Zg=", "Zg===", "Z===", "Zg==Zg==", "Zm9-", "Zm9vé", "===="] {
            assert_eq!(read_base64(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_number_for_json_is_a_string() {
        for number in ["0", "-1", "1.10", "1e+20", "-2.5e-07", "123456789012345678901234567890.0001"] {
            assert_eq!(written(|out| write_number(number.as_bytes(), out)), number);
        }
        for word in ["NaN", "Infinity", "-Infinity"] {
            assert_eq!(written(|out| write_number(word.as_bytes(), out)), format!("\"{word}\""));
        }
    }

    #[test]
    fn json_with_line_ends_between_its_values_is_one_line() {
        let text = "{\"a\":\r\n [1,\n2], \"b\\n\": \"c\\nd\"}";
        let line = written(|out| write_json(text.as_bytes(), out));
        assert_eq!(line, "{\"a\":   [1, 2], \"b\\n\": \"c\\nd\"}");
        let (a, b): (serde_json::Value, serde_json::Value) =
            (serde_json::from_str(text).unwrap(), serde_json::from_str(&line).unwrap());
        assert_eq!(a, b);
    }

    #[test]
    fn names_are_escaped_once() {
        assert_eq!(member_name("a\"b\n"), b"\"a\\\"b\\n\":");
    }
}
