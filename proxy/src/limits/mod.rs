//! Limits: wrong passwords, parallel downloads, polls of a job's status.

pub mod attempts;
pub mod downloads;
pub mod polls;
