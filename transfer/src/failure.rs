//! A failed attempt, and whether a retry may succeed.

use crate::error::TransferError;
use crate::tls;
use std::io;
use std::time::{Duration, SystemTime};
use ureq::http::StatusCode as Status;
use ureq::http::header::{HeaderMap, RETRY_AFTER};

/// The wait before the second attempt; each further one is twice as long, up to [`MAX_BACKOFF`].
const BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// The longest wait that a server can request by Retry-After. If it requests more, this is used.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(120);

/// A failed attempt.
#[derive(Debug)]
pub(crate) struct Failure {
    pub error: TransferError,
    again: Again,
}

#[derive(Debug)]
enum Again {
    /// A retry would fail, too.
    Never,
    /// A retry may succeed.
    Later,
    /// A retry may succeed after this time, which the server requested.
    After(Duration),
}

impl From<TransferError> for Failure {
    /// A failure that a retry would not change.
    fn from(error: TransferError) -> Failure {
        Failure { error, again: Again::Never }
    }
}

impl Failure {
    /// A failure of the network: a retry may succeed.
    pub fn passing(why: impl Into<String>) -> Failure {
        Failure { error: TransferError::Network(why.into()), again: Again::Later }
    }

    /// A failure of the HTTP client or of a body.
    pub fn of_transport(what: &str, error: &ureq::Error) -> Failure {
        if let Some(error) = of_tls(error) {
            return tls::meaning(error).into();
        }
        let again = match error {
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => Again::Never,
            ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed => Again::Later,
            _ => Again::Never,
        };
        let why = match error {
            ureq::Error::Io(inner) => inner.to_string(),
            _ => error.to_string(),
        };
        Failure { error: TransferError::Network(format!("{what}{why}")), again }
    }

    /// A server's error status. 429 and 5xx may be temporary; other 4xx are final.
    pub fn of_status(status: Status, headers: &HeaderMap) -> Failure {
        let again = match status.as_u16() {
            429 | 500..=599 => retry_after(headers).map_or(Again::Later, Again::After),
            _ => Again::Never,
        };
        let reason = status.canonical_reason().unwrap_or("no reason given").to_owned();
        Failure { error: TransferError::Status { code: status.as_u16(), reason }, again }
    }

    /// The same with another error.
    pub fn explained(self, explain: impl FnOnce(TransferError) -> TransferError) -> Failure {
        Failure { error: explain(self.error), ..self }
    }

    /// How long to wait before the next attempt, after `retries` retries; `None` if it would fail, too.
    pub fn wait(&self, retries: u32) -> Option<Duration> {
        match self.again {
            Again::Never => None,
            Again::Later => Some(BACKOFF.saturating_mul(1 << retries.min(16)).min(MAX_BACKOFF)),
            Again::After(wait) => Some(wait.min(MAX_RETRY_AFTER)),
        }
    }
}

fn of_tls(error: &ureq::Error) -> Option<&rustls::Error> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}

/// Retry-After: seconds, or a date (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(code: u16, after: Option<&str>, retries: u32) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        if let Some(after) = after {
            headers.insert(RETRY_AFTER, after.parse().unwrap());
        }
        Failure::of_status(Status::from_u16(code).unwrap(), &headers).wait(retries)
    }

    #[test]
    fn what_may_pass_is_asked_again_ever_later_but_not_for_ever() {
        for code in [429, 500, 502, 503, 504, 599] {
            assert_eq!(wait(code, None, 0), Some(BACKOFF), "{code}");
            assert_eq!(wait(code, None, 1), Some(2 * BACKOFF), "{code}");
            assert_eq!(wait(code, None, u32::MAX), Some(MAX_BACKOFF), "{code}");
        }
        for code in [201, 204, 206, 304, 400, 401, 403, 404, 408, 410, 416] {
            assert_eq!(wait(code, Some("1"), 0), None, "{code}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_within_reason() {
        assert_eq!(wait(429, Some("7"), 0), Some(Duration::from_secs(7)));
        assert_eq!(wait(503, Some("0"), 3), Some(Duration::ZERO));
        assert_eq!(wait(503, Some("999999999999"), 0), Some(MAX_RETRY_AFTER));
        assert_eq!(wait(503, Some("Sun, 06 Nov 1994 08:49:37 GMT"), 0), Some(Duration::ZERO));
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60));
        let until = wait(503, Some(&date), 0).unwrap();
        assert!((50..=60).contains(&until.as_secs()), "{until:?}");
        for text in ["-1", "soon", "", "99999999999999999999999"] {
            assert_eq!(wait(503, Some(text), 0), Some(BACKOFF), "{text}");
        }
    }
}
