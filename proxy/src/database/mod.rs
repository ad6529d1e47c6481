//! Connections to the database, and the transaction of a request.

mod login;
pub mod pool;
pub mod session;
