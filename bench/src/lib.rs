//! Measurements of `fhir_bulk`.
//!
//! * [`measure`] times it against COPY and SQL.
//! * [`loops`] runs the hot loops of the codec and of views alone.
//! * [`ten_columns`] is the view that both measure.

pub mod loops;
pub mod measure;
pub mod ten_columns;
