//! The names of objects of an S3 service.

use crate::error::TransferError;

/// `s3://bucket/key`. The key is used unchanged, without percent decoding, as S3's own tools do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectName<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// The key in it.
    pub key: &'a str,
}

impl<'a> ObjectName<'a> {
    /// Reads a URL.
    ///
    /// # Errors
    /// The URL names no object, or the key is ambiguous: `.` and `..` between slashes would be resolved on the way, and the
    /// request would reach another object.
    pub fn parse(url: &'a str) -> Result<ObjectName<'a>, TransferError> {
        let name = url.strip_prefix("s3://").and_then(|rest| rest.split_once('/'));
        let name = name.filter(|(bucket, key)| is_bucket(bucket) && !key.is_empty());
        let Some((bucket, key)) = name else {
            return Err(TransferError::BadUrl("it does not name an object: s3://bucket/key".into()));
        };
        if !ObjectName::is_key(key) {
            return Err(TransferError::BadUrl("its key has a part \".\" or \"..\", or a control character".into()));
        }
        Ok(ObjectName { bucket, key })
    }

    /// Reads the URL of a prefix, `s3://bucket/` and the start of keys, which may be empty.
    ///
    /// # Errors
    /// As for [`ObjectName::parse`].
    pub fn parse_prefix(url: &'a str) -> Result<ObjectName<'a>, TransferError> {
        match url.strip_prefix("s3://").and_then(|rest| rest.strip_suffix('/')) {
            Some(bucket) if is_bucket(bucket) => Ok(ObjectName { bucket, key: "" }),
            _ => ObjectName::parse(url),
        }
    }

    /// Whether a request for a key reaches this key.
    pub(crate) fn is_key(key: &str) -> bool {
        !key.split('/').any(|part| matches!(part, "." | "..")) && !key.contains(char::is_control)
    }
}

/// Letters, digits, `.`, `-` and `_`; older buckets may have capitals.
pub(crate) fn is_bucket(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    name.len() <= 255 && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.bytes().all(plain)
}
