//! Writes rows as `INSERT` statements.

/// A statement ends when it has this many bytes, even if it may have more rows: a server refuses statements of 1 GB.
const STATEMENT_BYTES: usize = 16 << 20;

/// Statements with several rows each.
pub struct Inserts {
    /// `INSERT INTO "table" ("column", …) VALUES`
    head: Vec<u8>,
    rows_per_insert: usize,
    /// Rows and bytes of the current statement.
    rows: usize,
    bytes: usize,
}

impl Inserts {
    /// Statements that insert `columns` into `table`, a name that is quoted where needed.
    pub fn new<'a>(table: &str, columns: impl Iterator<Item = &'a str>, rows_per_insert: usize) -> Inserts {
        let mut head = format!("INSERT INTO {table} (").into_bytes();
        for (at, column) in columns.enumerate() {
            if at > 0 {
                head.extend_from_slice(b", ");
            }
            write_identifier(column, &mut head);
        }
        head.extend_from_slice(b") VALUES");
        Inserts { head, rows_per_insert, rows: 0, bytes: 0 }
    }

    /// Appends one row. `write` appends its values, with commas between them. Returns whether this ends a statement.
    ///
    /// # Errors
    /// The errors of `write`.
    pub fn row<E>(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<bool, E> {
        let start = out.len();
        if self.rows == 0 {
            out.extend_from_slice(&self.head);
        } else {
            out.push(b',');
        }
        out.extend_from_slice(b"\n(");
        write(out)?;
        out.push(b')');
        self.rows += 1;
        self.bytes += out.len() - start;
        Ok((self.rows == self.rows_per_insert || self.bytes >= STATEMENT_BYTES) && self.end(out))
    }

    /// Ends the current statement. Returns whether there was one.
    pub fn end(&mut self, out: &mut Vec<u8>) -> bool {
        let any = self.rows > 0;
        if any {
            out.push(b';');
            (self.rows, self.bytes) = (0, 0);
        }
        any
    }
}

/// Appends a name in quotes.
pub fn write_identifier(name: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    doubled(b'"', name.as_bytes(), out);
    out.push(b'"');
}

/// Appends a string constant that does not depend on `standard_conforming_strings`.
pub fn write_literal(text: &[u8], out: &mut Vec<u8>) {
    if memchr::memchr(b'\\', text).is_none() {
        out.push(b'\'');
        doubled(b'\'', text, out);
    } else {
        out.extend_from_slice(b"E'");
        let mut from = 0;
        for special in memchr::memchr2_iter(b'\'', b'\\', text) {
            out.extend_from_slice(&text[from..=special]);
            from = special;
        }
        out.extend_from_slice(&text[from..]);
    }
    out.push(b'\'');
}

/// Appends the text of a number. `NaN`, the infinities and `-0` become string constants; as a number, `-0` would be 0.
pub fn write_number(text: &[u8], out: &mut Vec<u8>) {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if digits.first().is_some_and(u8::is_ascii_digit) && text != b"-0" {
        out.extend_from_slice(text);
    } else {
        write_literal(text, out);
    }
}

/// Appends a constant of `bit` or `bit varying`.
pub fn write_bits(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"B'");
    out.extend_from_slice(text);
    out.push(b'\'');
}

/// Appends a constant of `bytea`.
pub fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.reserve(bytes.len() * 2 + 6);
    out.extend_from_slice(b"E'\\\\x");
    for byte in bytes {
        out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
    out.push(b'\'');
}

fn doubled(quote: u8, text: &[u8], out: &mut Vec<u8>) {
    let mut from = 0;
    for at in memchr::memchr_iter(quote, text) {
        out.extend_from_slice(&text[from..=at]);
        from = at;
    }
    out.extend_from_slice(&text[from..]);
}

#[cfg(test)]
mod tests {
    use super::super::tests::written;
    use super::*;

    #[test]
    fn no_value_can_leave_its_constant() {
        for (text, literal) in [
            ("", "''"),
            ("a", "'a'"),
            ("it's", "'it''s'"),
            ("''", "''''''"),
            ("\\", "E'\\\\'"),
            ("\\'; DROP TABLE t; --", "E'\\\\''; DROP TABLE t; --'"),
            ("a\nb", "'a\nb'"),
        ] {
            assert_eq!(written(|out| write_literal(text.as_bytes(), out)), literal);
        }
        assert_eq!(written(|out| write_identifier("a\"b", out)), "\"a\"\"b\"");
        assert_eq!(written(|out| write_bytes(&[0, 0xAB], out)), "E'\\\\x00ab'");
        assert_eq!(written(|out| write_bits(b"01", out)), "B'01'");
        assert_eq!(written(|out| write_number(b"-1.50", out)), "-1.50");
        assert_eq!(written(|out| write_number(b"-Infinity", out)), "'-Infinity'");
        assert_eq!(written(|out| write_number(b"-0", out)), "'-0'");
    }

    #[test]
    fn statements_have_so_many_rows_and_the_last_has_the_rest() {
        let mut inserts = Inserts::new("t", ["a", "b\"c"].into_iter(), 2);
        let mut out = Vec::new();
        let mut ends = Vec::new();
        for number in ["1", "2", "3"] {
            let write = |out: &mut Vec<u8>| {
                out.extend_from_slice(number.as_bytes());
                Ok::<_, ()>(())
            };
            ends.push(inserts.row(&mut out, write).unwrap());
        }
        assert_eq!(ends, [false, true, false]);
        assert!(inserts.end(&mut out));
        assert!(!inserts.end(&mut out));
        let head = "INSERT INTO t (\"a\", \"b\"\"c\") VALUES";
        assert_eq!(String::from_utf8(out).unwrap(), format!("{head}\n(1),\n(2);{head}\n(3);"));
    }

    #[test]
    fn a_statement_of_large_rows_ends_early() {
        let mut inserts = Inserts::new("t", ["a"].into_iter(), 100);
        let mut out = Vec::new();
        let large = |out: &mut Vec<u8>| {
            out.resize(out.len() + (9 << 20), b'1');
            Ok::<_, ()>(())
        };
        assert_eq!(inserts.row(&mut out, large), Ok(false));
        assert_eq!(inserts.row(&mut out, large), Ok(true));
    }
}
