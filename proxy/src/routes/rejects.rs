//! The lines that loads of the caller's role have passed over.

use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio_postgres::types::{ToSql, Type};

use crate::database::session::Access;
use crate::error::{Blame, Problem, Result};
use crate::request::call::{Call, encoded};
use crate::request::page::Page;
use crate::request::parse::JSON;
use crate::response::{respond, without_nulls};

/// Those of a source, up to a time.
const LIST: &str = "\
    SELECT r.loaded_at AS loaded, r.source, r.line_number AS line, r.byte_offset AS \"byteOffset\", r.sqlstate, r.error, \
        pg_catalog.encode(r.line, 'base64') AS content \
    FROM {schema}.bulk_load_reject r \
    WHERE ($1 IS NULL OR r.source OPERATOR(pg_catalog.=) $1) \
    AND ($2 IS NULL OR r.loaded_at OPERATOR(pg_catalog.<=) $2::pg_catalog.timestamptz) \
    ORDER BY r.loaded_at DESC, r.source, r.line_number, r.byte_offset LIMIT $3 OFFSET $4";

/// Returns them, those of the last load first, page by page.
pub async fn list(mut call: Call) -> Result<Response> {
    let source = call.parameters.text("source");
    let page = Page::of(&mut call.parameters)?;
    call.answers(JSON)?;
    let session = call.begin(Access::ReadOnly, Blame::Request).await?;
    let arguments = [
        (&source as &(dyn ToSql + Sync), Type::TEXT),
        (&page.from, Type::TEXT),
        (&page.wanted(), Type::INT8),
        (&page.skipped, Type::INT8),
    ];
    let mut rejects = session.objects_where(LIST, &arguments).await?;
    session.commit().await?;
    let next = page.cut(&mut rejects, "loaded");
    let rejects = rejects.into_iter().map(shown).collect::<Result<Vec<_>>>()?;
    let mut list = json!({"rejects": rejects});
    if let Some(after) = next {
        let source = source.map(|source| format!("source={}&", encoded(&source)));
        let url =
            format!("{}?{}limit={}&after={after}", call.url(&["rejects"]), source.unwrap_or_default(), page.limit);
        list["link"] = json!([{"relation": "next", "url": url}]);
    }
    Ok(respond(StatusCode::OK, JSON[0], list.to_string()))
}

/// A rejected line with its text or, if it is none, its bytes.
fn shown(mut reject: Value) -> Result<Value> {
    // PostgreSQL breaks it into lines.
    let base64 = reject["content"].as_str().unwrap_or_default().replace('\n', "");
    let bytes = BASE64_STANDARD.decode(&base64).map_err(Problem::unavailable)?;
    match String::from_utf8(bytes) {
        Ok(text) => reject["content"] = text.into(),
        Err(_) => {
            reject["content"] = Value::Null;
            reject["contentBase64"] = base64.into();
        }
    }
    Ok(without_nulls(reject))
}
