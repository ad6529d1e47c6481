//! Exports: HL7's Bulk Data Access and the `/v1` endpoints.

use std::time::{Duration, Instant, SystemTime};

use axum::body::Body;
use axum::extract::Path;
use axum::http::{HeaderName, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use fhir_bulk_codec::fhir::Version;
use serde_json::{Value, json};
use tokio_postgres::types::Type;

use super::smart;
use crate::database::session::Access;
use crate::error::{Blame, Problem, Result};
use crate::limits::polls::Polls;
use crate::request::call::{Call, Metadata};
use crate::request::kick_off::{self, Handling};
use crate::request::need;
use crate::request::parse::{JSON, Object};
use crate::response::{meta, respond, timestamp};
use crate::routes::manifests::{Shape, manifest};
use crate::routes::pages;
use crate::smart::scopes::{Permissions, Scopes};

/// The media type of FHIR's JSON.
pub const FHIR_JSON: &str = "application/fhir+json";
/// The preference for a status of the export apart from the poll's, and the parameter of its address.
pub const SEPARATE: &str = "separate-export-status";
/// The parameter of a status's address that says which version of the manifest the kick-off asked for.
const MANIFEST: &str = "manifest";
const V4: &str = "v4";
/// The parameter of a status's address that says which page of the manifest it has; without it the first.
const PAGE: &str = "page";
/// Says which preferences a response heeds.
pub const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const EXPORT_STATUS: HeaderName = HeaderName::from_static("x-export-status");
/// How long signed URLs are valid.
const URL_LIFETIME: Duration = Duration::from_secs(3600);
/// How long clients should wait between polls of a status.
pub const RETRY_AFTER: &str = "2";

/// Whose resources an address exports.
pub enum Level {
    System,
    Patient,
    /// The members of the Group with this id.
    Group(String),
}

impl Level {
    /// The URL of an operation at this level.
    fn url(&self, call: &Call, operation: &str) -> String {
        match self {
            Level::System => call.url(&["fhir", operation]),
            Level::Patient => call.url(&["fhir", "Patient", operation]),
            Level::Group(id) => call.url(&["fhir", "Group", id, operation]),
        }
    }
}

/// Starts an export with the parameters of a URL.
pub async fn kick_off(mut call: Call, level: Level, uri: Uri) -> Result<Response> {
    let handling = handling(&call);
    let request = kick_off::of_query(&mut call.parameters, handling)?;
    let url = call.url(&[]) + uri.path_and_query().map_or("", |path| path.as_str());
    start(call, level, request, url, Shape::Stu3).await
}

/// Refuses HEAD, which must not start an export.
pub async fn no_head() -> Response {
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this address does not support this method");
    ([(header::ALLOW, "GET,POST")], problem).into_response()
}

/// Starts an export with a Parameters resource.
pub async fn kick_off_by_parameters(call: Call, level: Level, body: Body) -> Result<Response> {
    let request = kick_off::of_resource(&call.object(body).await?, handling(&call))?;
    let url = level.url(&call, "$export");
    start(call, level, request, url, Shape::Stu3).await
}

/// Starts an export with a Parameters resource, in the version of the ballot: a list is a repeated parameter.
pub async fn kick_off_v4(call: Call, level: Level, body: Body) -> Result<Response> {
    let resource = call.object(body).await?;
    kick_off::has_no_joined_lists(&resource)?;
    let mut request = kick_off::of_resource(&resource, handling(&call))?;
    request.insert("fileSizes", true);
    let url = level.url(&call, "$export-v4");
    start(call, level, request, url, Shape::V4).await
}

fn handling(call: &Call) -> Handling {
    Handling::of(call.preference("handling").as_deref())
}

async fn start(mut call: Call, level: Level, mut request: Object, url: String, shape: Shape) -> Result<Response> {
    call.answers(&[FHIR_JSON, JSON[0]]).map_err(kick_off::unsupported)?;
    if call.preference("respond-async").is_none() {
        return Err(Problem::bad_request("an export runs in the background: send Prefer: respond-async"));
    }
    request.insert("request", url);
    if let Some(scopes) = call.narrow() {
        narrow(&scopes, &mut request)?;
    }
    match level {
        Level::System => {}
        Level::Patient => request.insert("level", "patient"),
        Level::Group(id) => {
            request.insert("level", "group");
            request.insert("group", id);
        }
    }
    if handling(&call) == Handling::Lenient {
        request.insert("lenient", true);
    }
    let id = export(&call, &request, Blame::Request).await.map_err(kick_off::located)?;
    let is_separate = call.preference(SEPARATE).is_some();
    let location = (header::CONTENT_LOCATION, status_url(&call, &id, shape, is_separate, 1));
    if !is_separate {
        return Ok((StatusCode::ACCEPTED, [location]).into_response());
    }
    let applied = (PREFERENCE_APPLIED, format!("respond-async, {SEPARATE}"));
    Ok((StatusCode::ACCEPTED, [location, applied]).into_response())
}

/// The address of a status, which says what its polls were promised.
fn status_url(call: &Call, id: &str, shape: Shape, is_separate: bool, page: usize) -> String {
    let said = [
        (shape == Shape::V4).then(|| format!("{MANIFEST}={V4}")),
        is_separate.then(|| format!("{SEPARATE}=true")),
        (page > 1).then(|| format!("{PAGE}={page}")),
    ];
    let said: Vec<String> = said.into_iter().flatten().collect();
    call.url(&["fhir", "$export-status", id]) + if said.is_empty() { "" } else { "?" } + &said.join("&")
}

/// Narrows an export to the types that a token's scopes permit. A Group needs no scope of its own: it chooses patients and is
/// not exported, and clients ask for scopes of what they want to get.
fn narrow(scopes: &Scopes, request: &mut Object) -> Result<()> {
    if request.contains("patient") {
        need::require(scopes, "Patient", Permissions::READ)?;
    }
    if let Some(types) = scopes.types(Permissions::READ_ALL) {
        request.insert("allowedTypes", types);
    }
    Ok(())
}

/// Starts an export. Returns its id.
///
/// # Errors
/// Those of `bulk_export`.
pub async fn export(call: &Call, request: &Object, blame: Blame) -> Result<String> {
    let request = request.text();
    let session = call.begin(Access::ReadWrite, blame).await?;
    let id = session.value("bulk_export($1::pg_catalog.jsonb)", &[(&request, Type::TEXT)]).await?;
    session.commit().await?;
    call.app.metrics.job_started("export");
    Ok(id)
}

/// Reads a status. Counts the poll after the caller is authenticated.
///
/// # Errors
/// Those of `bulk_export_status`; 429 for too many polls.
pub async fn status_of(call: &Call, id: &String, polls: Option<&Polls>) -> Result<Value> {
    let session = call.begin(Access::ReadWrite, Blame::Request).await?;
    if let Some(polls) = polls {
        polls.count(id, Instant::now())?;
    }
    let status = session.value("bulk_export_status($1)", &[(id, Type::TEXT)]).await?;
    session.commit().await?;
    serde_json::from_str(&status).map_err(|error| Problem::unavailable(format!("bulk_export_status: {error}")))
}

/// Returns 202 while the export runs, then the manifest. With a separate status, 200, and the status in a header.
pub async fn status(mut call: Call, Path(id): Path<String>) -> Result<Response> {
    let is_separate = call.parameters.flag(SEPARATE)?;
    let number = page_number(&mut call)?;
    let shape = match call.parameters.text(MANIFEST).as_deref() {
        None => Shape::Stu3,
        Some(V4) => Shape::V4,
        Some(_) => return Err(Problem::parameter(MANIFEST, &format!("must be {V4}"))),
    };
    call.answers(JSON)?;
    let mut status = status_of(&call, &id, Some(&call.app.polls)).await?;
    if !status["format"].is_null() {
        // An export of tables, whose status is at `$sql-export-status`.
        return Err(Problem::new(StatusCode::NOT_FOUND, "there is no such export here"));
    }
    let next = || status_url(&call, &id, shape, is_separate, number + 1);
    match status["status"].as_str() {
        // An export of `/v1` has a single file and no manifest; its status is at `/v1`.
        Some("completed") if status["output"].is_null() => {
            return Err(Problem::new(StatusCode::NOT_FOUND, "there is no such export here"));
        }
        Some("completed") => {
            if !pages::keep(&mut status, number, true, next) {
                return Err(Problem::new(StatusCode::NOT_FOUND, "this export's manifest has no such page"));
            }
        }
        Some("failed") => {
            let why = status["error"].as_str().unwrap_or("the export failed").to_owned();
            if is_separate {
                let issue = json!([{"severity": "error", "code": "exception", "diagnostics": why}]);
                let outcome = json!({"resourceType": "OperationOutcome", "issue": issue}).to_string();
                let code = StatusCode::INTERNAL_SERVER_ERROR;
                return Ok(with_status(code, respond(StatusCode::OK, FHIR_JSON, outcome)));
            }
            return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, why));
        }
        Some("cancelled") => return Err(Problem::new(StatusCode::NOT_FOUND, "this export was deleted")),
        at => {
            let progress = match &status["progress"]["resources"] {
                Value::Number(count) => format!("{count} resources"),
                _ => at.unwrap_or_default().to_owned(),
            };
            let headers = [("x-progress", progress.as_str()), ("retry-after", RETRY_AFTER)];
            let code = if is_separate { StatusCode::OK } else { StatusCode::ACCEPTED };
            let response = if pages::keep(&mut status, number, false, next) {
                (headers, respond(code, JSON[0], manifest(status, shape).to_string())).into_response()
            } else {
                (code, headers).into_response()
            };
            return Ok(if is_separate { with_status(StatusCode::ACCEPTED, response) } else { response });
        }
    }
    let expires = httpdate::fmt_http_date(SystemTime::now() + URL_LIFETIME);
    let manifest = respond(StatusCode::OK, JSON[0], manifest(status, shape).to_string());
    let response = ([(header::EXPIRES, expires)], manifest).into_response();
    Ok(if is_separate { with_status(StatusCode::OK, response) } else { response })
}

fn page_number(call: &mut Call) -> Result<usize> {
    let Some(text) = call.parameters.text(PAGE) else { return Ok(1) };
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| Problem::parameter(PAGE, "must be a number from 1"))
}

/// A response with the export's own status in a header.
pub fn with_status(status: StatusCode, response: Response) -> Response {
    ([(EXPORT_STATUS, status.to_string())], response).into_response()
}

/// Cancels an export, and removes its files.
pub async fn delete(call: Call, Path(id): Path<String>) -> Result<Response> {
    let session = call.begin(Access::ReadWrite, Blame::Request).await?;
    let deleted = session.value("bulk_export_cancel($1)", &[(&id, Type::TEXT)]).await?;
    session.commit().await?;
    match deleted.as_str() {
        "true" => Ok(StatusCode::ACCEPTED.into_response()),
        _ => Err(Problem::new(StatusCode::NOT_FOUND, "there is no such export")),
    }
}

/// Starts an export of all types into one file: `{resourceTypes, since}`.
pub async fn start_single(mut call: Call, body: Body) -> Result<Response> {
    let request = call.object(body).await?;
    call.answers(JSON)?;
    if !request.contains("resourceTypes") {
        return Err(Problem::bad_request("resourceTypes is missing"));
    }
    let id = export(&call, &request, Blame::Request).await?;
    let data = json!({"jobId": id, "status": "pending", "message": "Export job started"});
    Ok(with_meta(&call, StatusCode::ACCEPTED, data))
}

/// Returns the status of such an export, with the URL of its file when it is complete.
pub async fn job(mut call: Call, Path(id): Path<String>) -> Result<Response> {
    call.answers(JSON)?;
    let data = status_of(&call, &id, None).await?;
    Ok(with_meta(&call, StatusCode::OK, data))
}

fn with_meta(call: &Call, code: StatusCode, data: Value) -> Response {
    let (limit, remaining) = call.limits();
    let mut meta = meta(&call.id, code);
    meta["rateLimit"] = json!({"limit": limit, "remaining": remaining});
    respond(code, JSON[0], json!({"data": data, "meta": meta}).to_string())
}

/// Returns resources by their identifiers.
pub async fn identifiers(mut call: Call, body: Body) -> Result<Response> {
    let request = call.object(body).await?.text();
    call.answers(JSON)?;
    let session = call.begin(Access::ReadOnly, Blame::Request).await?;
    let answer = session.value("bulk_export_identifiers($1::pg_catalog.jsonb)", &[(&request, Type::TEXT)]).await?;
    session.commit().await?;
    Ok(respond(StatusCode::OK, JSON[0], answer))
}

/// Returns the CapabilityStatement, with the types that the caller may read and export.
pub async fn metadata(Metadata(mut call): Metadata) -> Result<Response> {
    // Clients may request the format that is the default anyway. A `+` in a query string is a space.
    match call.parameters.text("_format").as_deref() {
        None | Some("json" | "application/json" | "application/fhir+json" | "application/fhir json") => {}
        Some(_) => {
            return Err(Problem::new(
                StatusCode::NOT_ACCEPTABLE,
                "the response would be JSON, which _format does not allow",
            ));
        }
    }
    match call.parameters.text("mode").as_deref() {
        None | Some("full" | "normative" | "terminology") => {}
        Some(_) => return Err(Problem::bad_request("the parameter mode must be full, normative or terminology")),
    }
    call.answers(JSON)?;
    let scopes = call.narrow();
    let session = call.begin(Access::ReadOnly, Blame::Request).await?;
    let mut types = session.values("bulk_resource_types()").await?;
    types.retain(|name| scopes.as_ref().is_none_or(|scopes| scopes.permit(name, Permissions::READ)));
    let version = session.setting("fhir_bulk.fhir_version").await?;
    let parameters = session.objects("bulk_search_parameters()").await?;
    session.commit().await?;
    let operation = |name: &str| {
        let definition = format!("http://hl7.org/fhir/uv/bulkdata/OperationDefinition/{name}");
        let of_v4 = format!("{definition}|4.0.0");
        json!([{"name": "export", "definition": definition}, {"name": "export-v4", "definition": of_v4}])
    };
    // Custom types can be exported, too, but a CapabilityStatement may name only FHIR's types.
    let is_fhirs = |name: &&String| Version::of_number(&version).is_some_and(|fhir| fhir.has_resource_type(name));
    let defined = |name: &str, definition: &str| json!({"name": name, "definition": definition});
    let sql_run = defined("sql-run", "http://hl7.org/fhir/uv/sql-on-fhir/OperationDefinition/SQLRun");
    let view_run = defined("viewdefinition-run", "http://sql-on-fhir.org/OperationDefinition/$viewdefinition-run");
    let mut sql_export = defined("sql-export", "http://hl7.org/fhir/uv/sql-on-fhir/OperationDefinition/SQLExport");
    sql_export["documentation"] = "Formats: ndjson, csv, json, parquet.".into();
    let view_export =
        defined("viewdefinition-export", "http://sql-on-fhir.org/OperationDefinition/$viewdefinition-export");
    let mut operations = operation("export");
    let operations_here = operations.as_array_mut().expect("an array");
    operations_here.extend([sql_run, view_run, sql_export, view_export]);
    if !call.app.submitters().is_empty() {
        for name in ["bulk-submit", "bulk-submit-status"] {
            let definition = format!("http://hl7.org/fhir/uv/bulkdata/OperationDefinition/{name}");
            operations_here.push(defined(name, &definition));
        }
    }
    let resource = |name: &String| {
        let of_type = parameters.iter().filter(|parameter| parameter["resource_type"] == **name);
        let parameter =
            |found: &Value| json!({"name": found["name"], "definition": found["url"], "type": found["kind"]});
        let searched: Vec<Value> = of_type.map(parameter).collect();
        let mut resource = json!({"type": name, "interaction": [{"code": "read"}], "searchParam": searched});
        match name.as_str() {
            "Patient" => resource["operation"] = operation("patient-export"),
            "Group" => resource["operation"] = operation("group-export"),
            _ => {}
        }
        resource
    };
    let resources: Vec<Value> = types.iter().filter(is_fhirs).map(resource).collect();
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
        "rest": [{
            "mode": "server",
            "security": smart::security(&call.app),
            "resource": resources,
            "operation": operations,
        }],
    });
    Ok(respond(StatusCode::OK, FHIR_JSON, statement.to_string()))
}
