//! A resource as people exchange it and as its table keeps it.
//!
//! The stored jsonb does not repeat what the row's columns say: `id`, `resourceType`, `meta.lastUpdated`,
//! `meta.versionId` and the creation time. [`Encoder`] takes them out, [`Writer`] puts them back.

mod encode;
mod encoded;
mod identifier;
mod selection;
mod to_aidbox;
mod to_fhir;
mod write;

pub use encode::Encoder;
pub use encoded::Encoded;
pub use identifier::{Identifier, identifiers};
pub use selection::{Selection, elements};
pub use write::{Envelope, Form, NotAnObject, Writer};
