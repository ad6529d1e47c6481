//! `$import`, and the status and cancelling of imports.

use axum::body::Body;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio_postgres::types::Type;

use crate::database::session::{Access, Session};
use crate::error::{Blame, Problem, Result};
use crate::request::call::Call;
use crate::request::need;
use crate::request::parse::{JSON, Object};
use crate::response::respond;
use crate::routes::import_statuses::{self, Shape};
use crate::smart::scopes::{Permissions, Scopes};

/// Starts an import.
pub async fn import(mut call: Call, shape: Shape, fhir: bool, body: Body) -> Result<Response> {
    let request = call.object(body).await?;
    if let Some(scopes) = call.narrow() {
        check(&scopes, &request)?;
    }
    let request = request.text();
    call.answers(JSON)?;
    let session = call.begin(Access::ReadWrite, Blame::Request).await?;
    let id =
        session.value("bulk_import($1::pg_catalog.jsonb, $2)", &[(&request, Type::TEXT), (&fhir, Type::BOOL)]).await?;
    let status = status_in(shape, &session, &id).await?;
    session.commit().await?;
    call.app.metrics.job_started("import");
    let code = if call.preference("respond-async").is_some() { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok(([(header::CONTENT_LOCATION, call.url(&shape.path(&id)))], respond(code, JSON[0], status)).into_response())
}

/// Checks that a token's scopes permit the types of all inputs. One that names no type may have any.
fn check(scopes: &Scopes, request: &Object) -> Result<()> {
    let Some(Value::Array(inputs)) = request.get("inputs")? else {
        return need::require_all(scopes, Permissions::LOAD);
    };
    inputs.iter().try_for_each(|input| match input["resourceType"].as_str() {
        Some(name) => need::require(scopes, name, Permissions::LOAD),
        None => need::require_all(scopes, Permissions::LOAD),
    })
}

/// Returns the status of an import.
pub async fn status(mut call: Call, shape: Shape, Path(id): Path<String>) -> Result<Response> {
    call.answers(JSON)?;
    let session = call.begin(Access::ReadWrite, Blame::Request).await?;
    let status = status_in(shape, &session, &id).await?;
    session.commit().await?;
    Ok(respond(StatusCode::OK, JSON[0], status))
}

async fn status_in(shape: Shape, session: &Session, id: &str) -> Result<String> {
    let status = session.value("bulk_import_status($1)", &[(&id, Type::TEXT)]).await?;
    match shape {
        Shape::V1 => Ok(status),
        Shape::V2 => {
            let status = serde_json::from_str(&status).map_err(Problem::unavailable)?;
            Ok(import_statuses::v2(&status).to_string())
        }
    }
}

/// How many imports a page of the list has.
const PAGE: u32 = 100;

/// Returns the imports that `bulk_jobs` shows, the newest first, page by page.
pub async fn list(mut call: Call) -> Result<Response> {
    // Jobs are their client's own, which the database checks.
    call.narrow();
    let page = call.parameters.text("page").map_or(Ok(1), |text| text.parse::<u32>());
    let page = page.ok().filter(|page| *page > 0);
    let page = page.ok_or_else(|| Problem::parameter("page", "is not the number of a page, counted from 1"))?;
    call.answers(JSON)?;
    let (most, before) = (i64::from(PAGE) + 1, i64::from(page - 1) * i64::from(PAGE));
    let session = call.begin(Access::ReadOnly, Blame::Request).await?;
    let jobs = session.objects_where(import_statuses::LIST, &[(&most, Type::INT8), (&before, Type::INT8)]).await?;
    session.commit().await?;
    let shown = jobs.iter().take(PAGE as usize).filter_map(Value::as_object);
    let mut list = json!({"imports": shown.map(import_statuses::listed).collect::<Vec<_>>()});
    if jobs.len() > PAGE as usize {
        let url = format!("{}?page={}", call.url(&["v2", "$import"]), u64::from(page) + 1);
        list["link"] = json!([{"relation": "next", "url": url}]);
    }
    Ok(respond(StatusCode::OK, JSON[0], list.to_string()))
}

/// Cancels an import.
pub async fn cancel(call: Call, Path(id): Path<String>) -> Result<Response> {
    let session = call.begin(Access::ReadWrite, Blame::Request).await?;
    if session.value("bulk_import_cancel($1)", &[(&id, Type::TEXT)]).await? != "true" {
        // Either it does not exist, which reading its status reports, or it has ended.
        session.value("bulk_import_status($1)", &[(&id, Type::TEXT)]).await?;
        return Err(Problem::new(StatusCode::CONFLICT, "this import has ended"));
    }
    session.commit().await?;
    Ok(StatusCode::ACCEPTED.into_response())
}
