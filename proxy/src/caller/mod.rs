//! Who calls, and from where.

pub mod auth;
mod jwt;
pub mod peer;
