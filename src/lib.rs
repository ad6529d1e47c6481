//! `fhir_bulk`: PostgreSQL as a bulk FHIR server.
//!
//! | floor | what is there |
//! |---|---|
//! | [`dump`], [`load`], [`export`], [`tables`] | the SQL functions: arguments, then steps |
//! | [`source`] | where the bytes of a load come from |
//! | [`store`] | resource tables: name, create, read, write |
//! | [`arguments`], [`settings`], [`error`] | what users pass and set, what they are told |
//! | [`pg`] | PostgreSQL, wrapped; the only `unsafe` |
//! | `fhir_bulk_codec` | bytes: jsonb, NDJSON, gzip; no PostgreSQL |
//!
//! Each floor uses only those below it.

use pgrx::prelude::*;

mod arguments;
mod dump;
mod error;
mod export;
mod load;
mod pg;
mod settings;
mod source;
mod store;
mod tables;

::pgrx::pg_module_magic!(name, version);

extension_sql_file!("../sql/prepare.sql", name = "prepare", bootstrap);
extension_sql_file!("../sql/rejects.sql", name = "rejects");
extension_sql_file!("../sql/grants.sql", name = "grants", finalize);

/// Called by PostgreSQL when it loads the library.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    pg::session::hide_backtraces();
    settings::define();
}
