//! The id of a request.

use axum::http::HeaderMap;
use ring::rand::SecureRandom as _;

/// The header with the id.
pub const REQUEST_ID: &str = "x-request-id";
/// PostgreSQL truncates an application_name to 63 bytes, and it starts with `fhir_bulk_proxy `.
const MOST_ID: usize = 47;

/// The id of a request in the log, in the response, and in pg_stat_activity.
#[derive(Clone, Debug, Default)]
pub struct RequestId(String);

impl RequestId {
    /// The caller's own id if the log can show it, else a new one.
    pub fn of(headers: &HeaderMap) -> RequestId {
        let sane = |id: &&str| {
            (1..=MOST_ID).contains(&id.len())
                && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        if let Some(id) = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(sane) {
            return RequestId(id.to_owned());
        }
        let mut random = [0; 16];
        // Without random numbers the id is useless, but the request can be answered.
        let _ = ring::rand::SystemRandom::new().fill(&mut random);
        RequestId(random.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
