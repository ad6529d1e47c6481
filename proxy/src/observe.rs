//! Wraps every request: gives it an id, logs and counts it, and writes problems as responses.

use std::net::Ipv6Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use serde_json::json;
use tracing::{Instrument as _, Span, field};

use crate::app::App;
use crate::caller::peer;
use crate::config::Switch;
use crate::error::{Problem, printable};
use crate::metrics;
use crate::request::id::{REQUEST_ID, RequestId};
use crate::response::{Said, meta};
use crate::smart::login;

/// Gives the request an id, runs it, writes its problem if there is one, and counts the response until its end.
pub async fn observe(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    let path = request.uri().path().to_owned();
    let shown = printable(&path);
    let span = tracing::info_span!("request", id = id.as_str(), method = %request.method(), path = shown, role = field::Empty, client = field::Empty);
    request.extensions_mut().insert(id.clone());
    let takes_basic = app.config.basic == Switch::On && path != login::PATH && !peer::is_browser(request.headers());
    let mut record = Record::new(app, &request, span.clone());

    let mut response = match check_host(&request).and_then(|()| check_coding(request.headers())) {
        Ok(()) => next.run(request).instrument(span).await,
        Err(problem) => problem.into_response(),
    };
    if let Some(problem) = problem_of(&response) {
        let headers = std::mem::take(response.headers_mut());
        response = told(&problem, &path, &id, takes_basic);
        let kept = [Some(header::ALLOW), Some(header::CONTENT_RANGE)];
        response.headers_mut().extend(headers.into_iter().filter(|(name, _)| kept.contains(name)));
        record.cause = problem.cause;
    }
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    // Responses may have health data, so no cache may store them, unless they say that they have none.
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if record.app.config.ui == Switch::On {
        // The page, which people give their passwords to, has the same origin as what others have stored, such as the HTML of a
        // Binary. A browser that is shown it does nothing for it.
        let policy = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; sandbox");
        response.headers_mut().entry(header::CONTENT_SECURITY_POLICY).or_insert(policy);
        response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    record.status = Some(response.status());
    // hyper does not poll an empty body, nor a body with a length after its last byte.
    record.is_whole = response.body().is_end_stream();
    record.length =
        response.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    response.map(|body| Body::new(Observed { body, record }))
}

/// Checks that there is one valid Host header, which HTTP/1.1 requires and responses use (RFC 9112, 3.2).
///
/// # Errors
/// 400.
fn check_host(request: &Request) -> Result<(), Problem> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if request.version() < Version::HTTP_11 => Ok(()),
        (None, _) => Err(Problem::bad_request("the Host header is missing")),
        (Some(_), Some(_)) => Err(Problem::bad_request("there are two Host headers")),
        (Some(host), None) if host.to_str().is_ok_and(is_host) => Ok(()),
        (Some(_), None) => Err(Problem::bad_request("the Host header is not a host, or a host:port")),
    }
}

/// Refuses transfer codings other than chunked: their bytes would be misread (RFC 9112, 6.1). hyper has already refused
/// those that do not end with chunked.
///
/// # Errors
/// 501.
fn check_coding(headers: &HeaderMap) -> Result<(), Problem> {
    let all = headers.get_all(header::TRANSFER_ENCODING);
    if all.iter().all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        return Ok(());
    }
    let why = "this Transfer-Encoding is not known here; a body may be chunked, and have a Content-Encoding of gzip";
    Err(Problem::new(StatusCode::NOT_IMPLEMENTED, why))
}

/// `fhir.example.org`, `10.0.0.1:8080`, `[::1]:8080`.
fn is_host(text: &str) -> bool {
    let (name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) if address.parse::<Ipv6Addr>().is_ok() => (None, rest),
        Some(_) => return false,
        None => {
            let at = text.find(':').unwrap_or(text.len());
            (Some(&text[..at]), &text[at..])
        }
    };
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    };
    name.is_none_or(is_name)
        && (port.is_empty()
            || port
                .strip_prefix(':')
                .is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok()))
}

/// The problem that a handler returned, or that axum found before it called one.
fn problem_of(response: &Response) -> Option<Problem> {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() || response.extensions().get::<Said>().is_some() {
        return None;
    }
    Some(response.extensions().get::<Problem>().cloned().unwrap_or_else(|| match status {
        StatusCode::NOT_FOUND => Problem::new(status, "there is nothing at this address"),
        StatusCode::METHOD_NOT_ALLOWED => Problem::new(status, "this address does not support this method"),
        _ => Problem::new(status, status.canonical_reason().unwrap_or("the request failed")),
    }))
}

/// A problem in the form of the API that was called: FHIR's, OAuth's, Aidbox's RPC, or that of the `/v1` endpoints.
fn told(problem: &Problem, path: &str, id: &RequestId, takes_basic: bool) -> Response {
    let (content_type, body) = if path.starts_with("/v1/") {
        let error = json!({"code": problem.issue_type(), "message": problem.message});
        ("application/json", json!({"error": error, "meta": meta(id, problem.status)}))
    } else if path == login::PATH {
        let is_ours = problem.status.is_server_error();
        let code = problem.code.unwrap_or(if is_ours { "server_error" } else { "invalid_request" });
        ("application/json", json!({"error": code, "error_description": problem.message}))
    } else if path == "/rpc" {
        let mut error = json!({"message": problem.message, "code": problem.issue_type()});
        if let Some(parameter) = &problem.parameter {
            error["parameter"] = parameter.as_str().into();
        }
        ("application/json", json!({"error": error}))
    } else {
        let mut issue = json!({"severity": "error", "code": problem.issue_type(), "diagnostics": problem.message});
        if let Some(parameter) = &problem.parameter {
            issue["expression"] = json!([parameter]);
        }
        ("application/fhir+json", json!({"resourceType": "OperationOutcome", "issue": [issue]}))
    };
    let mut response = (problem.status, [(header::CONTENT_TYPE, content_type)], body.to_string()).into_response();
    let headers = response.headers_mut();
    match problem.status {
        StatusCode::UNAUTHORIZED => {
            if takes_basic {
                headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"fhir_bulk\""));
            }
            headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"fhir_bulk\""));
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(problem.retry_after.unwrap_or(5)));
        }
        _ => {}
    }
    response
}

/// A request until the end of its response. Drop writes the log line.
struct Record {
    app: Arc<App>,
    span: Span,
    method: Method,
    route: String,
    start: Instant,
    /// `None` until there is a response.
    status: Option<StatusCode>,
    bytes: u64,
    /// The length in the response's head.
    length: Option<u64>,
    is_whole: bool,
    cause: Option<Box<str>>,
}

impl Record {
    fn new(app: Arc<App>, request: &Request, span: Span) -> Record {
        app.metrics.begun();
        let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
        let (method, start) = (request.method().clone(), Instant::now());
        Record { app, span, method, route, start, status: None, bytes: 0, length: None, is_whole: false, cause: None }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let time = self.start.elapsed();
        // 499 is nginx's status for a client that did not wait for its response.
        let status = self.status.map_or(499, |status| status.as_u16());
        let labels = (metrics::label(self.method.as_str()), std::mem::take(&mut self.route), status);
        self.app.metrics.ended(labels, self.bytes, time, !self.is_whole);
        let _in_span = self.span.enter();
        let (bytes, seconds) = (self.bytes, time.as_secs_f64());
        let cause = self.cause.as_deref().map(field::display);
        match (self.is_whole, status) {
            (true, ..500) => tracing::info!(status, bytes, seconds, cause, "answered"),
            (true, _) => tracing::error!(status, bytes, seconds, cause, "answered"),
            (false, _) if self.cause.is_some() => tracing::error!(status, bytes, seconds, cause, "broke off"),
            (false, _) => tracing::info!(status, bytes, seconds, "the client went away"),
        }
    }
}

/// A body whose bytes are counted.
struct Observed {
    body: Body,
    record: Record,
}

impl HttpBody for Observed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Observed { body, record } = &mut *self;
        let _in_span = record.span.enter();
        let frame = std::task::ready!(Pin::new(&mut *body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => record.bytes += frame.data_ref().map_or(0, |data| data.len() as u64),
            Some(Err(error)) => record.cause = Some(printable(&error.to_string()).into()),
            None => record.is_whole = true,
        }
        record.is_whole |= body.is_end_stream() || record.length.is_some_and(|length| record.bytes >= length);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_at_most_a_port() {
        for good in ["fhir.example.org", "localhost:8080", "10.0.0.1:1", "[::1]", "[2001:db8::1]:443", "my_host"] {
            assert!(is_host(good), "{good}");
        }
        for bad in [
            "", ":80", "a:", "a:b", "a:99999", "a:+1", "u@a", "a/b", "a b", "a?x", "::1", "[::1", "[a]", "[::1]x",
            "a,b", "é",
        ] {
            assert!(!is_host(bad), "{bad}");
        }
    }
}
