//! Names of resource types and of their tables.

use fhir_bulk_pg::error::{Error, Result};
use std::ffi::CString;

/// Leaves room for `_history` in PostgreSQL's 63 bytes.
const MAX_BYTES: usize = 55;

/// The name of a resource type, of FHIR or custom: `[A-Za-z][A-Za-z0-9]{0,54}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceType(String);

impl ResourceType {
    /// Checks a name.
    ///
    /// # Errors
    /// 22023, with the rule as HINT.
    pub fn new(name: &str) -> Result<ResourceType> {
        let fits = name.len() <= MAX_BYTES
            && name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.bytes().all(|b| b.is_ascii_alphanumeric());
        if fits {
            return Ok(ResourceType(name.to_owned()));
        }
        let shown: String = name.chars().take(80).collect();
        Err(Error::invalid_argument(format!("\"{shown}\" is not a resource type")).hint(format!(
            "A resource type is a letter and up to {} letters and digits, such as Patient.",
            MAX_BYTES - 1
        )))
    }

    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name in FHIR's spelling if FHIR has this type, else as it was given.
    pub fn canonical(&self) -> &str {
        fhir_bulk_codec::fhir::resource_type(&self.0).unwrap_or(&self.0)
    }

    /// The name of its table.
    pub fn table_name(&self) -> CString {
        CString::new(self.0.to_ascii_lowercase()).expect("letters and digits")
    }

    /// The name of the table of its older versions.
    pub fn history_name(&self) -> CString {
        CString::new(format!("{}_history", self.0.to_ascii_lowercase())).expect("letters and digits")
    }
}
