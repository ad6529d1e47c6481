//! Reads requests: their parameters, headers and bodies.

pub mod call;
pub mod id;
pub mod kick_off;
pub mod need;
pub mod page;
pub mod parameters;
pub mod parse;
pub mod rpc;
pub mod sql_export;
pub mod sql_run;
pub mod yaml;
