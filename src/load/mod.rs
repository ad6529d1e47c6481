//! `bulk_load`: stores the NDJSON of a source in resource tables, in the caller's transaction: all of it or nothing.

mod lines;
mod options;
mod refusals;
mod rejects;
mod run;
mod tables;

pub use lines::{Form, Lines};
pub use options::{OnError, Options, known};
pub use refusals::{of_line as refusal, of_source as unreadable};
pub use run::{Batch, Load, Pace, Plan, Position, store};
pub use tables::Tables;

use crate::arguments::{parsed, required};
use crate::source::{self, Reach};
use crate::store::ResourceType;
use fhir_bulk_pg::datum::JsonbBytes;
use fhir_bulk_pg::error::{Error, Result, or_raise};
use fhir_bulk_pg::session;
use fhir_bulk_pg::whole::reporting;
use pgrx::prelude::*;
use pgrx::{JsonB, PgSqlErrorCode, default};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Loads a source. Returns `{"total": n}` or the count of each type; with `skip_unchanged` also how many were `unchanged`,
/// with `on_error` "skip" the number of `errors`.
#[pg_extern(volatile, parallel_unsafe)]
fn bulk_load(
    source: Option<&str>,
    resource_type: default!(Option<&str>, "NULL"),
    fhir: default!(Option<bool>, "false"),
    options: default!(Option<JsonbBytes<'_>>, "'{}'"),
) -> JsonB {
    JsonB(reporting(|| or_raise(load(source, resource_type, fhir, options))))
}

/// 1. check the arguments and that the transaction may write
/// 2. open the source
/// 3. store all its lines
fn load(
    source: Option<&str>,
    resource_type: Option<&str>,
    fhir: Option<bool>,
    options: Option<JsonbBytes<'_>>,
) -> Result<Value> {
    session::prevent_if_read_only(c"bulk_load()");
    let (url, fhir) = (required(source, "source")?, required(fhir, "fhir")?);
    let options = Options::parse(parsed(options, "options")?)?;
    let resource_type = resource_type.map(ResourceType::new).transpose()?;
    let typed = resource_type.is_some();

    // No retries: the caller waits for the result, and can call again.
    let source = source::open(url, &Reach::default())?;
    let compares = options.known.skips_unchanged();
    let (share, start, txid) = (None, Position::default(), None);
    let plan = Plan { resource_type, table: None, fhir, options, mistaken: None, share, start, txid };
    let mut load = Load::start(source, plan)?;
    let Batch { counts, unchanged, .. } = load.batch(|_, _| false)?;
    Ok(answer(&counts, typed, compares.then_some(unchanged), load.finish()))
}

/// A function of 0.1.0: its install script, from which upgrades start, needs it in the library.
#[pg_extern(sql = false)]
fn bulk_load_stage(_piece: Option<&[u8]>) -> i64 {
    Error::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, "bulk_load_stage() no longer exists")
        .hint("ALTER EXTENSION fhir_bulk UPDATE; then COPY bulk_resource FROM STDIN (FORMAT fhir) takes the bytes.")
        .raise()
}

/// The result of a load: `{"total": n}` or the count of each type, `unchanged` if resources are compared, and `errors` if
/// lines may be skipped.
pub fn answer(counts: &BTreeMap<String, u64>, typed: bool, unchanged: Option<u64>, errors: Option<u64>) -> Value {
    let mut answer = if typed {
        json!({"total": counts.values().sum::<u64>()})
    } else {
        Value::Object(counts.iter().map(|(name, count)| (name.clone(), (*count).into())).collect::<Map<_, _>>())
    };
    for (name, count) in [("unchanged", unchanged), ("errors", errors)] {
        if let Some(count) = count {
            answer[name] = count.into();
        }
    }
    answer
}
