//! Subjects of SQL on FHIR: views of resources, and queries with the views that they see. `sql_run` returns the rows of one;
//! exports write those of several into files.

mod library;
mod resolve;
mod rows;

pub use resolve::{Context, NAMES, Named};
pub use rows::{Body, Query, Subject};
