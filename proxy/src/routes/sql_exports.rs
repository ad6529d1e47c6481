//! `$sql-export` of SQL on FHIR, and the name that it had before: views and queries as files. The status says only whether the
//! export has ended, and the result how.

use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::Path;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use fhir_bulk_codec::instant;
use serde_json::{Value, json};

use super::exports::{FHIR_JSON, RETRY_AFTER, export, status_of};
use super::runs::narrow;
use crate::error::{Blame, Problem, Result};
use crate::limits::polls::Polls;
use crate::request::call::Call;
use crate::request::kick_off::unsupported;
use crate::request::parse::JSON;
use crate::request::sql_export::{self, Operation};
use crate::response::respond;

/// How long the URLs of a result are valid.
const URL_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Starts an export with a Parameters resource.
pub async fn kick_off(mut call: Call, operation: Operation, body: Body) -> Result<Response> {
    let body = call.object(body).await?;
    let mut request = sql_export::read(operation, &body, &(call.url(&["fhir"]) + "/"))?;
    accepts(&mut call)?;
    if call.preference("respond-async").is_none() {
        return Err(required("an export runs in the background: send Prefer: respond-async"));
    }
    request.insert("request", call.url(&["fhir", operation.name()]));
    if let Some(scopes) = call.narrow() {
        narrow(&scopes, &mut request)?;
    }
    let tracking = request.get("clientTrackingId")?.unwrap_or_default();
    let id = export(&call, &request, Blame::Query).await;
    let id = id.map_err(|problem| sql_export::located(operation, problem))?;
    let location = status_url(&call, &id);
    let body = parameters(&id, &tracking, "accepted", &location, Vec::new());
    let headers = [(header::CONTENT_LOCATION, location)];
    Ok((headers, respond(StatusCode::ACCEPTED, FHIR_JSON, body.to_string())).into_response())
}

/// Refuses other methods.
pub async fn no_other(method: Method) -> Response {
    if method == Method::GET || method == Method::HEAD {
        return required("an export has to be started with POST and a Parameters resource").into_response();
    }
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this address does not support this method");
    ([(header::ALLOW, "POST")], problem).into_response()
}

fn required(message: &str) -> Problem {
    Problem { issue: Some("required"), ..Problem::bad_request(message) }
}

fn accepts(call: &mut Call) -> Result<()> {
    call.answers(&[FHIR_JSON, JSON[0]]).map_err(unsupported)
}

fn status_url(call: &Call, id: &str) -> String {
    call.url(&["fhir", "$sql-export-status", id])
}

/// Returns 202 while the export runs; 303 with the address of the result once it has ended, well or not.
pub async fn status(mut call: Call, Path(id): Path<String>) -> Result<Response> {
    accepts(&mut call)?;
    let status = status_of_tables(&call, &id, Some(&call.app.polls)).await?;
    let at = status["status"].as_str().unwrap_or_default();
    if ["completed", "failed"].contains(&at) {
        let location = [(header::LOCATION, call.url(&["fhir", "$sql-export-result", &id]))];
        return Ok((StatusCode::SEE_OTHER, location).into_response());
    }
    let progress = match &status["progress"]["rows"] {
        Value::Number(count) => format!("{count} rows"),
        _ => at.to_owned(),
    };
    let started = part("exportStartTime", "valueInstant", &status["createdAt"]);
    let (tracking, location) = (&status["clientTrackingId"], status_url(&call, &id));
    let body = parameters(&id, tracking, "in-progress", &location, vec![started]);
    let headers = [("x-progress", progress.as_str()), ("retry-after", RETRY_AFTER)];
    Ok((headers, respond(StatusCode::ACCEPTED, FHIR_JSON, body.to_string())).into_response())
}

/// Returns the result of an export that has ended: its files, or its error.
pub async fn result(mut call: Call, Path(id): Path<String>) -> Result<Response> {
    accepts(&mut call)?;
    let status = status_of_tables(&call, &id, None).await?;
    match status["status"].as_str() {
        Some("completed") => {}
        Some("failed") => {
            let why = status["error"].as_str().unwrap_or("the export failed");
            return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, why));
        }
        _ => return Err(Problem::new(StatusCode::NOT_FOUND, "the export has no result yet")),
    }
    let at = |name: &str| status[name].as_str().and_then(instant::parse);
    let seconds = at("completedAt").zip(at("createdAt")).map(|(end, start)| (end - start) / 1_000_000);
    let location = status_url(&call, &id);
    let mut more = vec![
        part("_format", "valueCode", &status["format"]),
        part("exportStartTime", "valueInstant", &status["createdAt"]),
        part("exportEndTime", "valueInstant", &status["completedAt"]),
        part("exportDuration", "valueInteger", &seconds.map_or(Value::Null, Value::from)),
    ];
    if status["request"].as_str().is_some_and(|url| url.ends_with(Operation::ViewExport.name())) {
        more.push(part("cancelUrl", "valueUri", &location.as_str().into()));
    }
    more.extend(outputs(&status["output"]));
    let body = parameters(&id, &status["clientTrackingId"], "completed", &location, more);
    let expires = [(header::EXPIRES, httpdate::fmt_http_date(SystemTime::now() + URL_LIFETIME))];
    Ok((expires, respond(StatusCode::OK, FHIR_JSON, body.to_string())).into_response())
}

/// The status of an export of tables.
async fn status_of_tables(call: &Call, id: &String, polls: Option<&Polls>) -> Result<Value> {
    let status = status_of(call, id, polls).await?;
    match status["status"].as_str() {
        // An export of resources has another status and no result.
        _ if status["format"].is_null() => Err(Problem::new(StatusCode::NOT_FOUND, "there is no such export here")),
        Some("cancelled") => Err(Problem::new(StatusCode::NOT_FOUND, "this export was deleted")),
        _ => Ok(status),
    }
}

/// One output for each subject, with all its files.
fn outputs(files: &Value) -> Vec<Value> {
    let mut outputs: Vec<(&Value, Vec<Value>)> = Vec::new();
    for file in files.as_array().into_iter().flatten() {
        let location = part("location", "valueUri", &file["url"]);
        match outputs.last_mut() {
            Some((name, locations)) if **name == file["name"] => locations.push(location),
            _ => outputs.push((&file["name"], vec![part("name", "valueString", &file["name"]), location])),
        }
    }
    outputs.into_iter().map(|(_, parts)| json!({"name": "output", "part": parts})).collect()
}

/// A Parameters resource about an export.
fn parameters(id: &str, tracking: &Value, status: &str, location: &str, more: Vec<Value>) -> Value {
    let own = [
        part("exportId", "valueString", &id.into()),
        part("clientTrackingId", "valueString", tracking),
        part("status", "valueCode", &status.into()),
        part("location", "valueUri", &location.into()),
    ];
    let has_value =
        |part: &Value| part.as_object().is_some_and(|members| members.values().all(|value| !value.is_null()));
    let all: Vec<Value> = own.into_iter().chain(more).filter(has_value).collect();
    json!({"resourceType": "Parameters", "parameter": all})
}

fn part(name: &str, value_type: &str, value: &Value) -> Value {
    json!({"name": name, value_type: value})
}
