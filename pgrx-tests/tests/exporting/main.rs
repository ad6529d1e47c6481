//! Tests of exports, and of what there is to export.
//!
//! A test's name says what would break for whom. Each test has a database of its own, most on one shared server.

mod allowed;
mod associated;
mod by_patient;
mod complaints;
mod downloads;
mod endings;
mod extras;
mod filters;
mod hijack;
mod horizon;
mod identifiers;
mod job;
mod lenient;
mod levels;
mod limits;
mod manifest;
mod max_bytes;
mod memory;
mod new_members;
mod partial;
mod rights;
mod s3;
mod snapshots;
mod subjects;
mod types;
mod units;

use fhir_bulk_tests::support;
