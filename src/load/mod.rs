//! `bulk_load`: NDJSON from a source into resource tables, in the caller's transaction: all of it or nothing.

mod options;
mod refusals;
mod rejects;
mod run;
mod stage;
mod tables;

pub use options::Options;
pub use run::{Load, Pace, Plan, Position};

use crate::arguments::required;
use crate::store::ResourceType;
use fhir_bulk_pg::error::{Result, or_raise};
use fhir_bulk_pg::session;
use pgrx::prelude::*;
use pgrx::{JsonB, default};
use serde_json::{Map, Value, json};

/// Loads a source; the answer is `{"total": n}` or the count of each type, and with `on_error` "skip" `errors`.
#[pg_extern(volatile, parallel_unsafe)]
fn bulk_load(
    source: Option<&str>,
    resource_type: default!(Option<&str>, "NULL"),
    fhir: default!(Option<bool>, "false"),
    options: default!(Option<JsonB>, "'{}'"),
) -> JsonB {
    JsonB(or_raise(load(source, resource_type, fhir, options)))
}

/// 1. check the arguments and that the transaction may write
/// 2. open the source
/// 3. store all its lines
fn load(
    source: Option<&str>,
    resource_type: Option<&str>,
    fhir: Option<bool>,
    options: Option<JsonB>,
) -> Result<Value> {
    session::prevent_if_read_only(c"bulk_load()");
    let (url, fhir) = (required(source, "source")?, required(fhir, "fhir")?);
    let options = Options::parse(required(options, "options")?.0)?;
    let resource_type = resource_type.map(ResourceType::new).transpose()?;
    let typed = resource_type.is_some();

    // Whoever waits for the answer decides whether to try again.
    let mut load = Load::open(url, Plan { resource_type, fhir, options, retries: 0, start: Position::default() })?;
    let counts = load.batch(|_, _| false)?.counts;
    let mut answer = if typed {
        json!({"total": counts.values().sum::<u64>()})
    } else {
        Value::Object(counts.into_iter().map(|(name, count)| (name, count.into())).collect::<Map<_, _>>())
    };
    if let Some(errors) = load.finish() {
        answer["errors"] = errors.into();
    }
    Ok(answer)
}
