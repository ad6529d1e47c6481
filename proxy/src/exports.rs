//! Exports: HL7's Bulk Data Access, the `/v1` endpoints, and the files that both give signed URLs of.

use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::Path;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use serde_json::{Map, Value, json};
use tokio_postgres::types::Type;

use crate::call::{Call, Download, Metadata};
use crate::error::{Blame, Problem, Result};
use crate::observe::{meta, timestamp};
use crate::request::{JSON, Object};
use crate::routes::{respond, stream};
use crate::session::Access;

/// What exported files are.
const FHIR_NDJSON: &str = "application/fhir+ndjson";
/// What FHIR's own answers are.
const FHIR_JSON: &str = "application/fhir+json";
/// How long signed URLs are valid.
const URL_LIFETIME: Duration = Duration::from_secs(3600);
/// How often clients should ask for a status.
const RETRY_AFTER: &str = "2";

/// The parameters of `GET /fhir/$export`.
pub async fn kick_off(mut call: Call, uri: Uri) -> Result<Response> {
    let mut request = Object::default();
    for name in ["_type", "_elements", "_outputFormat"] {
        if let Some(text) = call.parameters.text(name) {
            if text.is_empty() {
                return Err(Problem::bad_request(format!("the parameter {name} is empty")));
            }
            request.insert(name, text);
        }
    }
    for name in ["_since", "_until"] {
        if let Some(text) = call.parameters.instant(name)? {
            request.insert(name, text);
        }
    }
    let url = call.url(&[]) + uri.path_and_query().map_or("", |path| path.as_str());
    start(call, request, url).await
}

/// HEAD asks for nothing to be done, and a kick-off does something.
pub async fn no_head() -> Response {
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this address is not for this method");
    ([(header::ALLOW, "GET,POST")], problem).into_response()
}

/// The same as a Parameters resource: a part a parameter, which may repeat.
pub async fn kick_off_by_parameters(call: Call, body: Body) -> Result<Response> {
    let body = call.object(body).await?;
    if body.get("resourceType")? != Some(Value::from("Parameters")) {
        return Err(Problem::bad_request("the body is not a Parameters resource"));
    }
    let parts = match body.get("parameter")? {
        None => Vec::new(),
        Some(Value::Array(parts)) => parts,
        Some(_) => return Err(Problem::bad_request("parameter is not an array")),
    };
    let mut values = Map::new();
    for part in parts {
        let value = part.as_object().into_iter().flatten().find(|(name, _)| name.starts_with("value"));
        let (Some(name), Some((_, Value::String(value)))) = (part["name"].as_str(), value) else {
            return Err(Problem::bad_request("a parameter is not a name with a text"));
        };
        if name == "request" {
            return Err(Problem::bad_request("the parameter request is not known here"));
        }
        if value.is_empty() {
            return Err(Problem::bad_request(format!("the parameter {name} is empty")));
        }
        match values.get_mut(name) {
            Some(Value::String(before)) => *before += &format!(",{value}"),
            _ => drop(values.insert(name.to_owned(), value.as_str().into())),
        }
    }
    let mut request = Object::default();
    values.into_iter().for_each(|(name, value)| request.insert(&name, value));
    let url = call.url(&["fhir", "$export"]);
    start(call, request, url).await
}

async fn start(mut call: Call, mut request: Object, url: String) -> Result<Response> {
    call.answers(&[FHIR_JSON, JSON[0]])?;
    if !call.prefers("respond-async") {
        return Err(Problem::bad_request("exports take time: ask with Prefer: respond-async"));
    }
    request.insert("request", url);
    let id = export(&call, &request).await?;
    let location = call.url(&["fhir", "$export-status", &id]);
    Ok((StatusCode::ACCEPTED, [(header::CONTENT_LOCATION, location)]).into_response())
}

async fn export(call: &Call, request: &Object) -> Result<String> {
    let request = request.text();
    let session = call.begin(Access::ReadWrite, Blame::Request).await?;
    let id = session.value("bulk_export($1::pg_catalog.jsonb)", &[(&request, Type::TEXT)]).await?;
    session.commit().await?;
    call.app.metrics.job_started("export");
    Ok(id)
}

async fn status_of(call: &Call, id: &String) -> Result<Value> {
    let session = call.begin(Access::ReadWrite, Blame::Request).await?;
    let status = session.value("bulk_export_status($1)", &[(id, Type::TEXT)]).await?;
    session.commit().await?;
    serde_json::from_str(&status).map_err(|error| Problem::unavailable(format!("bulk_export_status: {error}")))
}

/// 202 while it runs, then the manifest.
pub async fn status(mut call: Call, Path(id): Path<String>) -> Result<Response> {
    call.answers(JSON)?;
    let mut status = status_of(&call, &id).await?;
    match status["status"].as_str() {
        // One of `/v1` has a single file and no manifest: its status is there.
        Some("completed") if status["output"].is_null() => {
            return Err(Problem::new(StatusCode::NOT_FOUND, "there is no such export here"));
        }
        Some("completed") => {}
        Some("failed") => {
            let why = status["error"].as_str().unwrap_or("the export failed").to_owned();
            return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, why));
        }
        Some("cancelled") => return Err(Problem::new(StatusCode::NOT_FOUND, "this export was deleted")),
        at => {
            let progress = match &status["progress"]["resources"] {
                Value::Number(count) => format!("{count} resources"),
                _ => at.unwrap_or_default().to_owned(),
            };
            let headers = [("x-progress", progress.as_str()), ("retry-after", RETRY_AFTER)];
            return Ok((StatusCode::ACCEPTED, headers).into_response());
        }
    }
    let members = ["transactionTime", "request", "requiresAccessToken", "output", "deleted", "error"];
    let manifest: Map<_, _> = members.iter().map(|name| ((*name).to_owned(), status[*name].take())).collect();
    let expires = httpdate::fmt_http_date(SystemTime::now() + URL_LIFETIME);
    let manifest = respond(StatusCode::OK, JSON[0], Value::Object(manifest).to_string());
    Ok(([(header::EXPIRES, expires)], manifest).into_response())
}

/// Ends an export, and removes its files.
pub async fn delete(call: Call, Path(id): Path<String>) -> Result<Response> {
    let session = call.begin(Access::ReadWrite, Blame::Request).await?;
    let deleted = session.value("bulk_export_cancel($1)", &[(&id, Type::TEXT)]).await?;
    session.commit().await?;
    match deleted.as_str() {
        "true" => Ok(StatusCode::ACCEPTED.into_response()),
        _ => Err(Problem::new(StatusCode::NOT_FOUND, "there is no such export")),
    }
}

/// All types in one file: `{resourceTypes, since}`.
pub async fn start_single(mut call: Call, body: Body) -> Result<Response> {
    let request = call.object(body).await?;
    call.answers(JSON)?;
    if !request.contains("resourceTypes") {
        return Err(Problem::bad_request("resourceTypes is missing"));
    }
    let id = export(&call, &request).await?;
    let data = json!({"jobId": id, "status": "pending", "message": "Export job started"});
    Ok(with_meta(&call, StatusCode::ACCEPTED, data))
}

/// Where such an export is, with the URL of its file when it is done.
pub async fn job(mut call: Call, Path(id): Path<String>) -> Result<Response> {
    call.answers(JSON)?;
    let data = status_of(&call, &id).await?;
    Ok(with_meta(&call, StatusCode::OK, data))
}

fn with_meta(call: &Call, code: StatusCode, data: Value) -> Response {
    let (limit, remaining) = call.limits();
    let mut meta = meta(&call.id, code);
    meta["rateLimit"] = json!({"limit": limit, "remaining": remaining});
    respond(code, JSON[0], json!({"data": data, "meta": meta}).to_string())
}

/// A file, for whoever has its signed URL.
pub async fn file(Download(call, address): Download, uri: Uri) -> Result<Response> {
    call.streams()?;
    let url = uri.to_string();
    let session = call.begin(Access::ReadOnly, Blame::Request).await?;
    let pieces = session.pieces("bulk_export_file($1)", &[(&url, Type::TEXT)]).await?;
    // Counted when the signature has been found to be good: who knows no more than a file's path takes no place of those who
    // may have it. It runs for as long as its body is there.
    let running = call.app.downloads.begin(uri.path(), address)?;
    let pieces = Box::pin(pieces.inspect(move |_| _ = &running));
    Ok(stream(&call, FHIR_NDJSON, uri.path().ends_with(".gz"), pieces))
}

/// What there is, as FHIR tells it: each type that the caller may read can be exported.
pub async fn metadata(Metadata(mut call): Metadata) -> Result<Response> {
    // Clients may say what they would get anyway. A `+` of a query string is a space.
    match call.parameters.text("_format").as_deref() {
        None | Some("json" | "application/json" | "application/fhir+json" | "application/fhir json") => {}
        Some(_) => {
            return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "the answer would be JSON, which _format rules out"));
        }
    }
    match call.parameters.text("mode").as_deref() {
        None | Some("full" | "normative" | "terminology") => {}
        Some(_) => return Err(Problem::bad_request("the parameter mode is full, normative or terminology")),
    }
    call.answers(JSON)?;
    let session = call.begin(Access::ReadOnly, Blame::Request).await?;
    let types = session.values("bulk_resource_types()").await?;
    let version = session.setting("fhir_bulk.fhir_version").await?;
    session.commit().await?;
    let export =
        json!([{"name": "export", "definition": "http://hl7.org/fhir/uv/bulkdata/OperationDefinition/export"}]);
    let resources: Vec<Value> = types.iter().map(|name| json!({"type": name})).collect();
    let statement = json!({
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": timestamp(),
        "kind": "instance",
        "instantiates": ["http://hl7.org/fhir/uv/bulkdata/CapabilityStatement/bulk-data"],
        "software": {"name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION")},
        "implementation": {"description": "Bulk FHIR from PostgreSQL", "url": call.url(&["fhir"])},
        "fhirVersion": version,
        "format": ["json"],
        "rest": [{"mode": "server", "resource": resources, "operation": export}],
    });
    Ok(respond(StatusCode::OK, FHIR_JSON, statement.to_string()))
}
