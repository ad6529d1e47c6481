//! Rows as CSV.

use super::writer::RowWriter;
use crate::cell::{Cell, Texts};
use crate::plan::View;
use fhir_bulk_codec::rows::csv::Csv;
use fhir_bulk_paths::item::{Item, Resource, Value};

/// A buffer that a huge value made larger than this is shrunk to this size.
const KEEP_BYTES: usize = 4 << 20;

/// Quotes as `COPY … (FORMAT csv)` does. Booleans are `true` and `false`; structures and collections are JSON.
pub struct CsvRows {
    csv: Csv,
    /// The columns' names, if there is a header.
    header: Option<Vec<String>>,
    texts: Texts,
    scratch: Vec<u8>,
}

impl CsvRows {
    /// Rows of a view, with a header or without.
    pub fn new(view: &View, csv: Csv, header: bool) -> CsvRows {
        let names = || view.columns().iter().map(|column| column.name.clone()).collect();
        CsvRows { csv, header: header.then(names), texts: Texts::new(view.version()), scratch: Vec::new() }
    }
}

impl RowWriter for CsvRows {
    fn start(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(names) = &self.header else { return false };
        self.csv.header(names.iter().map(|name| name.as_bytes()), out);
        true
    }

    fn row(&mut self, resource: &Resource<'_>, cells: &[Cell<'_>], out: &mut Vec<u8>) -> bool {
        let CsvRows { csv, texts, scratch, .. } = self;
        let only = cells.len() == 1;
        for (at, cell) in cells.iter().enumerate() {
            if at > 0 {
                csv.delimiter(out);
            }
            match cell {
                Cell::Null => csv.null(out),
                // Most cells are as they are stored.
                Cell::One(Item { value: Value::Json(value), .. }) if csv.value(*value, only, out) => {}
                _ => {
                    scratch.clear();
                    texts.text(resource, cell, scratch);
                    csv.field(scratch, only, out);
                }
            }
        }
        scratch.shrink_to(KEEP_BYTES);
        true
    }
}
