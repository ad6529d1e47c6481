//! Reads requests: their parameters, headers and bodies.

pub mod call;
pub mod id;
pub mod parse;
pub mod yaml;
