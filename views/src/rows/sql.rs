//! Rows as `INSERT` statements.

use super::writer::RowWriter;
use crate::cell::{Cell, Scalar, Texts, scalar};
use crate::plan::View;
use fhir_bulk_codec::rows::sql::{Inserts, write_literal};
use fhir_bulk_paths::item::Resource;
use std::convert::Infallible;

/// A buffer that a huge value made larger than this is shrunk to this size.
const KEEP_BYTES: usize = 4 << 20;

/// Statements of several rows each. Numbers and booleans stand as they are; all else is text, which PostgreSQL reads as the
/// column's type.
pub struct SqlRows {
    inserts: Inserts,
    texts: Texts,
    scratch: Vec<u8>,
}

impl SqlRows {
    /// Rows of a view; `table` is a name that is quoted where needed.
    pub fn new(view: &View, table: &str, rows_per_insert: usize) -> SqlRows {
        let names = view.columns().iter().map(|column| column.name.as_str());
        let inserts = Inserts::new(table, names, rows_per_insert);
        SqlRows { inserts, texts: Texts::new(view.version()), scratch: Vec::new() }
    }
}

impl RowWriter for SqlRows {
    fn row(&mut self, resource: &Resource<'_>, cells: &[Cell<'_>], out: &mut Vec<u8>) -> bool {
        let SqlRows { inserts, texts, scratch } = self;
        let written: Result<bool, Infallible> = inserts.row(out, |out| {
            for (at, cell) in cells.iter().enumerate() {
                if at > 0 {
                    out.extend_from_slice(b", ");
                }
                match cell {
                    Cell::Null => out.extend_from_slice(b"NULL"),
                    Cell::One(item)
                        if matches!(scalar(item), Scalar::Boolean(_) | Scalar::Integer(_) | Scalar::Number) =>
                    {
                        texts.text(resource, cell, out);
                    }
                    _ => {
                        scratch.clear();
                        texts.text(resource, cell, scratch);
                        write_literal(scratch, out);
                        scratch.shrink_to(KEEP_BYTES);
                    }
                }
            }
            Ok(())
        });
        written.unwrap_or_else(|never| match never {})
    }

    fn end(&mut self, out: &mut Vec<u8>) -> bool {
        self.inserts.end(out)
    }
}
