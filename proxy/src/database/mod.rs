//! Connections to the database, and the transaction of a request on one.

mod login;
pub mod pool;
pub mod session;
