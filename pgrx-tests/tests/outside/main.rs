//! Tests of the installed extension from outside, over real connections to private servers.
//!
//! A test's name says what would break for whom. All but the crash tests share one server; each has a database of
//! its own.

mod bad_input;
mod concurrency;
mod counts;
mod crash;
mod discarded;
mod dump;
mod fidelity;
mod filter;
mod hijack;
mod install;
mod interrupts;
mod load;
mod memory;
mod own_tables;
mod read;
mod rights;
mod sql_dump;
mod upgrade;

use fhir_bulk_tests::support;
