//! `$load`.

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use tokio_postgres::types::Type;

use super::upload;
use crate::database::session::Access;
use crate::error::{Blame, Problem, Result};
use crate::request::call::Call;
use crate::request::parse::{self, JSON, Kind};
use crate::response::respond;

/// The source is a URL in the body, or the body itself.
pub async fn load(mut call: Call, resource_type: Option<String>, fhir: bool, body: Body) -> Result<Response> {
    let is_source = parse::kind(&call.headers)? == Some(Kind::Ndjson);
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
