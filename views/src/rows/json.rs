//! Rows as JSON objects.

use super::writer::RowWriter;
use crate::cell::{Cell, Texts};
use crate::plan::View;
use fhir_bulk_codec::rows::json::member_name;
use fhir_bulk_paths::item::Resource;

/// NDJSON: one object per line, with FHIR's JSON types.
pub struct ObjectRows {
    /// `"name":`
    names: Vec<Vec<u8>>,
    texts: Texts,
}

impl ObjectRows {
    /// Rows of a view.
    pub fn new(view: &View) -> ObjectRows {
        let names = view.columns().iter().map(|column| member_name(&column.name)).collect();
        ObjectRows { names, texts: Texts::new(view.version()) }
    }
}

impl RowWriter for ObjectRows {
    fn row(&mut self, resource: &Resource<'_>, cells: &[Cell<'_>], out: &mut Vec<u8>) -> bool {
        out.push(b'{');
        for (at, (name, cell)) in self.names.iter().zip(cells).enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(name);
            self.texts.json(resource, cell, out);
        }
        out.push(b'}');
        true
    }
}

/// One array, with one object per line.
pub struct JsonRows {
    objects: ObjectRows,
    any: bool,
}

impl JsonRows {
    /// Rows of a view.
    pub fn new(view: &View) -> JsonRows {
        JsonRows { objects: ObjectRows::new(view), any: false }
    }
}

impl RowWriter for JsonRows {
    fn row(&mut self, resource: &Resource<'_>, cells: &[Cell<'_>], out: &mut Vec<u8>) -> bool {
        out.push(if std::mem::replace(&mut self.any, true) { b',' } else { b'[' });
        self.objects.row(resource, cells, out)
    }

    fn end(&mut self, out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(if std::mem::take(&mut self.any) { b"]" } else { b"[]" });
        true
    }
}
