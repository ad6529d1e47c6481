//! Writes rows as CSV.

use super::writer::{KEEP_BYTES, Writer};
use fhir_bulk_codec::jsonb::text::{Spacing, TextWriter};
use fhir_bulk_codec::rows::csv::Csv;
use fhir_bulk_codec::rows::write_integer;
use fhir_bulk_pg::error::Result;
use fhir_bulk_pg::query::QueryRow;
use fhir_bulk_pg::value::{Content, Value};

/// Writes the same bytes as `COPY … (FORMAT csv)`.
pub struct CsvWriter {
    csv: Csv,
    /// The column names, if the first line lists them.
    header: Option<Vec<String>>,
    jsonb: TextWriter,
    scratch: Vec<u8>,
}

impl CsvWriter {
    /// `header` has the column names if the first line is to list them.
    pub fn new(csv: Csv, header: Option<&[&str]>) -> CsvWriter {
        let header = header.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        CsvWriter { csv, header, jsonb: TextWriter::new(Spacing::Postgres), scratch: Vec::new() }
    }

    fn value(&mut self, value: &Value<'_>, only: bool, out: &mut Vec<u8>) {
        self.scratch.clear();
        let text = match value.content() {
            Content::Bool(true) => b"t",
            Content::Bool(false) => b"f",
            Content::Text(text) | Content::Json(text) => text,
            Content::Int(number) => {
                write_integer(number, &mut self.scratch);
                &self.scratch[..]
            }
            Content::Jsonb(bytes) => {
                self.jsonb.write(bytes, &mut self.scratch);
                &self.scratch[..]
            }
            _ => value.text(),
        };
        self.csv.field(text, only, out);
        self.scratch.shrink_to(KEEP_BYTES);
    }
}

impl Writer for CsvWriter {
    fn start(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(names) = &self.header else { return false };
        self.csv.header(names.iter().map(|name| name.as_bytes()), out);
        true
    }

    fn row(&mut self, row: &QueryRow<'_>, out: &mut Vec<u8>) -> Result<bool> {
        let only = row.width() == 1;
        for (at, value) in row.values().enumerate() {
            if at > 0 {
                self.csv.delimiter(out);
            }
            match value {
                Some(value) => self.value(&value, only, out),
                None => self.csv.null(out),
            }
        }
        Ok(true)
    }
}
