//! Writes rows as `INSERT` statements.

use super::writer::{KEEP_BYTES, Writer};
use fhir_bulk_codec::jsonb::text::{Spacing, TextWriter};
use fhir_bulk_codec::rows::sql::{Inserts, write_bits, write_bytes, write_literal, write_number};
use fhir_bulk_codec::rows::write_integer;
use fhir_bulk_pg::error::Result;
use fhir_bulk_pg::query::QueryRow;
use fhir_bulk_pg::value::{Content, Value};

/// Writes statements of several rows each.
pub struct SqlWriter {
    inserts: Inserts,
    values: Values,
}

struct Values {
    jsonb: TextWriter,
    scratch: Vec<u8>,
}

impl SqlWriter {
    /// `inserts` knows the beginning of each statement.
    pub fn new(inserts: Inserts) -> SqlWriter {
        SqlWriter { inserts, values: Values { jsonb: TextWriter::new(Spacing::Postgres), scratch: Vec::new() } }
    }
}

impl Values {
    fn value(&mut self, value: &Value<'_>, out: &mut Vec<u8>) {
        match value.content() {
            Content::Bool(true) => out.extend_from_slice(b"true"),
            Content::Bool(false) => out.extend_from_slice(b"false"),
            Content::Int(number) => write_integer(number, out),
            Content::Numeric | Content::Float4(_) | Content::Float8(_) => write_number(value.text(), out),
            Content::Text(text) | Content::Json(text) => write_literal(text, out),
            Content::Bytea(bytes) => write_bytes(bytes.get(), out),
            Content::Bits => write_bits(value.text(), out),
            Content::Jsonb(bytes) => {
                self.scratch.clear();
                self.jsonb.write(bytes, &mut self.scratch);
                write_literal(&self.scratch, out);
                self.scratch.shrink_to(KEEP_BYTES);
            }
            _ => write_literal(value.text(), out),
        }
    }
}

impl Writer for SqlWriter {
    fn row(&mut self, row: &QueryRow<'_>, out: &mut Vec<u8>) -> Result<bool> {
        let SqlWriter { inserts, values } = self;
        inserts.row(out, |out| {
            for (at, value) in row.values().enumerate() {
                if at > 0 {
                    out.extend_from_slice(b", ");
                }
                match value {
                    Some(value) => values.value(&value, out),
                    None => out.extend_from_slice(b"NULL"),
                }
            }
            Ok(())
        })
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        Ok(self.inserts.end(out))
    }
}
