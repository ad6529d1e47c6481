//! Reads of single resources.

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio_postgres::types::Type;

use crate::database::session::Access;
use crate::error::{Blame, Problem, Result};
use crate::request::call::Call;
use crate::request::parse::JSON;
use crate::response::respond;

/// The media type of FHIR's JSON.
const FHIR_JSON: &str = "application/fhir+json";

/// Returns a resource. One that is deleted, and one that the caller may not see, is as absent as one that never was.
pub async fn read(mut call: Call, Path((resource_type, id)): Path<(String, String)>) -> Result<Response> {
    call.answers(&[FHIR_JSON, JSON[0]])?;
    let session = call.begin(Access::ReadOnly, Blame::Request).await?;
    // FHIR has versions as texts, whatever the database's setting is.
    session.set("fhir_bulk.version_id", "string").await?;
    let arguments = [(&resource_type as _, Type::TEXT), (&id as _, Type::TEXT)];
    let resource = session.value("bulk_read($1, $2)", &arguments).await?;
    session.commit().await?;
    let value: Value = serde_json::from_str(&resource).unwrap_or_default();
    if value.is_null() {
        return Err(Problem::new(StatusCode::NOT_FOUND, "there is no such resource"));
    }
    let response = respond(StatusCode::OK, FHIR_JSON, resource);
    Ok(match value["meta"]["versionId"].as_str() {
        Some(version) => ([(header::ETAG, format!("W/\"{version}\""))], response).into_response(),
        None => response,
    })
}
