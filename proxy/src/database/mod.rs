//! Connections to the database, and the transaction of a request on one.

pub mod pool;
pub mod session;
