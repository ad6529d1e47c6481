//! What a request is called.

use axum::http::HeaderMap;
use ring::rand::SecureRandom as _;

/// The header with it.
pub const REQUEST_ID: &str = "x-request-id";
/// PostgreSQL cuts an application_name after 63 bytes; before the id stands `fhir_bulk_proxy `.
const MOST_ID: usize = 47;

/// What a request is called in the log, in the answer, and in pg_stat_activity.
#[derive(Clone, Debug, Default)]
pub struct RequestId(String);

impl RequestId {
    /// The caller's own if it is one that a log can show, else a new one.
    pub fn of(headers: &HeaderMap) -> RequestId {
        let sane = |id: &&str| {
            (1..=MOST_ID).contains(&id.len())
                && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        if let Some(id) = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(sane) {
            return RequestId(id.to_owned());
        }
        let mut random = [0; 16];
        // Without random numbers the id is of no use, but the request may still be answered.
        let _ = ring::rand::SystemRandom::new().fill(&mut random);
        RequestId(random.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
