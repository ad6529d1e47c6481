//! `$sql-run` of SQL on FHIR, and the names that it had before: the rows of a view or of a query.

use axum::body::Body;
use axum::extract::Path;
use axum::response::Response;
use tokio_postgres::types::Type;

use crate::database::session::Access;
use crate::error::{Blame, Result};
use crate::request::call::Call;
use crate::request::need;
use crate::request::parse::Object;
use crate::request::sql_run::{self, Operation};
use crate::response::stream;
use crate::smart::scopes::{Permissions, Scopes};

/// Runs the subject that a URL names.
pub async fn run(mut call: Call, operation: Operation) -> Result<Response> {
    let request = sql_run::read(operation, &mut call.parameters, None)?;
    rows(call, operation, request).await
}

/// Runs the subject that a Parameters resource has or names.
pub async fn run_by_parameters(mut call: Call, operation: Operation, body: Body) -> Result<Response> {
    let body = call.object(body).await?;
    let request = sql_run::read(operation, &mut call.parameters, Some(&body))?;
    rows(call, operation, request).await
}

/// Runs a stored view.
pub async fn run_stored(mut call: Call, Path(id): Path<String>) -> Result<Response> {
    let request = sql_run::read(Operation::ViewRun, &mut call.parameters, None)?;
    rows_of(call, &id, request).await
}

/// The same with a Parameters resource.
pub async fn run_stored_by_parameters(mut call: Call, Path(id): Path<String>, body: Body) -> Result<Response> {
    let body = call.object(body).await?;
    let request = sql_run::read(Operation::ViewRun, &mut call.parameters, Some(&body))?;
    rows_of(call, &id, request).await
}

async fn rows_of(call: Call, id: &str, mut request: Object) -> Result<Response> {
    sql_run::has_no_subject(&request)?;
    request.insert("subjectReference", format!("ViewDefinition/{id}"));
    rows(call, Operation::ViewRun, request).await
}

async fn rows(mut call: Call, operation: Operation, mut request: Object) -> Result<Response> {
    let format = sql_run::format(&request, &call.headers)?;
    request.insert("_format", format.code);
    // A reference may have the address of this server, which the database does not know.
    if let Some(reference) = request.get("subjectReference")?
        && let Some(own) = reference.as_str().and_then(|text| text.strip_prefix(&(call.url(&["fhir"]) + "/")))
    {
        request.insert("subjectReference", own);
    }
    if let Some(scopes) = call.narrow() {
        narrow(&scopes, &mut request)?;
    }
    call.streams()?;
    let session = call.begin(Access::ReadOnly, Blame::Query).await?;
    let request = request.text();
    let pieces = session.pieces("bulk_sql_run($1::pg_catalog.jsonb)", &[(&request, Type::TEXT)]).await;
    let pieces = pieces.map_err(|problem| sql_run::located(operation, problem))?;
    Ok(stream(&call, format.types[0], false, pieces))
}

/// Narrows a run, or an export, to views of the types that a token's scopes permit. A query of SQL reads what it wants: no scopes permit that.
///
/// # Errors
/// 403 if they do not permit the patients that it names.
pub fn narrow(scopes: &Scopes, request: &mut Object) -> Result<()> {
    if request.contains("patient") {
        need::require(scopes, "Patient", Permissions::READ)?;
    }
    request.insert("allowedTypes", scopes.types(Permissions::READ_ALL).unwrap_or_else(|| vec!["*".to_owned()]));
    Ok(())
}
