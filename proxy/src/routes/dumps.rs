//! `$dump` and `$dump-sql`: return resources of a type, or rows of a query.

use axum::body::Body;
use axum::extract::Path;
use axum::response::Response;
use tokio_postgres::types::Type;

use crate::database::session::Access;
use crate::error::{Blame, Problem, Result};
use crate::request::call::Call;
use crate::request::parse::JSON;
use crate::response::{NDJSON, stream};

/// Returns the resources of a type, all or those that a filter lets through.
pub async fn dump(mut call: Call, Path(resource_type): Path<String>) -> Result<Response> {
    let filter = call.parameters.query("_filter")?;
    let (since, fhir, gzip) =
        (call.parameters.instant("_since")?, call.parameters.flag("fhir")?, call.parameters.flag("gzip")?);
    call.answers(NDJSON).map_err(|problem| match &filter {
        Some(_) if problem.parameter.is_some() => {
            Problem { message: problem.message + "; an & within _filter is written %26", ..problem }
        }
        _ => problem,
    })?;
    call.streams()?;
    let session = call.begin(Access::ReadOnly, Blame::Request).await?;
    let pieces = session
        .pieces(
            "bulk_dump_chunks($1, $2::pg_catalog.timestamptz, $3, $4, filter => $5)",
            &[
                (&resource_type, Type::TEXT),
                (&since, Type::TEXT),
                (&fhir, Type::BOOL),
                (&gzip, Type::BOOL),
                (&filter, Type::TEXT),
            ],
        )
        .await?;
    Ok(stream(&call, NDJSON[0], gzip, pieces))
}

/// Returns the rows of a query.
pub async fn dump_sql(mut call: Call, body: Body) -> Result<Response> {
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
        // The function refuses an unknown format, so there is no response.
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
