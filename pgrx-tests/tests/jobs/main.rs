//! Tests of background jobs: what they do, whose rights they have, and what they survive.
//!
//! A test's name says what would break for whom. Tests that end servers have servers of their own.

mod account;
mod cancel;
mod contention;
mod copies;
mod disk;
mod escape;
mod import;
mod indexes;
mod job;
mod kills;
mod launcher;
mod listings;
mod meanwhile;
mod memory;
mod new_files;
mod ownership;
mod partitioned_indexes;
mod queue;
mod requests;
mod source;
mod standby;
mod status;
mod submissions;
mod survival;

use fhir_bulk_tests::support;
