//! Reads `file:///path` URLs of files on the server.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// The path that `file://` + `rest` names; `None` if it is not absolute. Decodes `%41` to `A`, as in any URL; a `%` without
/// two hex digits stays.
pub fn path(rest: &str) -> Option<PathBuf> {
    let path = rest.strip_prefix("localhost").filter(|path| path.starts_with('/')).unwrap_or(rest);
    path.starts_with('/').then(|| PathBuf::from(OsString::from_vec(decoded(path))))
}

/// Decodes a part of a path.
pub fn decoded(path: &str) -> Vec<u8> {
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
    decoded
}

/// A part of a path as a URL has it, so that [`path`] reads the same bytes: what means something else in a URL or in a
/// pattern is encoded, and what is no text.
pub fn encoded(path: &[u8]) -> String {
    let mut url = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_ascii_control() || matches!(character, '%' | '*' | '?' | '#' | '\\') {
                let _ = write!(url, "%{:02X}", character as u32);
            } else {
                url.push(character);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_survives_its_url() {
        for name in [&b"Patient 1.ndjson"[..], b"100%41*?#\\.gz", "Zo\u{eb}/\n".as_bytes(), b"\xff\xfe%", b""] {
            let url = encoded(name);
            assert_eq!(decoded(&url), name, "{url}");
            assert!(!url.contains(['*', '?', '#', '\n']), "{url}");
        }
    }
}
