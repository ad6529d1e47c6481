//! Builds SQL statements and quoted names.

use fhir_bulk_pg::catalog::quote_identifier;
use std::ffi::{CStr, CString};

/// `schema.table`, quoted.
pub fn qualified(schema: &CStr, name: &CStr) -> String {
    format!("{}.{}", quote_identifier(schema), quote_identifier(name))
}

/// A statement for PostgreSQL. It contains no NUL: its names are checked or come from the catalogue.
pub fn sql(statement: String) -> CString {
    CString::new(statement).expect("no NUL in our statements")
}
