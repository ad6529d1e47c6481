//! What all formats are.

use crate::cell::Cell;
use fhir_bulk_paths::item::Resource;

/// Writes rows in one format. After the end of a body it begins another one. A method that completes a line appends it without its newline, and returns true. What is not a
/// format of lines, such as a file of row groups, has its own way.
pub trait RowWriter {
    /// Writes what comes before the first row.
    fn start(&mut self, _out: &mut Vec<u8>) -> bool {
        false
    }

    /// Writes a row.
    fn row(&mut self, resource: &Resource<'_>, cells: &[Cell<'_>], out: &mut Vec<u8>) -> bool;

    /// Writes what comes after the last row.
    fn end(&mut self, _out: &mut Vec<u8>) -> bool {
        false
    }
}
