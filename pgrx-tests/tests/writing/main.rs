//! Tests of how loads write, and where they read from: every kind of table, every kind of source, many sessions at
//! once, and what becomes of the rows on other servers.
//!
//! A test's name says what would break for whom. Each test has a database of its own, most on one shared server.

mod concurrency;
#[allow(dead_code, reason = "shared with tests/exporting, where all of it is used")]
#[path = "../exporting/job.rs"]
mod exports;
mod http;
#[allow(dead_code, reason = "shared with tests/jobs, where all of it is used")]
#[path = "../jobs/job.rs"]
mod job;
mod known;
mod limits;
mod on_far_servers;
mod options;
mod pages;
mod paths;
mod races;
mod rejects;
mod replication;
mod servers;
mod windows;

use fhir_bulk_tests::support;
