//! What a request says and brings.

pub mod call;
pub mod id;
pub mod parse;
pub mod yaml;
