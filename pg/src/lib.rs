//! Safe wrappers for what pgrx does not offer safely: the only crate with `unsafe`. It knows nothing of FHIR.
//!
//! This crate keeps these rules, so that the other crates need not know them:
//! - `pg_sys` functions are pgrx's wrappers: an error of PostgreSQL unwinds as a Rust panic and runs Drops. Callbacks have
//!   `#[pg_guard]`, which turns a panic into an error of PostgreSQL again.
//! - Drops never call PostgreSQL: after an error the transaction's end frees what is left.
//! - Memory that PostgreSQL allocates for a row or a batch is in a context that is reset afterwards.
#![allow(unsafe_code)]

pub mod access;
pub mod cast;
pub mod catalog;
pub mod class;
pub mod client;
pub mod compat;
pub mod copy;
mod copy_data;
pub mod cursor;
pub mod datum;
pub mod error;
pub mod extend;
pub mod find;
pub mod guc;
pub mod insert;
pub mod later_keys;
pub mod lock;
mod mapped;
pub mod memory;
mod new_pages;
pub mod parallel;
pub mod placeholders;
pub mod progress;
pub mod query;
pub mod read_only;
mod refused;
pub mod replication;
pub mod reserve;
pub mod session;
pub mod site;
mod slot;
pub mod spi;
pub mod spill;
pub mod subtransaction;
pub mod supply;
pub mod transaction;
pub mod unique;
pub mod update;
pub mod utility;
pub mod value;
pub mod whole;
pub mod worker;
