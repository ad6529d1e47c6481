//! Serves exported files to callers with a signed URL: whole or in ranges (RFC 9110, 14). Each part is read by a statement
//! of its own. While a client reads a part, it holds no database connection and no snapshot.

use std::ops::Range;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use tokio_postgres::types::Type;

use crate::database::session::Access;
use crate::error::{Blame, Problem, Result};
use crate::limits::downloads::Running;
use crate::request::call::{Call, Download};

/// The media type of exported resources.
const FHIR_NDJSON: &str = "application/fhir+ndjson";
/// Those of exported tables, by the ends of their names.
const OF_TABLES: [(&str, &str); 4] = [
    ("csv", "text/csv"),
    ("ndjson", "application/x-ndjson"),
    ("json", "application/json"),
    ("parquet", "application/vnd.apache.parquet"),
];
/// The size of a part, in bytes.
const PART: u64 = 1 << 20;
/// The wait before a failed part is requested again.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Returns a file, or the requested range of it.
pub async fn file(Download(call, address): Download, method: Method, uri: Uri) -> Result<Response> {
    let url = uri.to_string();
    // The length is needed first, to check the range.
    let whole_is_asked = method == Method::GET && !call.headers.contains_key(header::RANGE);
    let first = part(&call, &url, 0, if whole_is_asked { PART } else { 1 }).await?;
    let size = first.size;
    // A file never changes: a job writes its files once, under a new random name.
    let tag = format!("\"{}\"", uri.path().trim_start_matches("/export/"));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(media_type(uri.path()))),
        (header::ACCEPT_RANGES, HeaderValue::from_static("bytes")),
        (header::ETAG, HeaderValue::from_str(&tag).map_err(|_| Problem::bad_request("no file has such a name"))?),
    ];
    let encoded = uri.path().ends_with(".gz").then_some([(header::CONTENT_ENCODING, "gzip")]);
    if is_known(&call.headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let asked =
        if method == Method::GET && may_be_part(&call.headers, &tag) { asked(&call.headers, size) } else { None };
    let (status, range, content_range) = match asked {
        None => (StatusCode::OK, 0..size, None),
        Some(range) if range.is_empty() => {
            let problem = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "the file ends before this range");
            return Ok(([(header::CONTENT_RANGE, format!("bytes */{size}"))], problem).into_response());
        }
        Some(range) => {
            let text = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            (StatusCode::PARTIAL_CONTENT, range, Some([(header::CONTENT_RANGE, text)]))
        }
    };
    let length = [(header::CONTENT_LENGTH, range.end - range.start)];
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        // Counted only after the signature is verified: a caller who only knows a file's path cannot use up the limit.
        let running = call.app.downloads.begin(uri.path(), address)?;
        let first_piece = whole_is_asked.then_some(first.bytes);
        Body::from_stream(pieces(Reading { call, url: first.next_url, left: range, first_piece, _running: running }))
    };
    Ok((status, headers, encoded, length, content_range, body).into_response())
}

/// The media type of a file: resources are in `Type.1.ndjson`, a table is in `name.part1.csv`.
fn media_type(path: &str) -> &'static str {
    let mut ends = path.strip_suffix(".gz").unwrap_or(path).rsplit('.');
    let (extension, number) = (ends.next().unwrap_or_default(), ends.next().unwrap_or_default());
    let of_table = OF_TABLES.iter().find(|(name, _)| number.starts_with("part") && *name == extension);
    of_table.map_or(FHIR_NDJSON, |(_, media_type)| *media_type)
}

/// A part of a file.
struct Part {
    bytes: Bytes,
    /// The size of the file.
    size: u64,
    /// Its URL, valid for another hour.
    next_url: String,
}

async fn part(call: &Call, url: &str, start: u64, length: u64) -> Result<Part> {
    let (start, length) = (start as i64, length.min(PART) as i32);
    let session = call.begin(Access::ReadOnly, Blame::Request).await?;
    let (bytes, row) = session
        .bytes_and_more(
            "bytes, file_bytes, next_url",
            "bulk_export_file_part($1, $2, $3)",
            &[(&url, Type::TEXT), (&start, Type::INT8), (&length, Type::INT4)],
        )
        .await?;
    session.commit().await?;
    Ok(Part { bytes, size: row.get::<_, i64>(1) as u64, next_url: row.get(2) })
}

/// A running download.
struct Reading {
    call: Call,
    url: String,
    left: Range<u64>,
    /// The part that has been read already.
    first_piece: Option<Bytes>,
    _running: Running,
}

fn pieces(reading: Reading) -> impl stream::Stream<Item = Result<Bytes>> {
    stream::try_unfold(reading, |mut reading| async {
        if reading.left.is_empty() {
            return Ok(None);
        }
        let bytes = match reading.first_piece.take() {
            Some(bytes) => bytes,
            None => {
                let Part { bytes, next_url, .. } = reading.next_part().await?;
                reading.url = next_url;
                bytes
            }
        };
        if bytes.is_empty() {
            return Err(Problem::unavailable("the file is shorter than it was"));
        }
        reading.left.start += bytes.len() as u64;
        Ok(Some((bytes, reading)))
    })
}

impl Reading {
    /// Reads the next part. If the server restarts or is overloaded, this retries for as long as a client may be idle.
    async fn next_part(&self) -> Result<Part> {
        let begun = Instant::now();
        loop {
            match part(&self.call, &self.url, self.left.start, self.left.end - self.left.start).await {
                Err(Problem { status: StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, .. })
                    if begun.elapsed() < self.call.app.config.idle_timeout =>
                {
                    tokio::time::sleep(ASK_AGAIN).await;
                }
                result => return result,
            }
        }
    }
}

/// Whether the client has the file already: If-None-Match has its tag, weak or not, or `*`.
pub fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = values.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|known| known == "*" || known.trim_start_matches("W/") == tag)
}

/// Whether to send a range: If-Range has the tag of this file, or is missing.
fn may_be_part(headers: &HeaderMap, tag: &str) -> bool {
    headers.get(header::IF_RANGE).is_none_or(|condition| condition.as_bytes() == tag.as_bytes())
}

/// The requested range of a file with `all` bytes. It is empty if the file ends before it. `None` means the whole file: for
/// several ranges, and for ranges that are not in bytes.
fn asked(headers: &HeaderMap, size: u64) -> Option<Range<u64>> {
    let text = headers.get(header::RANGE)?.to_str().ok()?.trim();
    let (unit, range) = text.split_once('=')?;
    let (first, last) = range.trim().split_once('-').filter(|_| unit.eq_ignore_ascii_case("bytes"))?;
    let number = |text: &str| match text {
        _ if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) => None,
        // Longer than any file.
        _ => Some(text.parse().unwrap_or(u64::MAX)),
    };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first > last => None,
        (Some(first), Some(last)) => Some(first.min(size)..last.saturating_add(1).min(size)),
        (Some(first), None) if last.is_empty() => Some(first.min(size)..size),
        (None, Some(last)) if first.is_empty() => Some(size - last.min(size)..size),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_what_rfc_9110_says() {
        let of = |text: &'static str, size| {
            asked(&HeaderMap::from_iter([(header::RANGE, HeaderValue::from_static(text))]), size)
        };
        assert_eq!(of("bytes=0-4", 10), Some(0..5));
        assert_eq!(of("BYTES=3-", 10), Some(3..10));
        assert_eq!(of("bytes=-4", 10), Some(6..10));
        assert_eq!(of("bytes=-40", 10), Some(0..10));
        assert_eq!(of("bytes=4-99999999999999999999999", 10), Some(4..10));
        for empty in ["bytes=10-", "bytes=10-12", "bytes=-0", "bytes=99999999999999999999999-"] {
            assert_eq!(of(empty, 10).map(|range| range.is_empty()), Some(true), "{empty}");
        }
        assert_eq!(of("bytes=0-", 0), Some(0..0));
        for all in ["bytes=5-4", "bytes=0-1,3-4", "lines=0-1", "bytes=", "bytes=-", "bytes=a-b", "bytes=+1-2", "0-1"] {
            assert_eq!(of(all, 10), None, "{all}");
        }
    }

    #[test]
    fn a_file_has_the_media_type_of_its_name() {
        for (path, media_type) in [
            ("/export/j/Patient.1.ndjson", FHIR_NDJSON),
            ("/export/j/Patient.1.ndjson.gz", FHIR_NDJSON),
            ("/export/j/bp.part1.ndjson", "application/x-ndjson"),
            ("/export/j/bp.part12.csv.gz", "text/csv"),
            ("/export/j/bp.part1.json", "application/json"),
            ("/export/j/bp.part1.parquet", "application/vnd.apache.parquet"),
        ] {
            assert_eq!(super::media_type(path), media_type, "{path}");
        }
    }

    #[test]
    fn conditions_name_a_file_by_its_tag() {
        let of = |name: &'static str, value: &'static str| {
            HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))])
        };
        for same in ["\"a/b\"", "W/\"a/b\"", "\"x\", \"a/b\"", "*"] {
            assert!(is_known(&of("if-none-match", same), "\"a/b\""), "{same}");
        }
        assert!(!is_known(&of("if-none-match", "\"a\""), "\"a/b\""));
        assert!(may_be_part(&HeaderMap::new(), "\"a/b\""));
        assert!(may_be_part(&of("if-range", "\"a/b\""), "\"a/b\""));
        // A weak tag never matches, and a date is not one of the proxy's tags.
        for other in ["W/\"a/b\"", "\"b\"", "Sun, 29 Nov 2026 00:00:00 GMT"] {
            assert!(!may_be_part(&of("if-range", other), "\"a/b\""), "{other}");
        }
    }
}
