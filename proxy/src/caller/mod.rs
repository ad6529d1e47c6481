//! The caller of a request, and the address it comes from.

pub mod auth;
mod jwt;
pub mod peer;
pub mod submitters;
