//! Converts a resource between its exchanged form and its stored form.
//!
//! The stored jsonb does not have what the row's columns have: `id`, `resourceType`, `meta.lastUpdated`, `meta.versionId`
//! and the creation time. [`Encoder`] removes these, [`Writer`] adds them again.

mod encode;
mod encoded;
mod identifier;
mod selection;
mod to_aidbox;
mod to_fhir;
mod value;
mod write;

pub use encode::Encoder;
pub use encoded::Encoded;
pub use identifier::{Identifier, identifiers};
pub use selection::{Selection, elements};
pub use value::write_value;
pub use write::{Envelope, Form, NotAnObject, Writer};
