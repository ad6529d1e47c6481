//! Reads of single resources.

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use tokio_postgres::types::Type;

use crate::database::session::Access;
use crate::error::{Blame, Problem, Result};
use crate::request::call::Call;
use crate::request::parse::{self, JSON};
use crate::response::respond;

/// The media type of FHIR's JSON.
const FHIR_JSON: &str = "application/fhir+json";
/// The type of resources that are content of any media type.
const BINARY: &str = "Binary";

/// Returns a resource. One that is deleted, and one that the caller may not see, is as absent as one that never was. Of a
/// Binary, a caller who accepts its media type and not FHIR's gets the content (HL7, Binary, "Serving Binary Resources using
/// the RESTful API").
pub async fn read(mut call: Call, Path((resource_type, id)): Path<(String, String)>) -> Result<Response> {
    let form = call.answers(&[FHIR_JSON, JSON[0]]);
    let is_content = resource_type == BINARY && is_other_type(&form);
    if !is_content {
        form?;
    }
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
    let version = value["meta"]["versionId"].as_str().map(|version| [(header::ETAG, format!("W/\"{version}\""))]);
    let response =
        if is_content { content(&call.headers, &value)? } else { respond(StatusCode::OK, FHIR_JSON, resource) };
    Ok((version, response).into_response())
}

/// Whether an answer failed only because the caller accepts other media types.
fn is_other_type(answer: &Result<()>) -> bool {
    answer.as_ref().is_err_and(|problem| problem.status == StatusCode::NOT_ACCEPTABLE)
}

/// The content of a Binary. A browser must not run it as a page of this server.
fn content(accepted: &HeaderMap, binary: &Value) -> Result<Response> {
    let media_type = binary["contentType"].as_str().unwrap_or_default();
    parse::accepts(accepted, &[media_type.split(';').next().unwrap_or_default().trim()])?;
    let media_type = HeaderValue::from_str(media_type)
        .map_err(|_| Problem::new(StatusCode::NOT_ACCEPTABLE, "this Binary has no valid contentType"))?;
    let data: String = binary["data"].as_str().unwrap_or_default().split_ascii_whitespace().collect();
    let bytes = Some(data).filter(|data| !data.is_empty()).and_then(|data| BASE64_STANDARD.decode(data).ok());
    let bytes = bytes.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "this Binary has no data in base64"))?;
    let headers = [
        (header::CONTENT_TYPE, media_type),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox")),
    ];
    Ok((headers, bytes).into_response())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_binary_without_content_that_can_be_sent_is_no_answer() {
        let of = |binary: Value| {
            let accepted = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static("text/*, image/png"))]);
            content(&accepted, &binary).map(|response| response.headers()[header::CONTENT_TYPE].clone())
        };
        let text = json!({"contentType": "text/plain; charset=utf-8", "data": "SGVs\n bG8K"});
        assert_eq!(of(text).unwrap(), "text/plain; charset=utf-8");
        for (binary, status) in [
            (json!({"contentType": "text/plain"}), 404),
            (json!({"contentType": "text/plain", "data": ""}), 404),
            (json!({"contentType": "text/plain", "data": "not base64"}), 404),
            (json!({"contentType": "text/plain\r\nX: y", "data": "SGVsbG8K"}), 406),
            (json!({"contentType": "image/jpeg", "data": "SGVsbG8K"}), 406),
            (json!({"data": "SGVsbG8K"}), 406),
        ] {
            assert_eq!(of(binary.clone()).unwrap_err().status, status, "{binary}");
        }
    }
}
