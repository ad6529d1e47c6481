//! `$bulk-submit` and `$bulk-submit-status` of the ballot of HL7's Bulk Data Access, version 4: the side of the Data Consumer.

use std::time::Instant;

use axum::body::Body;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use tokio_postgres::types::Type;

use super::exports::{FHIR_JSON, PREFERENCE_APPLIED, RETRY_AFTER, SEPARATE, with_status};
use crate::database::session::Access;
use crate::error::{Blame, Problem, Result};
use crate::request::call::Call;
use crate::request::kick_off::Handling;
use crate::request::parse::{JSON, Object};
use crate::response::{respond, stream};

const OUTCOMES: &str = "$bulk-submit-outcomes";
const STATUS: &str = "$bulk-submit-status";
/// The media type of files of resources.
const FHIR_NDJSON: &str = "application/fhir+ndjson";
/// The members of a status that a manifest has.
const MEMBERS: [&str; 5] = ["submissionId", "manifestType", "transactionTime", "requiresAccessToken", "outcome"];

/// Takes a request about a submission, from a submitter in the file of submitters.
pub async fn submit(mut call: Call, body: Body) -> Result<Response> {
    let mut request = call.object(body).await?;
    call.answers(&[FHIR_JSON, JSON[0]])?;
    let (system, value) = submitter(&request)?;
    let submitters = call.app.submitters();
    let sources = submitters.sources(&system, &value, call.role()).ok_or_else(|| {
        Problem::new(StatusCode::FORBIDDEN, "this submitter is not known here, or not for your role").at("submitter")
    })?;
    request.insert("allowedSources", sources);
    request.insert("lenient", handling(&call) == Handling::Lenient);
    let request = request.text();
    let session = call.begin(Access::ReadWrite, Blame::Request).await?;
    let answer = session.value("bulk_submit($1::pg_catalog.jsonb)", &[(&request, Type::TEXT)]).await;
    let answer = answer.map_err(located)?;
    session.commit().await?;
    let status: Value = serde_json::from_str(&answer).map_err(Problem::unavailable)?;
    call.app.metrics.job_started("submission");
    Ok(respond(StatusCode::OK, FHIR_JSON, accepted(&status).to_string()))
}

/// Asks for a submission's status, which is polled at another address.
pub async fn ask(mut call: Call, body: Body) -> Result<Response> {
    let mut request = call.object(body).await?;
    call.answers(&[FHIR_JSON, JSON[0]])?;
    if call.preference("respond-async").is_none() {
        return Err(Problem::bad_request("a status is polled: send Prefer: respond-async"));
    }
    if request.contains("id") {
        return Err(Problem::parameter("id", "is unknown"));
    }
    request.insert("lenient", handling(&call) == Handling::Lenient);
    let status = status_of(&call, &request.text()).await?;
    let is_separate = call.preference(SEPARATE).is_some();
    let said = if is_separate { format!("?{SEPARATE}=true") } else { String::new() };
    let url = call.url(&["fhir", STATUS, status["id"].as_str().unwrap_or_default()]) + &said;
    let location = (header::CONTENT_LOCATION, url);
    if !is_separate {
        return Ok((StatusCode::ACCEPTED, [location]).into_response());
    }
    let applied = (PREFERENCE_APPLIED, format!("respond-async, {SEPARATE}"));
    Ok((StatusCode::ACCEPTED, [location, applied]).into_response())
}

/// Returns 202 until the submission is over, then its manifest. With a separate status, 200, and the status in a header.
pub async fn poll(mut call: Call, Path(id): Path<String>) -> Result<Response> {
    let is_separate = call.parameters.flag(SEPARATE)?;
    call.answers(JSON)?;
    let mut status = status_of(&call, &json!({"id": id}).to_string()).await?;
    // After the caller is authenticated.
    call.app.polls.count(&id, Instant::now())?;
    let (code, response) = match status["status"].as_str() {
        Some("completed" | "stopped") => {
            let manifest = manifest(&call, &mut status);
            (StatusCode::OK, respond(StatusCode::OK, JSON[0], manifest.to_string()))
        }
        Some("failed") => {
            let why = status["error"].as_str().unwrap_or("the submission failed").to_owned();
            if !is_separate {
                return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, why));
            }
            let issue = json!([{"severity": "error", "code": "exception", "diagnostics": why}]);
            let outcome = json!({"resourceType": "OperationOutcome", "issue": issue}).to_string();
            (StatusCode::INTERNAL_SERVER_ERROR, respond(StatusCode::OK, FHIR_JSON, outcome))
        }
        at => {
            let (fetched, all) = (&status["manifestsFetched"], &status["manifests"]);
            let progress = match at {
                Some("in-progress") => format!("in-progress, {fetched} of {all} manifests fetched"),
                _ if fetched == all => format!("{} resources applied", status["total"]),
                _ => format!("{fetched} of {all} manifests fetched"),
            };
            let headers = [("x-progress", progress.as_str()), ("retry-after", RETRY_AFTER)];
            let code = if is_separate { StatusCode::OK } else { StatusCode::ACCEPTED };
            (StatusCode::ACCEPTED, (code, headers).into_response())
        }
    };
    Ok(if is_separate { with_status(code, response) } else { response })
}

/// Deletes the request for a status. The submission goes on.
pub async fn forget(call: Call, Path(id): Path<String>) -> Result<Response> {
    let session = call.begin(Access::ReadWrite, Blame::Request).await?;
    let deleted = session.value("bulk_submit_status_cancel($1)", &[(&id, Type::TEXT)]).await?;
    session.commit().await?;
    match deleted.as_str() {
        "true" => Ok(StatusCode::ACCEPTED.into_response()),
        _ => Err(Problem::new(StatusCode::NOT_FOUND, "there is no such status")),
    }
}

/// Returns the OperationOutcomes of a manifest.
pub async fn outcomes(mut call: Call, Path((id, file)): Path<(String, String)>) -> Result<Response> {
    call.answers(&[FHIR_NDJSON, "application/ndjson"])?;
    call.streams()?;
    let url = format!("{id}/{file}");
    let session = call.begin(Access::ReadOnly, Blame::Request).await?;
    let pieces = session.pieces("bulk_submit_outcomes($1)", &[(&url, Type::TEXT)]).await?;
    Ok(stream(&call, FHIR_NDJSON, false, pieces))
}

fn handling(call: &Call) -> Handling {
    Handling::of(call.preference("handling").as_deref())
}

/// The system and the value of a request's submitter.
///
/// # Errors
/// 400 if there is none.
fn submitter(request: &Object) -> Result<(String, String)> {
    let of_parameters = |parameters: Value| {
        let is_submitter = |parameter: &&Value| parameter["name"] == "submitter";
        parameters
            .as_array()
            .and_then(|all| all.iter().find(is_submitter))
            .map(|found| found["valueIdentifier"].clone())
    };
    let found = match request.contains("resourceType") {
        true => request.get("parameter")?.and_then(of_parameters),
        false => request.get("submitter")?,
    };
    let found = found.unwrap_or_default();
    let text = |name: &str| found[name].as_str().map(str::to_owned);
    let value = text("value").ok_or_else(|| Problem::parameter("submitter", "is not an Identifier with a value"))?;
    Ok((text("system").unwrap_or_default(), value))
}

async fn status_of(call: &Call, request: &str) -> Result<Value> {
    // It also starts workers, if there are none.
    let session = call.begin(Access::ReadWrite, Blame::Request).await?;
    let status = session.value("bulk_submit_status($1::pg_catalog.jsonb)", &[(&request, Type::TEXT)]).await;
    let status = status.map_err(located)?;
    session.commit().await?;
    serde_json::from_str(&status).map_err(Problem::unavailable)
}

/// The OperationOutcome of a request that was accepted.
fn accepted(status: &Value) -> Value {
    let text = format!(
        "submission {} is {}; manifests: {}",
        status["submissionId"],
        status["status"].as_str().unwrap_or_default(),
        status["manifests"]
    );
    let mut issues = vec![json!({"severity": "information", "code": "informational", "details": {"text": text}})];
    for name in status["ignored"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        issues.push(json!({"severity": "warning", "code": "not-supported", "expression": [name],
            "details": {"text": format!("{name} is ignored")}}));
    }
    json!({"resourceType": "OperationOutcome", "issue": issues})
}

/// The manifest of a status: where the outcomes are at this server.
fn manifest(call: &Call, status: &mut Value) -> Value {
    for outcome in status["outcome"].as_array_mut().into_iter().flatten() {
        let path = outcome["url"].as_str().unwrap_or_default().to_owned();
        let path: Vec<&str> = ["fhir", OUTCOMES].into_iter().chain(path.split('/')).collect();
        outcome["url"] = call.url(&path).into();
    }
    MEMBERS.iter().map(|name| ((*name).to_owned(), status[*name].take())).collect::<Map<_, _>>().into()
}

/// Adds what an error is about, and corrects the status of those that SQLSTATE alone does not tell apart.
fn located(problem: Problem) -> Problem {
    let unknown = problem.message.strip_prefix("the request has the unknown member \"");
    let quoted = unknown.or_else(|| problem.message.strip_prefix('"')).and_then(|text| text.split('"').next());
    let parameter = quoted.map(str::to_owned);
    let has_ended = problem.message.starts_with("submission \"");
    let (status, issue) = match (problem.status, parameter.as_deref()) {
        (StatusCode::NOT_IMPLEMENTED, None) if has_ended => (StatusCode::CONFLICT, None),
        (_, Some("fileEncryptionKey")) => (StatusCode::NOT_IMPLEMENTED, Some("not-supported")),
        // That the value is none, and not what it leads to.
        (status, Some("oauthMetadataUrl")) if problem.message.contains("\" of the request is not an ") => {
            (status, problem.issue)
        }
        (_, Some("oauthMetadataUrl")) => (StatusCode::UNPROCESSABLE_ENTITY, Some("not-supported")),
        (status, _) if unknown.is_some() => (status, Some("not-supported")),
        (status, _) => (status, problem.issue),
    };
    Problem { status, issue, parameter, ..problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_it_is_about() {
        let of = |status: StatusCode, message: &str| {
            let found = located(Problem::new(status, message));
            (found.status.as_u16(), found.parameter, found.issue)
        };
        let (bad, off) = (StatusCode::BAD_REQUEST, StatusCode::NOT_IMPLEMENTED);
        let named = |name: &str| Some(name.to_owned());
        assert_eq!(of(off, "submission \"1\" is completed"), (409, None, None));
        assert_eq!(of(off, "fhir_bulk.export_location is not set"), (501, None, None));
        let unsupported = "\"fileEncryptionKey\" of the request is not supported: x";
        assert_eq!(of(bad, unsupported), (501, named("fileEncryptionKey"), Some("not-supported")));
        for refused in ["leads to the token endpoint x, for which", "cannot be used: x", ": could not read x: 404"] {
            let refused = format!("\"oauthMetadataUrl\" of the request {refused}");
            assert_eq!(of(bad, &refused), (422, named("oauthMetadataUrl"), Some("not-supported")), "{refused}");
        }
        let wrong = "\"oauthMetadataUrl\" of the request is not an http or https URL";
        assert_eq!(of(bad, wrong), (400, named("oauthMetadataUrl"), None));
        assert_eq!(of(bad, "\"fhirBaseUrl\" of the request is missing"), (400, named("fhirBaseUrl"), None));
        let unknown = "the request has the unknown member \"x\"";
        assert_eq!(of(bad, unknown), (400, named("x"), Some("not-supported")));
        assert_eq!(of(StatusCode::NOT_FOUND, "there is no submission \"1\""), (404, None, None));
    }
}
