//! Writes CSV like PostgreSQL's `COPY … (FORMAT csv)` (`CopyAttributeOutCSV` in `src/backend/commands/copyto.c`), also with
//! tabs.

use crate::jsonb::out::BLOCK;
use crate::jsonb::walk::{Slice, Value};
use crate::jsonb::{kind, numeric};
use wide::u8x16;

/// The delimiter and the text for NULL.
pub struct Csv {
    delimiter: u8,
    /// As often as a block has bytes.
    delimiters: u8x16,
    /// Whether numbers and booleans never need quotes.
    plain_scalars: bool,
    null: Vec<u8>,
}

impl Csv {
    /// `delimiter` and `null` must meet the same conditions as COPY's options with these names.
    ///
    /// # Errors
    /// The name of the option and what is wrong with it.
    pub fn new(delimiter: &str, null: &str) -> Result<Csv, String> {
        let &[delimiter] = delimiter.as_bytes() else {
            return Err("delimiter is not a single one-byte character".into());
        };
        if b"\r\n\"".contains(&delimiter) {
            return Err("delimiter is a quote or ends a line".into());
        }
        if null.bytes().any(|byte| b"\r\n\"".contains(&byte) || byte == delimiter) {
            return Err("null has a quote, the delimiter or a line's end in it".into());
        }
        let plain_scalars = null.is_empty() && !b"-.0123456789aeflrstu".contains(&delimiter);
        Ok(Csv { delimiter, delimiters: u8x16::splat(delimiter), plain_scalars, null: null.into() })
    }

    /// Appends the delimiter between two fields.
    pub fn delimiter(&self, out: &mut Vec<u8>) {
        out.push(self.delimiter);
    }

    /// Appends NULL.
    pub fn null(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.null);
    }

    /// Writes a line of names, without its newline.
    pub fn header<'n>(&self, names: impl ExactSizeIterator<Item = &'n [u8]>, out: &mut Vec<u8>) {
        let only = names.len() == 1;
        for (at, name) in names.enumerate() {
            if at > 0 {
                self.delimiter(out);
            }
            self.field(name, only, out);
        }
    }

    /// Appends a field, quoted if necessary. `only` means that its line has no other field: a `\.` alone on a line would end
    /// the data for old readers, so it is quoted.
    #[inline]
    pub fn field(&self, text: &[u8], only: bool, out: &mut Vec<u8>) {
        self.slice(Slice::of(text), only, out);
    }

    /// Appends the text of a stored string, number or boolean as a field. Returns whether it is one.
    #[inline]
    pub fn value(&self, value: Value<'_>, only: bool, out: &mut Vec<u8>) -> bool {
        match value.kind() {
            kind::STRING => self.slice(value.slice(), only, out),
            kind::NUMERIC => self.check(only, out, |out| numeric::write_text(value.numeric(), out)),
            kind::TRUE => self.check(only, out, |out| out.extend_from_slice(b"true")),
            kind::FALSE => self.check(only, out, |out| out.extend_from_slice(b"false")),
            _ => return false,
        }
        true
    }

    /// Copies a text block by block, as if it needed no quotes, and looks at each block meanwhile. Most texts have one block or
    /// two: a copy of unknown length would take longer to start.
    #[inline]
    fn slice(&self, text: Slice<'_>, only: bool, out: &mut Vec<u8>) {
        let Slice { bytes, start, end } = text;
        let (before, mut at, mut special) = (out.len(), start, 0);
        out.reserve(end - start + BLOCK);
        while at < end {
            let mut rest = [0; BLOCK];
            let block = match bytes.get(at..).and_then(<[u8]>::first_chunk) {
                Some(block) => block,
                None => {
                    // The bytes end within a block.
                    rest[..end - at].copy_from_slice(&bytes[at..end]);
                    &rest
                }
            };
            let beyond = (at + BLOCK).saturating_sub(end);
            special |= self.special_bits(block) & 0xFFFF >> beyond;
            out.extend_from_slice(block);
            at += BLOCK;
        }
        out.truncate(before + (end - start));
        if special != 0 || self.is_odd(&out[before..], only) {
            out.truncate(before);
            quote(text.as_bytes(), out);
        }
    }

    /// Bit `i` is set when byte `i` has to be in quotes.
    #[inline]
    fn special_bits(&self, block: &[u8; BLOCK]) -> u32 {
        let block = u8x16::new(*block);
        let is = |byte: u8| block.simd_eq(u8x16::splat(byte));
        (is(b'"') | block.simd_eq(self.delimiters) | is(b'\n') | is(b'\r')).to_bitmask()
    }

    /// Whether a text without special bytes has to be in quotes: it looks like NULL, or like the end of the data.
    #[inline]
    fn is_odd(&self, text: &[u8], only: bool) -> bool {
        text.len() == self.null.len() && text == self.null || only && text == b"\\."
    }

    /// Appends what is written as a field that seldom needs quotes.
    #[inline]
    fn check(&self, only: bool, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        let before = out.len();
        write(out);
        if self.plain_scalars {
            return;
        }
        let text = &out[before..];
        if text.contains(&self.delimiter) || self.is_odd(text, only) {
            let text = out.split_off(before);
            quote(&text, out);
        }
    }
}

#[cold]
fn quote(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let mut from = 0;
    for quote in memchr::memchr_iter(b'"', text) {
        out.extend_from_slice(&text[from..=quote]);
        from = quote;
    }
    out.extend_from_slice(&text[from..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(csv: &Csv, text: &str, only: bool) -> String {
        let mut out = Vec::new();
        csv.field(text.as_bytes(), only, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn only_what_must_be_quoted_is() {
        let csv = Csv::new(",", "").unwrap();
        for (text, written) in [
            ("a", "a"),
            ("", "\"\""),
            (" a ", " a "),
            ("a b", "a b"),
            ("a,b", "\"a,b\""),
            ("a\tb", "a\tb"),
            ("a\"b", "\"a\"\"b\""),
            ("\"", "\"\"\"\""),
            ("\"\"", "\"\"\"\"\"\""),
            ("a\nb", "\"a\nb\""),
            ("a\rb", "\"a\rb\""),
            ("a\\b", "a\\b"),
            ("\\.", "\\."),
            ("Zoë", "Zoë"),
        ] {
            assert_eq!(field(&csv, text, false), written);
        }
        assert_eq!(field(&csv, "\\.", true), "\"\\.\"");
        assert_eq!(field(&csv, "\\.a", true), "\\.a");
    }

    #[test]
    fn a_special_byte_is_found_at_every_place_and_none_after_the_text() {
        let csv = Csv::new(";", "").unwrap();
        for length in 1..50 {
            for end in [length, length + 1, length + 40] {
                let mut bytes = vec![b'a'; length];
                bytes.resize(end, b'"');
                let text = Slice { bytes: &bytes, start: 0, end: length };
                let mut out = b"x".to_vec();
                csv.slice(text, false, &mut out);
                assert_eq!(out, [b"x", &bytes[..length]].concat(), "{length} of {end}");
                for (at, special) in (0..length).flat_map(|at| b";\n\r".map(|special| (at, special))) {
                    let mut bytes = bytes.clone();
                    bytes[at] = special;
                    let mut out = b"x".to_vec();
                    csv.slice(Slice { bytes: &bytes, start: 0, end: length }, false, &mut out);
                    assert_eq!(out, [b"x\"", &bytes[..length], b"\""].concat(), "{special} at {at} of {length}");
                }
            }
        }
    }

    #[test]
    fn stored_values_are_fields_and_numbers_are_quoted_only_if_need_be() {
        use crate::jsonb::walk::Container;
        let line = br#"{"id":"x","a":["b\"c",1.50,true,null,{}]}"#;
        let mut encoder = crate::resource::Encoder::new(crate::error::IdRule::Aidbox, "");
        let mut json = Vec::new();
        encoder.encode(line).unwrap().write(&mut json).unwrap();
        let array = Container::new(&json).member(b"a").and_then(|array| array.container()).unwrap();
        let written = |csv: &Csv| {
            let (mut out, mut array) = (Vec::new(), array.clone());
            while let Some(value) = array.next_element() {
                if !csv.value(value, false, &mut out) {
                    out.push(b'-');
                }
                csv.delimiter(&mut out);
            }
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(&Csv::new(",", "").unwrap()), "\"b\"\"c\",1.50,true,-,-,");
        assert_eq!(written(&Csv::new("5", "true").unwrap()), "\"b\"\"c\"5\"1.50\"5\"true\"5-5-5");
    }

    #[test]
    fn a_value_that_looks_like_null_is_quoted() {
        let csv = Csv::new("\t", "NA").unwrap();
        assert_eq!(field(&csv, "NA", false), "\"NA\"");
        assert_eq!(field(&csv, "", false), "");
        assert_eq!(field(&csv, "a,b", false), "a,b");
        assert_eq!(field(&csv, "a\tb", false), "\"a\tb\"");
        let mut out = Vec::new();
        csv.null(&mut out);
        csv.delimiter(&mut out);
        assert_eq!(out, b"NA\t");
    }

    #[test]
    fn what_could_not_be_read_back_is_refused() {
        for (delimiter, null) in [("", ""), (",,", ""), ("\n", ""), ("\"", ""), ("ä", ""), (",", "a,b"), (",", "\"")] {
            assert!(Csv::new(delimiter, null).is_err(), "{delimiter:?} {null:?}");
        }
        assert!(Csv::new(";", "\\N").is_ok());
    }
}
