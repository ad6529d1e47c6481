//! What FHIR's own definitions say.

pub(crate) mod definitions;
pub(crate) mod table;
mod types;

pub use definitions::Version;
pub use types::resource_type;
