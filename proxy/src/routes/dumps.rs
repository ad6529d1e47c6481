//! `$dump`, `$dump-csv` and `$dump-sql`: return resources of a type, as they are or as a table, or rows of a query.

use axum::body::Body;
use axum::extract::Path;
use axum::response::Response;
use serde_json::{Map, Value};
use tokio_postgres::types::Type;

use crate::database::session::Access;
use crate::error::{Blame, Problem, Result};
use crate::request::call::Call;
use crate::request::parse::JSON;
use crate::response::{NDJSON, stream};

/// Returns the resources of a type, all or those that a filter lets through.
pub async fn dump(mut call: Call, Path(resource_type): Path<String>) -> Result<Response> {
    let fhir = call.parameters.flag("fhir")?;
    let Asked { since, filter, gzip } = asked(&mut call, NDJSON)?;
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

/// Returns the resources of a type as a table with a column for each path.
pub async fn dump_csv(mut call: Call, Path(resource_type): Path<String>) -> Result<Response> {
    let Asked { since, filter, gzip } = asked(&mut call, CSV)?;
    let given = [("since", since), ("filter", filter)];
    let options: Map<String, Value> =
        given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))).collect();
    let options = Value::Object(options).to_string();
    let session = call.begin(Access::ReadOnly, Blame::Request).await?;
    let pieces = session
        .pieces(
            "dump_csv_chunks($1, $2, $3::pg_catalog.jsonb)",
            &[(&resource_type, Type::TEXT), (&gzip, Type::BOOL), (&options, Type::TEXT)],
        )
        .await?;
    Ok(stream(&call, CSV[0], gzip, pieces))
}

/// The media type of a table.
const CSV: &[&str] = &["text/csv"];

/// What a request for the resources of a type has, whatever their form.
struct Asked {
    since: Option<String>,
    filter: Option<String>,
    gzip: bool,
}

/// Takes the last parameters of such a request, and checks that the caller can take the answer.
fn asked(call: &mut Call, types: &[&str]) -> Result<Asked> {
    let filter = call.parameters.query("_filter")?;
    let (since, gzip) = (call.parameters.instant("_since")?, call.parameters.flag("gzip")?);
    call.answers(types).map_err(|problem| match &filter {
        Some(_) if problem.parameter.is_some() => {
            Problem { message: problem.message + "; an & within _filter is written %26", ..problem }
        }
        _ => problem,
    })?;
    call.streams()?;
    Ok(Asked { since, filter, gzip })
}

/// Returns the rows of a query.
pub async fn dump_sql(mut call: Call, body: Body) -> Result<Response> {
    let mut body = call.object(body).await?;
    let query = body.take_text("query")?;
    let format = match (call.parameters.text("_format"), body.contains("format")) {
        (Some(_), true) => return Err(Problem::parameter("_format", "is in the body, too")),
        (Some(format), false) => format,
        (None, true) => body.take_text("format")?,
        (None, false) => "csv".into(),
    };
    let gzip = body.take_flag("gzip")?;
    let content_types: &[&str] = match format.as_str() {
        "csv" => &["application/CSV", "text/csv"],
        "tsv" => &["text/tab-separated-values"],
        "json" => &JSON[..1],
        "sql" => &["application/sql"],
        "elastic-bulk" => &NDJSON[1..2],
        "parquet" => &["application/vnd.apache.parquet"],
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
