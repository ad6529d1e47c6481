//! Rows in the formats of text: CSV, NDJSON, one JSON array, `INSERT`s.

mod csv;
mod json;
mod sql;
mod writer;

pub use csv::CsvRows;
pub use json::{JsonRows, ObjectRows};
pub use sql::SqlRows;
pub use writer::RowWriter;
