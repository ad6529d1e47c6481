//! The jobs of the caller, of all kinds: a list, and each with its report and its inputs.

use std::time::Instant;

use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};
use tokio_postgres::types::{ToSql, Type};

use crate::database::session::{Access, Session};
use crate::error::{Blame, Problem, Result};
use crate::request::call::Call;
use crate::request::page::{self, Page};
use crate::request::parse::JSON;
use crate::response::{respond, without_nulls};

/// What `kind` and `status` of a request may be.
const KINDS: &[&str] = &["import", "export", "submission"];
const STATES: &[&str] = &["waiting", "active", "finished", "failed", "cancelled"];

/// The members of a job, from `bulk_jobs`. It shows members of pg_monitor the jobs of others, too, which are none of theirs.
const OWN_JOBS: &str = "\
    SELECT j.kind, j.id, j.subject, j.status, j.created_at AS created, j.started_at AS started, j.ended_at AS ended, \
        j.inputs AS \"inputsTotal\", j.inputs_ended AS \"inputsEnded\", j.inputs_failed AS \"inputsFailed\", \
        j.resources, j.unchanged, j.progress, j.resources_per_second AS \"resourcesPerSecond\", \
        pg_catalog.date_part('epoch', j.time_left) AS \"secondsLeft\" \
    FROM {schema}.bulk_jobs j WHERE j.role OPERATOR(pg_catalog.=) current_user \
    AND COALESCE(j.subject OPERATOR(pg_catalog.=) {schema}.bulk_job_subject(), {schema}.bulk_job_subject() IS NULL)";

/// Those of a kind and of some states, up to a time.
const LIST: &str = "\
    AND ($1 IS NULL OR j.kind OPERATOR(pg_catalog.=) ANY (pg_catalog.string_to_array($1, ','))) \
    AND ($2 IS NULL OR j.status OPERATOR(pg_catalog.=) ANY (pg_catalog.string_to_array($2, ','))) \
    AND ($3 IS NULL OR j.created_at OPERATOR(pg_catalog.<=) $3::pg_catalog.timestamptz) \
    ORDER BY j.created_at DESC, j.kind, j.id, j.subject LIMIT $4 OFFSET $5";

/// The one with an id; the last one, if the role has several, of different kinds or of tokens of different subjects.
const ONE: &str = "\
    AND j.id OPERATOR(pg_catalog.=) $1 AND ($2 IS NULL OR j.kind OPERATOR(pg_catalog.=) $2) \
    ORDER BY j.created_at DESC, j.kind LIMIT 1";

/// The inputs of an import, after a number.
const INPUTS: &str = "\
    SELECT i.number, i.url, i.resource_type AS \"resourceType\", i.status, i.total, i.unchanged, i.read_bytes AS \"bytesRead\", \
        i.all_bytes AS \"bytesTotal\", i.started_at AS started, i.ended_at AS ended, i.error \
    FROM {schema}.bulk_job_inputs i WHERE i.id OPERATOR(pg_catalog.=) $1 \
    AND COALESCE(i.subject OPERATOR(pg_catalog.=) $2, i.subject IS NULL AND $2 IS NULL) \
    AND ($3 IS NULL OR i.status OPERATOR(pg_catalog.=) ANY (pg_catalog.string_to_array($3, ','))) \
    AND i.number OPERATOR(pg_catalog.>) $4 ORDER BY i.number LIMIT $5";

/// Returns the caller's jobs, the newest first, page by page.
pub async fn list(mut call: Call) -> Result<Response> {
    let kinds = page::word(&mut call.parameters, "kind", KINDS)?;
    let states = page::word(&mut call.parameters, "status", STATES)?;
    let page = Page::of(&mut call.parameters)?;
    call.answers(JSON)?;
    let session = call.begin(Access::ReadOnly, Blame::Request).await?;
    let mut jobs = session
        .objects_where(
            &format!("{OWN_JOBS} {LIST}"),
            &[
                (&kinds, Type::TEXT),
                (&states, Type::TEXT),
                (&page.from, Type::TEXT),
                (&page.wanted(), Type::INT8),
                (&page.skipped, Type::INT8),
            ],
        )
        .await?;
    session.commit().await?;
    let next = page.cut(&mut jobs, "created");
    let mut list = json!({"jobs": jobs.into_iter().map(without_nulls).collect::<Vec<_>>()});
    if let Some(after) = next {
        let asked = [("kind", kinds), ("status", states), ("limit", Some(page.limit.to_string()))];
        let mut url = call.url(&["jobs"]) + "?";
        for (name, value) in asked {
            url += &value.map(|value| format!("{name}={value}&")).unwrap_or_default();
        }
        list["link"] = json!([{"relation": "next", "url": format!("{url}after={after}")}]);
    }
    Ok(respond(StatusCode::OK, JSON[0], list.to_string()))
}

/// Returns one of the caller's jobs, with its report and, of an import, a page of its inputs.
pub async fn one(mut call: Call, Path(id): Path<String>) -> Result<Response> {
    let kind = page::word(&mut call.parameters, "kind", KINDS)?;
    let states = page::word(&mut call.parameters, "status", STATES)?;
    let limit = page::limit(&mut call.parameters)?;
    let after = call.parameters.text("after").map_or(Ok(0), |text| text.parse::<i32>());
    let after = after.map_err(|_| Problem::parameter("after", "is not the number of an input"))?;
    call.answers(JSON)?;
    let session = call.begin(Access::ReadWrite, Blame::Request).await?;
    // Several roles may have imports of one id.
    call.app.polls.count(&format!("{} {id}", call.role()), Instant::now())?;
    let arguments = [(&id as &(dyn ToSql + Sync), Type::TEXT), (&kind, Type::TEXT)];
    let found = session.objects_where(&format!("{OWN_JOBS} {ONE}"), &arguments).await?.pop();
    let Some(mut job) = found.map(without_nulls) else {
        return Err(Problem::new(StatusCode::NOT_FOUND, "there is no such job"));
    };
    match job["kind"].as_str() {
        Some("import") => {
            let mut report = report(&session, "bulk_import_status($1)", &id).await?;
            if let Some(members) = report.as_object_mut() {
                members.remove("inputs");
            }
            job["report"] = report;
            let (subject, wanted) = (job["subject"].as_str(), i64::from(limit) + 1);
            let mut inputs = session
                .objects_where(
                    INPUTS,
                    &[
                        (&id, Type::TEXT),
                        (&subject, Type::TEXT),
                        (&states, Type::TEXT),
                        (&after, Type::INT4),
                        (&wanted, Type::INT8),
                    ],
                )
                .await?;
            if inputs.len() > limit as usize {
                inputs.truncate(limit as usize);
                let last = inputs.last().map_or(&Value::Null, |input| &input["number"]);
                let states = states.map(|states| format!("status={states}&")).unwrap_or_default();
                let url = call.url(&["jobs", &id]) + &format!("?kind=import&{states}limit={limit}&after={last}");
                job["link"] = json!([{"relation": "next", "url": url}]);
            }
            job["inputs"] = inputs.into_iter().map(without_nulls).collect();
        }
        Some("export") => job["report"] = report(&session, "bulk_export_status($1)", &id).await?,
        _ => {}
    }
    session.commit().await?;
    Ok(respond(StatusCode::OK, JSON[0], job.to_string()))
}

async fn report(session: &Session, function: &str, id: &String) -> Result<Value> {
    let status = session.value(function, &[(id, Type::TEXT)]).await?;
    serde_json::from_str(&status).map_err(|error| Problem::unavailable(format!("{function}: {error}")))
}
