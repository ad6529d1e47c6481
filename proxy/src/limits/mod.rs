//! How often, and how many at once.

pub mod attempts;
pub mod downloads;
pub mod polls;
