//! `$load`: loads NDJSON from a URL or from the body of the request.

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use tokio_postgres::types::Type;

use super::upload;
use crate::database::session::Access;
use crate::error::{Blame, Result};
use crate::request::call::Call;
use crate::request::parse::{self, JSON, Kind};
use crate::response::respond;

/// The source is a URL in the body, or the body itself.
pub async fn load(call: Call, resource_type: Option<String>, fhir: bool, body: Body) -> Result<Response> {
    if parse::kind(&call.headers)? == Some(Kind::Ndjson) {
        load_body(call, resource_type, fhir, body).await
    } else {
        load_source(call, resource_type, fhir, body).await
    }
}

async fn load_source(mut call: Call, resource_type: Option<String>, fhir: bool, body: Body) -> Result<Response> {
    let mut request = call.object(body).await?;
    let (source, options) = (request.take_text("source")?, request.text());
    call.answers(JSON)?;
    let session = call.begin(Access::ReadWrite, Blame::Data).await?;
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

async fn load_body(mut call: Call, resource_type: Option<String>, fhir: bool, body: Body) -> Result<Response> {
    upload::check(&call)?;
    let options = upload::options(resource_type.as_deref(), fhir, &mut call.parameters)?;
    call.answers(JSON)?;
    let session = call.begin(Access::ReadWrite, Blame::Data).await?;
    let copy = session.copy_in("bulk_resource", &options).await?;
    upload::send(&call, copy, body).await?;
    let answer = session.value("bulk_load_result()", &[]).await?;
    session.commit().await?;
    call.app.metrics.loaded(&answer);
    Ok(respond(StatusCode::OK, JSON[0], answer))
}
