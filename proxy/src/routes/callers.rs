//! Who the caller is here, on which versions, and which types it may read, with their numbers.

use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};
use tokio_postgres::types::Type;

use crate::database::session::Access;
use crate::error::{Blame, Problem, Result};
use crate::request::call::Call;
use crate::request::parse::JSON;
use crate::response::{respond, without_nulls};
use crate::smart::scopes::Permissions;

/// The role, the subject of its token, and the versions of what answers. The call loads the library, which has the settings.
const CALLER: &str = "\
    SELECT current_user AS role, {schema}.bulk_job_subject() AS subject, \
        pg_catalog.current_setting('server_version') AS postgresql, \
        (SELECT e.extversion FROM pg_catalog.pg_extension e WHERE e.extname OPERATOR(pg_catalog.=) 'fhir_bulk') AS extension";

/// Returns who the caller is, and the versions of proxy, extension and server.
pub async fn caller(mut call: Call) -> Result<Response> {
    call.answers(JSON)?;
    let session = call.begin(Access::ReadOnly, Blame::Request).await?;
    let found = session.objects_where(CALLER, &[]).await?.pop();
    let fhir = session.setting("fhir_bulk.fhir_version").await?;
    session.commit().await?;
    let mut found = found.ok_or_else(|| Problem::unavailable("a query without a row"))?;
    found["proxy"] = env!("CARGO_PKG_VERSION").into();
    found["fhirVersion"] = fhir.into();
    Ok(respond(StatusCode::OK, JSON[0], without_nulls(found).to_string()))
}

/// The types that the role may read, about how many resources each has, and in how many bytes.
const TYPES: &str = "SELECT c.name AS type, c.resources, c.bytes FROM {schema}.bulk_resource_counts() c";
/// One of them, counted.
const TYPE: &str = "SELECT c.name AS type, c.resources, c.bytes FROM {schema}.bulk_resource_counts($1, true) c";

/// Returns the types that the caller may read, with estimates.
pub async fn types(mut call: Call) -> Result<Response> {
    call.answers(JSON)?;
    let scopes = call.narrow();
    let session = call.begin(Access::ReadOnly, Blame::Request).await?;
    let mut types = session.objects_where(TYPES, &[]).await?;
    session.commit().await?;
    types.retain(|found| {
        let name = found["type"].as_str().unwrap_or_default();
        scopes.as_ref().is_none_or(|scopes| scopes.permit(name, Permissions::READ_ALL))
    });
    let types: Vec<Value> = types.into_iter().map(without_nulls).collect();
    Ok(respond(StatusCode::OK, JSON[0], json!({"types": types}).to_string()))
}

/// Returns one type with its exact number of resources.
pub async fn count(mut call: Call, Path(name): Path<String>) -> Result<Response> {
    call.answers(JSON)?;
    let session = call.begin(Access::ReadOnly, Blame::Request).await?;
    let found = session.objects_where(TYPE, &[(&name, Type::TEXT)]).await?.pop();
    session.commit().await?;
    let mut found = found.ok_or_else(|| Problem::unavailable("a query without a row"))?;
    found["exact"] = true.into();
    Ok(respond(StatusCode::OK, JSON[0], without_nulls(found).to_string()))
}
