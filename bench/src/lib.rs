//! Measurements of `fhir_bulk`.
//!
//! * [`measure`] times it against COPY and SQL.
//! * [`loops`] runs the codec's hot loops alone.

pub mod loops;
pub mod measure;
