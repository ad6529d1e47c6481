//! The endpoints. Each handler names the function that answers it, and does nothing that the function could do.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::TryStreamExt as _;
use tokio_postgres::types::Type;

use crate::App;
use crate::call::Call;
use crate::error::{Blame, Problem, Result};
use crate::exports;
use crate::files;
use crate::observe;
use crate::pool::Health;
use crate::request::{self, JSON, Kind};
use crate::session::{Access, Pieces};
use crate::upload;

const NDJSON: &[&str] = &["application/ndjson", "application/x-ndjson", "application/fhir+ndjson"];

/// All there is.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/{type}/$dump", get(dump))
        .route("/$dump-sql", post(dump_sql))
        .route("/$load", post(|call: Call, body: Body| load(call, None, false, body)))
        .route("/fhir/$load", post(|call: Call, body: Body| load(call, None, true, body)))
        .route("/{type}/$load", post(|call: Call, Path(name), body: Body| load(call, Some(name), false, body)))
        .route("/fhir/{type}/$load", post(|call: Call, Path(name), body: Body| load(call, Some(name), true, body)))
        .route("/$import", post(|call: Call, body: Body| import(call, false, body)))
        .route("/fhir/$import", post(|call: Call, body: Body| import(call, true, body)))
        .route("/BulkImportStatus/{id}", get(import_status).delete(cancel_import))
        .route("/$bulk/export", post(export_identifiers))
        .route("/api/v2/spp/$bulk/export", post(export_identifiers))
        .route("/fhir/metadata", get(exports::metadata))
        .route("/fhir/$export", get(exports::kick_off).head(exports::no_head).post(exports::kick_off_by_parameters))
        .route("/fhir/$export-status/{id}", get(exports::status).delete(exports::delete))
        .route("/v1/bulk/export", post(exports::start_single))
        .route("/v1/bulk/jobs/{id}", get(exports::job))
        .route("/export/{job}/{file}", get(files::file))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .layer(axum::middleware::from_fn_with_state(app.clone(), observe::observe))
        .with_state(app)
}

async fn dump(mut call: Call, Path(resource_type): Path<String>) -> Result<Response> {
    let (since, fhir, gzip) =
        (call.parameters.instant("_since")?, call.parameters.flag("fhir")?, call.parameters.flag("gzip")?);
    call.answers(NDJSON)?;
    call.streams()?;
    let session = call.begin(Access::ReadOnly, Blame::Request).await?;
    let pieces = session
        .pieces(
            "bulk_dump_chunks($1, $2::pg_catalog.timestamptz, $3, $4)",
            &[(&resource_type, Type::TEXT), (&since, Type::TEXT), (&fhir, Type::BOOL), (&gzip, Type::BOOL)],
        )
        .await?;
    Ok(stream(&call, NDJSON[0], gzip, pieces))
}

async fn dump_sql(mut call: Call, body: Body) -> Result<Response> {
    let mut body = call.object(body).await?;
    let query = body.take_text("query")?;
    let format = if body.contains("format") { body.take_text("format")? } else { "csv".into() };
    let gzip = body.take_flag("gzip")?;
    let content_types: &[&str] = match format.as_str() {
        "csv" => &["application/CSV", "text/csv"],
        "tsv" => &["text/tab-separated-values"],
        "json" => &JSON[..1],
        "sql" => &["application/sql"],
        "elastic-bulk" => &NDJSON[1..2],
        // An unknown one never gets as far as an answer.
        _ => &NDJSON[..1],
    };
    let content_type = content_types[0];
    call.answers(content_types)?;
    call.streams()?;
    let session = call.begin(Access::ReadOnly, Blame::Query).await?;
    let options = body.text();
    let pieces = session
        .pieces(
            "dump_sql_chunks($1, $2, $3, $4::pg_catalog.jsonb)",
            &[(&query, Type::TEXT), (&format, Type::TEXT), (&gzip, Type::BOOL), (&options, Type::TEXT)],
        )
        .await?;
    Ok(stream(&call, content_type, gzip, pieces))
}

/// The source is a URL in the body, or the body itself.
async fn load(mut call: Call, resource_type: Option<String>, fhir: bool, body: Body) -> Result<Response> {
    let is_source = request::kind(&call.headers)? == Some(Kind::Ndjson);
    let (source, options, body) = if is_source {
        (upload::SOURCE.to_owned(), upload::options(&mut call.parameters)?, Some(body))
    } else {
        let mut request = call.object(body).await?;
        let source = request.take_text("source")?;
        if source.trim_start().to_ascii_lowercase().starts_with("staged:") {
            return Err(Problem::bad_request("over HTTP the body brings the bytes itself: send them as NDJSON"));
        }
        (source, request.text(), None)
    };
    call.answers(JSON)?;
    let session = call.begin(Access::ReadWrite, Blame::Data).await?;
    if let Some(body) = body {
        upload::stage(&call, &session, body).await?;
    }
    let answer = session
        .value(
            "bulk_load($1, $2, $3, $4::pg_catalog.jsonb)",
            &[(&source, Type::TEXT), (&resource_type, Type::TEXT), (&fhir, Type::BOOL), (&options, Type::TEXT)],
        )
        .await?;
    session.commit().await?;
    call.app.metrics.loaded(&answer);
    Ok(respond(StatusCode::OK, JSON[0], answer))
}

async fn import(mut call: Call, fhir: bool, body: Body) -> Result<Response> {
    let request = call.object(body).await?.text();
    call.answers(JSON)?;
    let session = call.begin(Access::ReadWrite, Blame::Request).await?;
    let id =
        session.value("bulk_import($1::pg_catalog.jsonb, $2)", &[(&request, Type::TEXT), (&fhir, Type::BOOL)]).await?;
    let status = session.value("bulk_import_status($1)", &[(&id, Type::TEXT)]).await?;
    session.commit().await?;
    call.app.metrics.job_started("import");
    let code = if call.prefers("respond-async") { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok(([(header::CONTENT_LOCATION, call.url(&["BulkImportStatus", &id]))], respond(code, JSON[0], status))
        .into_response())
}

async fn import_status(mut call: Call, Path(id): Path<String>) -> Result<Response> {
    call.answers(JSON)?;
    let session = call.begin(Access::ReadWrite, Blame::Request).await?;
    let status = session.value("bulk_import_status($1)", &[(&id, Type::TEXT)]).await?;
    session.commit().await?;
    Ok(respond(StatusCode::OK, JSON[0], status))
}

async fn cancel_import(call: Call, Path(id): Path<String>) -> Result<Response> {
    let session = call.begin(Access::ReadWrite, Blame::Request).await?;
    if session.value("bulk_import_cancel($1)", &[(&id, Type::TEXT)]).await? != "true" {
        // Nobody knows it, which asking for it says; or it has ended.
        session.value("bulk_import_status($1)", &[(&id, Type::TEXT)]).await?;
        return Err(Problem::new(StatusCode::CONFLICT, "this import has ended"));
    }
    session.commit().await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

async fn export_identifiers(mut call: Call, body: Body) -> Result<Response> {
    let request = call.object(body).await?.text();
    call.answers(JSON)?;
    let session = call.begin(Access::ReadOnly, Blame::Request).await?;
    let answer = session.value("bulk_export_identifiers($1::pg_catalog.jsonb)", &[(&request, Type::TEXT)]).await?;
    session.commit().await?;
    Ok(respond(StatusCode::OK, JSON[0], answer))
}

async fn health(State(app): State<Arc<App>>) -> Response {
    let (code, status) = match app.pool.health().await {
        Health::Good => (StatusCode::OK, "ok"),
        Health::Unreachable => (StatusCode::SERVICE_UNAVAILABLE, "the database cannot be reached"),
        Health::NoLogin => (StatusCode::SERVICE_UNAVAILABLE, "the user of --database cannot log in"),
        Health::NoExtension => (StatusCode::SERVICE_UNAVAILABLE, "the database has no extension fhir_bulk"),
    };
    let mut response = respond(code, JSON[0], format!(r#"{{"status": "{status}"}}"#));
    response.extensions_mut().insert(observe::Said);
    response
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], app.metrics.text(app.pool.counts())).into_response()
}

/// An answer that is whole.
pub fn respond(code: StatusCode, content_type: &'static str, text: String) -> Response {
    (code, [(header::CONTENT_TYPE, content_type)], text).into_response()
}

/// A body in chunks, each sent as it comes.
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
