//! Bytes from http and https URLs and from S3 services, for a process that must never wait where it can't be interrupted.
//!
//! [`Download::start`] reads on a thread of its own, with all signals blocked, into a bounded channel, from which any
//! thread takes it. Where its [`Client`] may go is decided by [`Policy`], on the address that is then used, at each redirect
//! anew. What may pass is tried again, and a body that breaks goes on where it broke. [`Upload`] writes an object of a
//! [`Folder`] in the same way, the other way round, and writes to [`Upload::wake_fd`] whenever there is something new; a
//! [`Call`] waits for answers alone.
#![forbid(unsafe_code)]

mod body;
mod call;
mod connect;
mod download;
mod error;
mod failure;
mod folder;
mod object_name;
mod origin;
mod policy;
mod request;
mod s3;
mod tls;
mod upload;

pub use call::Call;
pub use download::Download;
pub use error::TransferError;
pub use folder::Folder;
pub use object_name::ObjectName;
pub use origin::{Event, Origin};
pub use policy::{InvalidPolicy, Policy};
pub use request::{Client, Limits};
pub use s3::{Keys, Object, Service};
pub use tls::{Authorities, InvalidAuthorities};
pub use upload::{Piece, Upload};
