//! Keys and signatures of tokens (JOSE), with the cryptography library that TLS needs anyway.

pub mod keys;
pub mod provider;
