//! Data for trying, testing and measuring `fhir_bulk`, and the judge of a round trip.
//!
//! * [`sample`] writes FHIR R4 resources, the same bytes for the same arguments.
//! * [`measure`] times `fhir_bulk` against COPY and SQL.
//! * [`loops`] runs the codec's hot loops alone.
//! * [`compare`] says whether two sets of NDJSON files hold the same resources.

pub mod compare;
pub mod loops;
pub mod measure;
pub mod sample;
