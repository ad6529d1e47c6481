//! Tests on Citus: a coordinator and two workers, real servers each, with tables that are distributed over them.
//!
//! A test's name says what would break for whom. Each test has a database of its own on servers that most share; those that
//! end servers have their own.

#[allow(dead_code, reason = "shared with tests/exporting, where all of it is used")]
#[path = "../exporting/job.rs"]
mod exports;
#[allow(dead_code, reason = "shared with tests/jobs, where all of it is used")]
#[path = "../jobs/job.rs"]
mod job;
mod nodes;
mod on_citus;

use fhir_bulk_tests::support;
