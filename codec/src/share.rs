//! Shares of a source: each has the lines whose ids have certain hashes. Several readers of a source, with a share each that no
//! other has, store each of its lines once.
//!
//! Most lines of other shares are passed over without being parsed: their id is found by looking at the line's top level. What
//! is found so is what a parser finds; where that is not certain, the line is parsed, and its id decides.

use memchr::memmem::{self, Finder};

/// The lines with certain hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Ranges of hashes, each with both ends.
    ranges: Vec<(i32, i32)>,
}

impl Share {
    /// The lines whose hashes are in one of these ranges, both ends included.
    pub fn of(ranges: Vec<(i32, i32)>) -> Share {
        Share { ranges }
    }

    /// Whether it has no lines.
    pub fn is_empty(&self) -> bool {
        self.ranges.iter().all(|(first, last)| first > last)
    }

    /// Whether it has the resource with an id.
    pub fn has(&self, id: &[u8]) -> bool {
        self.has_hash(hash(id))
    }

    /// Whether it has the resources whose ids have a hash.
    pub fn has_hash(&self, hash: i32) -> bool {
        self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&hash))
    }

    /// Whether it has a line. `None` if only a parser can tell.
    pub fn has_line(&self, line: &[u8]) -> Option<bool> {
        id_of(line).map(|id| self.has(id))
    }
}

/// The hash of a text, as PostgreSQL's `hashtext` has it for collations in which different texts are never equal: Bob Jenkins's
/// lookup3 in its little-endian form.
pub fn hash(bytes: &[u8]) -> i32 {
    let start = 0x9e37_79b9_u32.wrapping_add(bytes.len() as u32).wrapping_add(3_923_095);
    let [mut a, mut b, mut c] = [start; 3];
    let mut chunks = bytes.chunks_exact(12);
    for chunk in &mut chunks {
        let word = |at: usize| u32::from_le_bytes([chunk[at], chunk[at + 1], chunk[at + 2], chunk[at + 3]]);
        a = a.wrapping_add(word(0));
        b = b.wrapping_add(word(4));
        c = c.wrapping_add(word(8));
        // Mixes the three reversibly.
        a = a.wrapping_sub(c) ^ c.rotate_left(4);
        c = c.wrapping_add(b);
        b = b.wrapping_sub(a) ^ a.rotate_left(6);
        a = a.wrapping_add(c);
        c = c.wrapping_sub(b) ^ b.rotate_left(8);
        b = b.wrapping_add(a);
        a = a.wrapping_sub(c) ^ c.rotate_left(16);
        c = c.wrapping_add(b);
        b = b.wrapping_sub(a) ^ a.rotate_left(19);
        a = a.wrapping_add(c);
        c = c.wrapping_sub(b) ^ b.rotate_left(4);
        b = b.wrapping_add(a);
    }
    for (at, byte) in chunks.remainder().iter().enumerate() {
        let value = u32::from(*byte);
        match at {
            0..4 => a = a.wrapping_add(value << (8 * at)),
            4..8 => b = b.wrapping_add(value << (8 * (at - 4))),
            // The lowest byte of the third is the length's.
            _ => c = c.wrapping_add(value << (8 * (at - 7))),
        }
    }
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    c = (c ^ b).wrapping_sub(b.rotate_left(24));
    c.cast_signed()
}

/// The id of a line: the value of its last member `id`, if the line is JSON, which is not checked. `None` where that is not
/// certain: no such member, a value that is no plain string, a name that may be written with an escape.
fn id_of(line: &[u8]) -> Option<&[u8]> {
    // A name with an escape may be `id`, too. Other escapes stand for no letter.
    if memmem::find(line, br"\u").is_some() {
        return None;
    }
    if let Some((id, rest)) = leading_id(line) {
        // As bytes the name of another member `id` looks just so. Contained resources have one.
        let is_only = NAME.with(|name| name.find_iter(rest).all(|at| is_leading(&rest[..at])));
        if is_only {
            return Some(id);
        }
    }
    top_level_id(line)
}

thread_local! { static NAME: Finder<'static> = Finder::new(br#""id""#) }

/// The id of a line that begins with it, or with `resourceType` and then it, and what comes after it.
fn leading_id(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut rest = token(line, b'{')?;
    for _ in 0..2 {
        let (name, after) = string(rest)?;
        let (value, after) = string(token(after, b':')?)?;
        match name {
            b"id" => return Some((value, after)),
            b"resourceType" => rest = token(after, b',')?,
            _ => return None,
        }
    }
    None
}

/// Whether what follows is surely a member of an object inside the line's: its first one, or the second one after
/// `resourceType`, without white space. In JSON, `{"` is nothing but the beginning of an object: in a string, the quote
/// would be its end, which no name follows.
fn is_leading(before: &[u8]) -> bool {
    let after_type = || {
        let value = before.strip_suffix(b"\",")?;
        let letters = value.iter().rev().take_while(|byte| byte.is_ascii_alphanumeric()).count();
        value[..value.len() - letters].strip_suffix(br#"{"resourceType":""#)
    };
    before.ends_with(b"{") || after_type().is_some()
}

/// What comes after a character, with white space before it.
fn token(bytes: &[u8], wanted: u8) -> Option<&[u8]> {
    bytes.trim_ascii_start().strip_prefix(&[wanted])
}

/// A string without escapes, and what comes after it.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let inner = token(bytes, b'"')?;
    let end = memchr::memchr2(b'"', b'\\', inner)?;
    (inner[end] == b'"').then(|| (&inner[..end], &inner[end + 1..]))
}

/// The value of the last member `id` of an object, whatever there is in the others.
fn top_level_id(line: &[u8]) -> Option<&[u8]> {
    let mut rest = token(line, b'{')?;
    let mut found = None;
    loop {
        let (name, after) = any_string(rest)?;
        let value = token(after, b':')?.trim_ascii_start();
        let after = skip_value(value)?;
        if name == b"id" {
            found = Some(string(value)?.0);
        }
        let Some(next) = token(after, b',') else {
            return token(after, b'}').and(found);
        };
        rest = next;
    }
}

/// A string as it is written, without its quotes, and what comes after it.
fn any_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let inner = token(bytes, b'"')?;
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', inner.get(at..)?)?;
        if inner[at] == b'"' {
            return Some((&inner[..at], &inner[at + 1..]));
        }
        at += 2;
    }
}

/// What comes after a value.
fn skip_value(bytes: &[u8]) -> Option<&[u8]> {
    match bytes.first()? {
        b'"' => any_string(bytes).map(|(_, after)| after),
        b'{' | b'[' => {
            let (mut depth, mut rest) = (0_usize, bytes);
            loop {
                let at = rest.iter().position(|byte| matches!(byte, b'"' | b'{' | b'[' | b'}' | b']'))?;
                rest = &rest[at..];
                match rest[0] {
                    b'"' => {
                        rest = any_string(rest)?.1;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    _ => depth -= 1,
                }
                rest = &rest[1..];
                if depth == 0 {
                    return Some(rest);
                }
            }
        }
        _ => {
            let end = bytes.iter().position(|byte| matches!(byte, b',' | b'}' | b']'))?;
            Some(&bytes[end..])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::IdRule;
    use crate::resource::Encoder;
    use proptest::prelude::*;

    #[test]
    fn hashes_are_those_of_postgresql() {
        // SELECT hashtext(…)
        let long = "x".repeat(64);
        for (text, expected) in [
            ("", -1_477_818_771),
            ("a", 1_075_015_857),
            ("p-1", -33_379_143),
            ("abcdefghijk", -1_483_803_693),
            ("abcdefghijkl", -1_586_087_212),
            ("abcdefghijklm", 405_849_808),
            ("724aaac1-f431-496a-841e-7ff4d4e2a819", 721_330_783),
            ("é-ü", 1_066_642_087),
            (&long, 1_796_770_626),
        ] {
            assert_eq!(hash(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn ids_are_found_where_they_are_certain() {
        let id = |line: &'static str| id_of(line.as_bytes()).map(|id| str::from_utf8(id).unwrap());
        for line in [
            r#"{"id":"a"}"#,
            r#" { "resourceType" : "Patient" , "id" : "a" , "x":[1,{"y":"}"}]}"#,
            r#"{"resourceType":"Patient","id":"a","contained":[{"id":"b"}]}"#,
            r#"{"resourceType":"Patient","id":"b","id":"a"}"#,
            r#"{"resourceType":"Patient","id":"a","contained":[{"resourceType":"Group","id":"b"},{"x":1,"id":"c"}]}"#,
            r#"{"resourceType":"Patient","id":"b","contained":[{"resourceType":"Group","id":"c"}],"id":"a"}"#,
            r#"{"resourceType":"Patient","id":"b","resourceType":"Group","id":"a"}"#,
            r#"{"resourceType":"Patient","id":"b","x":{},"id":"a"}"#,
            r#"{"resourceType":"Patient","id":"b","x":"{","id":"a"}"#,
            r#"{"resourceType":"Patient","id":"b","x":"{\"resourceType\":\"Group\",","id":"a"}"#,
            r#"{"x":{"id":"b"},"y":"\"id\":\"c\"","n":-1.5e3,"t":true,"id":"a"}"#,
            r#"{"resourceType":"Patient","id":"a","text":"\\","z":"id"}"#,
        ] {
            assert_eq!(id(line), Some("a"), "{line}");
        }
        for line in [
            r#"{"resourceType":"Patient","id":"b","\u0069d":"a"}"#,
            r#"{"resourceType":"Patient","id":"a\n"}"#,
            r#"{"resourceType":"Patient","id":1}"#,
            r#"{"resourceType":"Patient","x":{"id":"a"}}"#,
            r#"{"id":"a","id":null}"#,
            r#"{"resourceType":"Patient""#,
            r#"{"x":]}"#,
            "[1]",
            "",
        ] {
            assert_eq!(id(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn an_id_that_is_found_is_the_encoders(
            members in proptest::collection::vec((
                prop_oneof![Just("id".to_owned()), Just("resourceType".to_owned()), "[a-c\"\\\\]{0,3}"],
                prop_oneof![
                    "[a-c]{1,3}".prop_map(|text| serde_json::json!(text)),
                    Just(serde_json::json!({"id": "x", "y": ["id", {"id": "\"}"}]})),
                    Just(serde_json::json!([{"id": null}, -1.5, "\\"])),
                    any::<i8>().prop_map(|number| serde_json::json!(number)),
                ],
            ), 0..6),
            space in prop_oneof![Just(""), Just(" ")],
        ) {
            let members: Vec<_> = members
                .iter()
                .map(|(name, value)| format!("{space}{}{space}:{space}{value}{space}", serde_json::json!(name)))
                .collect();
            let line = format!("{{{}}}", members.join(","));
            if let Some(found) = id_of(line.as_bytes())
                && let Ok(encoded) = Encoder::new(IdRule::Aidbox, "").encode(line.as_bytes())
            {
                prop_assert_eq!(found, encoded.id().as_bytes(), "{}", line);
            }
        }
    }
}
