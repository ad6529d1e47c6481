//! Tests of the HTTP proxy over real connections, in front of a server that asks for passwords.
//!
//! A test's name says what would break for whom. All share one server; each has a database and a proxy of its own.

mod auth;
mod bulk_submit;
mod clients;
mod dump;
mod dump_sql;
mod export_v4;
mod exports;
mod files;
mod filters;
mod identifiers;
mod inferno;
mod job_lists;
mod jobs;
mod kick_offs;
mod levels;
mod load;
mod operations;
mod partial;
mod passwords;
mod pool;
mod refusals;
mod reload;
mod rpc;
mod smart;
mod smart_keys;
mod smart_login;
mod smart_scopes;
mod sql_export;
mod sql_run;
mod streams;
mod submit_login;
mod support;
mod ui;
mod ui_files;
