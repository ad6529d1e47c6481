//! Statements for PostgreSQL, and names in them.

use fhir_bulk_pg::catalog::quote_identifier;
use std::ffi::{CStr, CString};

/// `schema.table`, quoted.
pub fn qualified(schema: &CStr, name: &CStr) -> String {
    format!("{}.{}", quote_identifier(schema), quote_identifier(name))
}

/// A statement for PostgreSQL. What goes into ours are names from the catalogue and checked ones, without NUL.
pub fn sql(statement: String) -> CString {
    CString::new(statement).expect("no NUL in our statements")
}
