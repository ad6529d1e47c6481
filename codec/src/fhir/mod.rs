//! FHIR's own definitions: resource types, structures, choices and references.

pub(crate) mod definitions;
pub(crate) mod table;
mod types;

pub use definitions::Version;
pub use types::{resource_type, resource_types};
