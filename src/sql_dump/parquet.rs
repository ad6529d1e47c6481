//! Writes rows as a Parquet file.

use super::json::Objects;
use super::writer::{KEEP_BYTES, Writer};
use crate::parquet::{self, failed};
use fhir_bulk_codec::jsonb::text::{Spacing, TextWriter};
use fhir_bulk_parquet::{Cell, Column, File};
use fhir_bulk_pg::error::Result;
use fhir_bulk_pg::query::QueryRow;
use fhir_bulk_pg::value::{self, Content, Value};

/// A file with a typed column for each of the query.
pub struct ParquetWriter {
    file: File,
    columns: Vec<Column>,
    cells: Cells,
}

/// Makes cells of values.
struct Cells {
    jsonb: TextWriter,
    nested: Objects,
    scratch: Vec<u8>,
}

impl ParquetWriter {
    /// # Errors
    /// 53200.
    pub fn new(columns: &[value::Column]) -> Result<ParquetWriter> {
        let column = |column: &value::Column| Column { name: column.name.clone(), kind: parquet::kind(column.class()) };
        let columns: Vec<Column> = columns.iter().map(column).collect();
        let file = File::new(&columns).map_err(failed)?;
        let (jsonb, nested) = (TextWriter::new(Spacing::Postgres), Objects::new(&[])?);
        Ok(ParquetWriter { file, columns, cells: Cells { jsonb, nested, scratch: Vec::new() } })
    }
}

impl Writer for ParquetWriter {
    fn row(&mut self, row: &QueryRow<'_>, out: &mut Vec<u8>) -> Result<bool> {
        let ParquetWriter { file, columns, cells } = self;
        for (column, value) in columns.iter().zip(row.values()) {
            file.push(match value {
                Some(value) => cells.cell(column, &value)?,
                None => Cell::Null,
            });
        }
        cells.scratch.shrink_to(KEEP_BYTES);
        let ended = file.end_row().map_err(failed)?;
        if ended {
            file.take(out);
        }
        Ok(ended)
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        self.file.finish().map_err(failed)?;
        self.file.take(out);
        self.file = File::new(&self.columns).map_err(failed)?;
        Ok(true)
    }
}

impl Cells {
    fn cell<'a>(&'a mut self, column: &Column, value: &Value<'a>) -> Result<Cell<'a>> {
        self.scratch.clear();
        match value.content() {
            Content::Jsonb(bytes) => self.jsonb.write(bytes, &mut self.scratch),
            Content::Array(_) | Content::Composite(_) => self.nested.value(Some(*value), &mut self.scratch)?,
            _ => return parquet::cell(column, value).map_err(|error| error.hint(way_out(&column.name))),
        }
        Ok(Cell::Bytes(&self.scratch))
    }
}

fn way_out(name: &str) -> String {
    format!("Write NULL in its place, as NULLIF does, or the column as text: \"{name}\"::text.")
}
