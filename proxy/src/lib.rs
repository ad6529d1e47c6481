//! `fhir_bulk_proxy`: an HTTP server for the SQL functions of fhir_bulk. It keeps database connections and no other state.
//! It is a library for the sake of its program and of those who test how it reads what callers send.
//!
//! | module | contents |
//! |---|---|
//! | [`routes`] | the endpoints; each calls one SQL function |
//! | [`request`], [`response`] | reading requests; making responses |
//! | [`caller`] | the caller of a request, and its address |
//! | [`smart`] | clients that log in with signed assertions, their tokens and scopes |
//! | [`jose`] | keys and signatures of tokens |
//! | [`database`] | the request's transaction, on a connection of its role |
//! | [`limits`] | limits of wrong passwords, used assertions, downloads, polls |
//! | [`error`], [`observe`], [`metrics`] | errors for callers, the log, the metrics |
//! | [`app`], [`config`], [`serve`] | shared state; settings; listening and stopping |
//!
//! Each module uses only those below it in this table. Within a module no two files use each other.

#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "a library for its own program and tests only")]

pub mod app;
pub mod caller;
pub mod config;
mod database;
mod error;
pub mod jose;
mod limits;
mod metrics;
mod observe;
pub mod request;
mod response;
pub mod routes;
pub mod serve;
pub mod smart;
