//! Rows as CSV.

use super::writer::RowWriter;
use crate::cell::{Cell, Texts};
use crate::plan::View;
use fhir_bulk_codec::rows::csv::Csv;
use fhir_bulk_paths::item::{Item, Resource, Room};

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

/// The bytes of a text in one piece.
fn plain<'i>(item: &'i Item<'_>, room: &'i mut Room) -> Option<&'i [u8]> {
    match item.pieces(room)? {
        [first, b"", b""] => Some(first),
        _ => None,
    }
}

impl RowWriter for CsvRows {
    fn start(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(names) = &self.header else { return false };
        self.csv.header(names.iter().map(|name| name.as_bytes()), out);
        true
    }

    fn row(&mut self, resource: &Resource<'_>, cells: &[Cell<'_>], out: &mut Vec<u8>) -> bool {
        for (at, cell) in cells.iter().enumerate() {
            if at > 0 {
                self.csv.delimiter(out);
            }
            let mut room = Room::default();
            let text = match cell {
                Cell::Null => {
                    self.csv.null(out);
                    continue;
                }
                Cell::One(item) => plain(item, &mut room),
                Cell::Many(_) => None,
            };
            let text = match text {
                Some(text) => text,
                None => {
                    self.scratch.clear();
                    self.texts.text(resource, cell, &mut self.scratch);
                    &self.scratch
                }
            };
            self.csv.field(text, cells.len() == 1, out);
        }
        self.scratch.shrink_to(KEEP_BYTES);
        true
    }
}
