//! What `fhir_bulk` does to bytes, without PostgreSQL: JSON text into jsonb bytes and back, the stored form of
//! a FHIR resource, NDJSON lines, gzip, and how the formats of a query's rows are written.
//!
//! Two passes carry the product, and each touches a byte of the data once:
//! - load: [`ndjson::Lines`] → [`resource::Encoder`] (JSON text → jsonb bytes, identity taken out);
//! - dump: [`resource::Writer`] (jsonb bytes → JSON text, identity put back) → [`gzip`].
#![forbid(unsafe_code)]

#[cfg(target_endian = "big")]
compile_error!("jsonb bytes are written in little-endian order only");

mod decimal;
pub mod error;
pub mod fhir;
pub mod gzip;
pub mod instant;
pub mod jsonb;
pub mod ndjson;
pub mod resource;
pub mod rows;

pub use error::{LineError, Reason};
