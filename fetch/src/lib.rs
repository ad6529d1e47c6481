//! Bytes from http and https URLs, for a process that must never wait where it can't be interrupted.
//!
//! [`Download::start`] reads on a thread of its own, with all signals blocked, into a bounded channel, and writes to
//! [`Download::wake_fd`] whenever there is something to take. Where it may go is decided by [`Policy`], on the
//! address that is then used, at each redirect anew.
#![forbid(unsafe_code)]

mod download;
mod policy;

pub use download::{Download, Event, FetchError, Limits};
pub use policy::{InvalidPolicy, Policy};
