//! Makes responses.

use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::TryStreamExt as _;
use serde_json::{Value, json};

use crate::database::session::Pieces;
use crate::request::call::Call;
use crate::request::id::RequestId;

/// The media types of NDJSON. The first one is sent.
pub const NDJSON: &[&str] = &["application/ndjson", "application/x-ndjson", "application/fhir+ndjson"];

/// Marks a response whose own body describes the error.
#[derive(Clone, Copy)]
pub struct Said;

/// A response with a complete body.
pub fn respond(code: StatusCode, content_type: &'static str, text: String) -> Response {
    (code, [(header::CONTENT_TYPE, content_type)], text).into_response()
}

/// A response whose body is sent in chunks as they come.
pub fn stream(call: &Call, content_type: &str, gzip: bool, pieces: Pieces) -> Response {
    let encoding: Option<(HeaderName, &str)> = gzip.then_some((header::CONTENT_ENCODING, "gzip"));
    let app = call.app.clone();
    let counts_rows = !gzip && content_type == NDJSON[0];
    let pieces = pieces.inspect_ok(move |piece| {
        if counts_rows {
            app.metrics.dumped(memchr::memchr_iter(b'\n', piece).count());
        }
    });
    let mut response = ([(header::CONTENT_TYPE, content_type)], Body::from_stream(pieces)).into_response();
    if let Some((name, value)) = encoding {
        response.headers_mut().insert(name, value.parse().expect("ASCII"));
    }
    response
}

/// A row of the database without what is not known.
pub fn without_nulls(mut row: Value) -> Value {
    if let Some(members) = row.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    row
}

/// The `meta` member of the `/v1` endpoints.
pub fn meta(id: &RequestId, status: StatusCode) -> Value {
    json!({"requestId": id.as_str(), "timestamp": timestamp(), "status": status.as_u16()})
}

/// The current time.
pub fn timestamp() -> String {
    instant(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO))
}

/// A time as ISO 8601 in UTC, with milliseconds.
fn instant(since_1970: Duration) -> String {
    let seconds = since_1970.as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since_1970.subsec_millis())
}

/// The date of a day counted from 1970-01-01. The calendar repeats every 400 years; years start in March here, so that the
/// leap day comes last.
fn civil(day: u64) -> (u64, u64, u64) {
    let from_march_0000 = day + 719_468;
    let (era, in_era) = (from_march_0000 / 146_097, from_march_0000 % 146_097);
    let year_in_era = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year_in_era + year_in_era / 4 - year_in_era / 100);
    let from_march = (5 * in_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_in_era + u64::from(month <= 2), month, in_year - (153 * from_march + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_dates_of_the_calendar() {
        let at = |seconds| instant(Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59.000Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000Z");
        assert_eq!(at(951_868_800), "2000-03-01T00:00:00.000Z");
        assert_eq!(at(4_107_542_399), "2100-02-28T23:59:59.000Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00.000Z");
    }
}
