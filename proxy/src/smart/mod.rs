//! SMART Backend Services: clients that log in with a signed assertion, the tokens they get, and the scopes of these.

pub mod assertion;
pub mod clients;
pub mod key_set;
pub mod login;
pub mod scopes;
pub mod tokens;
