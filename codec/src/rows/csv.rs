//! Writes CSV like PostgreSQL's `COPY … (FORMAT csv)` (`CopyAttributeOutCSV` in `src/backend/commands/copyto.c`), also with
//! tabs.

/// The delimiter and the text for NULL.
pub struct Csv {
    delimiter: u8,
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
        Ok(Csv { delimiter, null: null.into() })
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
    pub fn field(&self, text: &[u8], only: bool, out: &mut Vec<u8>) {
        // No early exit: then the compiler checks many bytes at a time.
        let special = |byte: u8| byte == self.delimiter || byte == b'"' || byte == b'\n' || byte == b'\r';
        let plain = !text.iter().fold(false, |found, byte| found | special(*byte));
        if plain && text != self.null && !(only && text == b"\\.") {
            out.extend_from_slice(text);
            return;
        }
        out.push(b'"');
        let mut from = 0;
        for quote in memchr::memchr_iter(b'"', text) {
            out.extend_from_slice(&text[from..=quote]);
            from = quote;
        }
        out.extend_from_slice(&text[from..]);
        out.push(b'"');
    }
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
