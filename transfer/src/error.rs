//! The errors of transfers.

use std::fmt;

/// Why a transfer failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransferError {
    /// Not a URL that can be read.
    BadUrl(String),
    /// The allowlist does not allow it; the text says what.
    Refused(String),
    /// The server answered with an error status.
    Status {
        /// The status code.
        code: u16,
        /// Its standard phrase, and S3's error code.
        reason: String,
    },
    /// The server's certificate is from an authority that is not trusted.
    UnknownAuthority,
    /// There was no connection, or it broke.
    Network(String),
    /// After a break, the bytes that were read again were different.
    Changed,
    /// There is no access token for the request; the text says why, and never has a token or a secret.
    NoToken(String),
}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TransferError::BadUrl(why)
            | TransferError::Refused(why)
            | TransferError::Network(why)
            | TransferError::NoToken(why) => f.write_str(why),
            TransferError::Status { code, reason } => write!(f, "{code}: {reason}"),
            TransferError::UnknownAuthority => {
                f.write_str("the server's certificate is from an authority that is not trusted")
            }
            TransferError::Changed => f.write_str("it changed while it was read"),
        }
    }
}

impl std::error::Error for TransferError {}

impl TransferError {
    /// Whether an S3 service answered with this error code.
    pub fn is_of_s3(&self, code: &str) -> bool {
        matches!(self, TransferError::Status { reason, .. } if reason.ends_with(&format!(" ({code})")))
    }
}
