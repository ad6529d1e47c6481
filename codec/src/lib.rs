//! Converts bytes for `fhir_bulk`, without PostgreSQL: JSON text to jsonb bytes and back, FHIR resources to their stored
//! form and back, NDJSON lines, gzip, resources as flat rows, and the formats of `dump_sql`.
//!
//! There are two main paths. Each touches a byte of the data once:
//! - load: [`ndjson::Lines`] → [`resource::Encoder`] (JSON text → jsonb bytes, identity removed);
//! - dump: [`resource::Writer`] (jsonb bytes → JSON text, identity added) → [`gzip`].
#![forbid(unsafe_code)]

#[cfg(target_endian = "big")]
compile_error!("jsonb bytes are written in little-endian order only");

mod decimal;
pub mod error;
pub mod fhir;
pub mod flat;
pub mod gzip;
pub mod instant;
pub mod jsonb;
pub mod ndjson;
pub mod resource;
mod reuse;
pub mod rows;
pub mod share;

pub use error::{LineError, Reason};
