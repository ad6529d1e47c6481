//! Headers that somebody gives for requests to a server, such as its credentials.

use std::fmt;
use ureq::http::{HeaderName, HeaderValue};

/// Names that the client itself sets, that belong to one connection, or that ask for a part of a body.
const REFUSED: [&str; 12] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "expect",
    "upgrade",
    "range",
    "if-range",
    "accept-encoding",
];
/// The beginning of names that are for proxies.
const OF_PROXIES: &str = "proxy-";
/// The most headers, and the most bytes of all of them.
const MOST: usize = 50;
const MOST_BYTES: usize = 16 << 10;

/// Headers for requests to the servers of the URLs that are asked for, and to no other one. Nothing shows their values.
#[derive(Clone, Default)]
pub struct Headers(Vec<(HeaderName, HeaderValue)>);

/// Why a header cannot be sent. It never has a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidHeader(pub String);

impl fmt::Display for InvalidHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidHeader {}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Headers {
    /// Headers of names and values, in their order. A name is a token of HTTP, a value printable ASCII and tabs.
    ///
    /// # Errors
    /// The first one that cannot be sent, by its name; and if there are too many.
    pub fn new<'a>(given: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Headers, InvalidHeader> {
        let (mut headers, mut bytes) = (Vec::new(), 0);
        for (name, value) in given {
            let shown: String = name.chars().take(80).flat_map(char::escape_default).collect();
            let wrong = |what: &str| InvalidHeader(format!("header \"{shown}\" {what}"));
            let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("has no name that HTTP allows"))?;
            if REFUSED.contains(&parsed.as_str()) || parsed.as_str().starts_with(OF_PROXIES) {
                return Err(wrong("is not for callers to set"));
            }
            bytes += name.len() + value.len();
            if headers.len() == MOST || bytes > MOST_BYTES {
                return Err(InvalidHeader(format!(
                    "there are more than {MOST} headers, or {MOST_BYTES} bytes of them"
                )));
            }
            let is_printable = value.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
            let value = HeaderValue::from_str(value).ok().filter(|_| is_printable);
            let mut value = value.ok_or_else(|| wrong("has a value with other characters than printable ASCII"))?;
            value.set_sensitive(true);
            headers.push((parsed, value));
        }
        Ok(Headers(headers))
    }

    /// Names and values.
    pub(crate) fn all(&self) -> &[(HeaderName, HeaderValue)] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_could_change_the_request_is_refused_by_its_name() {
        for name in [
            "Host",
            "content-length",
            "Transfer-Encoding",
            "CONNECTION",
            "Expect",
            "Upgrade",
            "Range",
            "Proxy-Authorization",
            "proxy-x",
            "If-Range",
            "a b",
            "a:",
            "a\r\nb",
            "",
            "ü",
        ] {
            let refused = Headers::new([(name, "geheim")]).unwrap_err().0;
            assert!(!refused.contains("geheim") && !refused.contains('\n'), "{refused}");
        }
        for value in ["a\r\nHost: x", "a\nb", "a\0", "ä", "\u{7f}"] {
            let refused = Headers::new([("x-key", value)]).unwrap_err().0;
            assert_eq!(refused, "header \"x-key\" has a value with other characters than printable ASCII");
        }
        let many = vec![("x", "y"); MOST + 1];
        assert!(Headers::new(many[1..].iter().copied()).is_ok() && Headers::new(many).is_err());
        assert!(Headers::new([("x", "y".repeat(MOST_BYTES).as_str())]).is_err());
    }

    #[test]
    fn nothing_shows_a_value() {
        let headers = Headers::new([("Authorization", "Bearer geheim"), ("x-key", "geheim\t1")]).unwrap();
        let shown = format!("{headers:?} {:?}", headers.all());
        assert!(shown.contains("authorization") && !shown.contains("geheim"), "{shown}");
    }
}
