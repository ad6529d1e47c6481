//! What callers of the proxy send: bodies in JSON and YAML, query strings and forms, headers, and the requests that are made of
//! them.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use fhir_bulk_proxy::request::kick_off::{self, Handling};
use fhir_bulk_proxy::request::parameters::{Parameters, form_values};
use fhir_bulk_proxy::request::parse::{self, Object};
use fhir_bulk_proxy::request::rpc::{self, Params};
use fhir_bulk_proxy::request::{sql_export, sql_run};
use fhir_bulk_proxy::smart::scopes::{Permissions, Scopes};
use serde_json::Value;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// The longest body.
const MOST: u64 = 4096;

/// Checks a query string, the value of a header, and a body, each on a line of its own; the body may have several. The first byte
/// says what kind of body it is.
pub fn check(data: &[u8]) {
    let Some((&kind, rest)) = data.split_first() else { return };
    let mut lines = rest.splitn(3, |byte| *byte == b'\n');
    let (query, value, body) = (lines.next(), lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let query = String::from_utf8_lossy(query.unwrap_or_default());
    let headers = headers(kind, value);
    queries(&query);
    if let Some(value) = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()) {
        scopes(value);
    }
    let _ = parse::accepts(&headers, parse::JSON);
    let _ = (
        parse::preference(&headers, "handling"),
        parse::coding(&headers),
        sql_run::format(&Object::default(), &headers),
    );
    let Ok(object) = object(&headers, body) else { return };
    let text = object.text();
    let read = crate::reference::parse(text.as_bytes());
    assert!(read.is_none_or(|read| read.is_ok_and(|value| value.is_object())), "{text}");
    bodies(&object, &query, &headers);
}

fn headers(kind: u8, value: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let types = ["application/json", "text/yaml", "application/fhir+json; charset=utf-8"];
    if let Some(name) = types.get(usize::from(kind % 4)) {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(name));
    }
    if let Ok(value) = HeaderValue::from_bytes(value) {
        headers.insert(header::ACCEPT, value.clone());
        headers.insert("prefer", value);
    }
    headers
}

/// A body that is there at once, so that reading it never waits.
fn object(headers: &HeaderMap, body: &[u8]) -> Result<Object, u16> {
    let reading = pin!(parse::object(headers, Body::from(body.to_vec()), MOST));
    match reading.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(object) => object.map_err(|problem| problem.status.as_u16()).inspect_err(|status| {
            assert!([400, 413, 415].contains(status), "{status}");
        }),
        Poll::Pending => panic!("a body that is there is waited for"),
    }
}

fn queries(query: &str) {
    for handling in [Handling::Strict, Handling::Lenient] {
        let mut parameters = Parameters::parse(query);
        if let Ok(request) = kick_off::of_query(&mut parameters, handling) {
            assert!(serde_json::from_str::<Value>(&request.text()).is_ok_and(|request| request.is_object()));
            let _ = parameters.finish();
        }
    }
    // A form that is written anew has the same values.
    let values: Vec<(String, String)> = form_values(query).collect();
    let encode = |text: &str| -> String {
        text.bytes().map(|byte| if byte == b' ' { "+".to_owned() } else { format!("%{byte:02X}") }).collect()
    };
    let again: Vec<String> = values.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    assert!(form_values(&again.join("&")).eq(values.iter().cloned()), "{query}");
    // All that is not taken is left.
    let mut parameters = Parameters::parse(query);
    let count: usize = parameters.rest().iter().map(|(_, texts)| texts.len()).sum();
    assert_eq!(count, values.len());
    assert!(Parameters::parse(query).finish().is_ok() == values.is_empty());
}

fn bodies(object: &Object, query: &str, headers: &HeaderMap) {
    for handling in [Handling::Strict, Handling::Lenient] {
        let _ = kick_off::of_resource(object, handling).map(|request| request.text());
    }
    let _ = kick_off::has_no_joined_lists(object);
    for operation in [sql_run::Operation::SqlRun, sql_run::Operation::ViewRun] {
        if let Ok(request) = sql_run::read(operation, &mut Parameters::parse(query), Some(object)) {
            let _ = (sql_run::has_no_subject(&request), sql_run::format(&request, headers));
        }
    }
    for operation in [sql_export::Operation::SqlExport, sql_export::Operation::ViewExport] {
        let _ = sql_export::read(operation, object, "ViewDefinition/1").map(|request| request.text());
    }
    let params = || Params::of(serde_json::from_str(&object.text()).ok());
    if let Ok((bucket, start)) = params().and_then(rpc::load_from_bucket) {
        let urls = start.request["inputs"].as_array().into_iter().flatten();
        for url in urls.map(|input| input["url"].as_str().unwrap_or_default()) {
            // No prefix leads out of its bucket.
            assert!(url.starts_with(&format!("{}/", bucket.url)), "{url} of {}", bucket.url);
        }
        assert!(bucket.id().len() < 80);
    }
    let _ = params().and_then(rpc::import_start);
    let _ = params().and_then(|params| rpc::import_id(params, true));
}

/// Scopes as they are written are read as the same; what two permit is what each permits.
fn scopes(text: &str) {
    let known = Scopes::of_known(text);
    if let Ok(all) = Scopes::of_all(text) {
        assert_eq!(all, known);
    }
    let written = known.text(text);
    assert_eq!(Scopes::of_known(&written), known, "{text} is written as {written}");
    assert_eq!(Scopes::of_known(&known.text("")), known, "{text}");
    let (half, other) = text.split_at(text.floor_char_boundary(text.len() / 2));
    let (half, other) = (Scopes::of_known(half), Scopes::of_known(other));
    let both = half.and(&other);
    for name in text.split(['/', '.', ' ']).chain(["Patient", "PATIENT"]) {
        for needed in [Permissions::READ, Permissions::READ_ALL, Permissions::LOAD] {
            let each = half.permit(name, needed) && other.permit(name, needed);
            assert_eq!(both.permit(name, needed), each, "{name} by {text}");
        }
    }
    assert_eq!(both.permit_submissions(), half.permit_submissions() && other.permit_submissions());
}
