//! Reads `file:///path` URLs of files on the server.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// The path that `file://` + `rest` names; `None` if it is not absolute. Decodes `%41` to `A`, as in any URL; a `%` without
/// two hex digits stays.
pub fn path(rest: &str) -> Option<PathBuf> {
    let path = rest.strip_prefix("localhost").filter(|path| path.starts_with('/')).unwrap_or(rest);
    path.starts_with('/').then(|| PathBuf::from(percent_decoded(path)))
}

fn percent_decoded(path: &str) -> OsString {
    let bytes = path.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |offset: usize| bytes.get(at + offset).and_then(|b| (*b as char).to_digit(16));
        match (bytes[at], hex(1), hex(2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    OsString::from_vec(decoded)
}
