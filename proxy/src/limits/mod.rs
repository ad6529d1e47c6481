//! Limits: wrong passwords, used assertions, parallel downloads, polls of a job's status.

pub mod attempts;
pub mod downloads;
pub mod polls;
pub mod replays;
