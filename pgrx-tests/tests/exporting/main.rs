//! Tests of exports: of resources by their identifiers.
//!
//! A test's name says what would break for whom. Each test has a database of its own, most on one shared server.

mod identifiers;
#[allow(dead_code, reason = "shared with tests/outside, where all of it is used")]
#[path = "../outside/support.rs"]
mod support;
