//! `POST /rpc`: Aidbox's RPC methods for imports, as `{"method", "params"}`. Errors are `{"error"}` (`observe`).

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use ring::rand::SecureRandom as _;
use serde_json::{Value, json};
use tokio_postgres::types::Type;

use crate::database::session::{Access, Session};
use crate::error::{Blame, Problem, Result};
use crate::request::call::Call;
use crate::request::parse::JSON;
use crate::request::rpc::{self, IMPORT_ID, Params, Start};
use crate::response::respond;
use crate::routes::import_statuses::{FAILED, LAST, error_of_rpc, of_bucket, of_rpc};

/// Calls a method.
pub async fn call(mut call: Call, body: Body) -> Result<Response> {
    let mut request = call.object(body).await?;
    let (method, params) = (request.take_text("method")?, request.get("params")?);
    call.answers(JSON)?;
    let known = Params::of(params);
    let result = match method.as_str() {
        "aidbox.bulk/load-from-bucket" => load_from_bucket(&call, known?).await?,
        "aidbox.bulk/load-from-bucket-status" => {
            let session = call.begin(Access::ReadWrite, Blame::Request).await?;
            let jobs = last(&session, &rpc::bucket(known?)?.id()).await?;
            // It also has workers go on with what a restart of the server has stopped.
            ended(session, jobs.first().map_or("", id_of)).await?;
            of_bucket(&jobs)
        }
        "aidbox.bulk/import-start" => {
            let id = new_id(IMPORT_ID)?;
            let session = start(&call, rpc::import_start(known?)?, &id).await?;
            let status = ended(session, &id).await?;
            call.app.metrics.job_started("import");
            of_rpc(&status)
        }
        "aidbox.bulk/import-status" => of_rpc(&import(&call, rpc::import_id(known?, false)?).await?),
        "aidbox.bulk/import-errors" => errors(&call, rpc::import_id(known?, true)?).await?,
        "aidbox.bulk/import-cancel" => cancel(&call, rpc::import_id(known?, false)?).await?,
        _ => {
            let shown: String = method.chars().take(80).collect();
            return Err(Problem::new(StatusCode::NOT_FOUND, format!("there is no method {shown:?}")));
        }
    };
    Ok(respond(StatusCode::OK, JSON[0], json!({"result": result}).to_string()))
}

async fn load_from_bucket(call: &Call, params: Params) -> Result<Value> {
    let (bucket, load) = rpc::load_from_bucket(params)?;
    let id = new_id(&bucket.id())?;
    let session = start(call, load, &id).await?;
    let status = ended(session, &id).await?;
    call.app.metrics.job_started("import");
    let count = &status["inputsTotal"];
    Ok(json!({
        "message": format!("Upload from bucket <{}> started. {count} new files added.", bucket.url),
        "progress": {"total": count},
        "new-files-count": count,
    }))
}

/// Starts an import in a transaction, which the caller commits.
async fn start(call: &Call, start: Start, id: &str) -> Result<Session> {
    let Start { mut request, fhir, timeouts } = start;
    request["id"] = id.into();
    let request = request.to_string();
    // What keeps its sources from being listed is no mistake of the request's form.
    let session = call.begin(Access::ReadWrite, Blame::Data).await?;
    for (setting, time) in timeouts {
        session.set(setting, &time.to_string()).await?;
    }
    session.value("bulk_import($1::pg_catalog.jsonb, $2)", &[(&request, Type::TEXT), (&fhir, Type::BOOL)]).await?;
    Ok(session)
}

/// The status of an import. Commits the transaction.
async fn ended(session: Session, id: &str) -> Result<Value> {
    let status = session.value("bulk_import_status($1)", &[(&id, Type::TEXT)]).await?;
    session.commit().await?;
    serde_json::from_str(&status).map_err(Problem::unavailable)
}

/// The status of an import, or of the last one.
async fn import(call: &Call, id: Option<String>) -> Result<Value> {
    let session = call.begin(Access::ReadWrite, Blame::Request).await?;
    let id = id_or_last(&session, id).await?;
    ended(session, &id).await
}

async fn errors(call: &Call, id: Option<String>) -> Result<Value> {
    let session = call.begin(Access::ReadWrite, Blame::Request).await?;
    let id = id_or_last(&session, id).await?;
    let failed = session.objects_where(FAILED, &[(&id, Type::TEXT)]).await?;
    ended(session, &id).await?;
    Ok(failed.iter().map(error_of_rpc).collect())
}

async fn cancel(call: &Call, id: Option<String>) -> Result<Value> {
    let session = call.begin(Access::ReadWrite, Blame::Request).await?;
    let id = id_or_last(&session, id).await?;
    let is_cancelled = session.value("bulk_import_cancel($1)", &[(&id, Type::TEXT)]).await? == "true";
    let status = ended(session, &id).await?;
    if is_cancelled {
        return Ok(json!({"message": "Import canceled", "import": of_rpc(&status)}));
    }
    Err(Problem::new(StatusCode::CONFLICT, "this import has ended"))
}

/// The caller's last imports whose ids begin so.
///
/// # Errors
/// 404 if there is none.
async fn last(session: &Session, prefix: &str) -> Result<Vec<Value>> {
    let found = session.objects_where(LAST, &[(&prefix, Type::TEXT)]).await?;
    if found.is_empty() {
        return Err(Problem::new(StatusCode::NOT_FOUND, "there is no such import"));
    }
    Ok(found)
}

async fn id_or_last(session: &Session, id: Option<String>) -> Result<String> {
    match id {
        Some(id) => Ok(id),
        None => {
            let imports = last(session, IMPORT_ID).await?;
            let last = imports.iter().max_by_key(|job| job["created_at"].as_str());
            Ok(last.map_or("", id_of).to_owned())
        }
    }
}

fn id_of(job: &Value) -> &str {
    job["id"].as_str().unwrap_or_default()
}

fn new_id(prefix: &str) -> Result<String> {
    let mut random = [0; 16];
    let filled = ring::rand::SystemRandom::new().fill(&mut random);
    filled.map_err(|_| Problem::unavailable("no random numbers"))?;
    Ok(random.iter().fold(prefix.to_owned(), |id, byte| id + &format!("{byte:02x}")))
}
