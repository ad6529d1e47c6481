//! Reads http and https URLs and S3 objects, and writes S3 objects, for a process that must always be interruptible.
//!
//! [`Download::start`] reads on a thread of its own, with all signals blocked, into a bounded channel, from which any thread
//! takes the bytes. [`Policy`] decides which servers its [`Client`] may use. It checks the address that is then connected,
//! again at each redirect. Temporary failures are retried, and a broken body is continued where it broke. [`Upload`] writes
//! an object of a [`Folder`] in the same way, and makes [`Upload::wake_fd`] readable when there is something new. A [`Call`]
//! only waits for answers, and a [`Document`] is read whole. With [`Tokens`] a client logs in by OAuth 2.0. A [`Signer`]
//! signs URLs that others serve.
#![forbid(unsafe_code)]

mod addresses;
mod body;
mod call;
mod connect;
mod document;
mod download;
mod error;
mod failure;
mod folder;
mod headers;
mod listing;
mod object_name;
mod origin;
mod policy;
mod request;
mod s3;
mod signed_url;
mod signing_key;
mod tls;
mod tokens;
mod upload;

pub use call::Call;
pub use document::Document;
pub use download::Download;
pub use error::TransferError;
pub use folder::Folder;
pub use headers::{Headers, InvalidHeader};
pub use listing::{Listed, Page, Prefix};
pub use object_name::ObjectName;
pub use origin::{Event, Origin};
pub use policy::{InvalidPolicy, Policy};
pub use request::{Client, Limits, check_name, join};
pub use s3::{Keys, Object, Service};
pub use signed_url::{SignedFile, Signer, Unsigned};
pub use signing_key::{InvalidKey, SigningKey};
pub use tls::{Authorities, InvalidAuthorities};
pub use tokens::{Grant, InvalidGrant, Proof, Tokens};
pub use upload::{Piece, Upload};
