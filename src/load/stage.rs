//! `bulk_load_stage`: resources that come from the client itself, in pieces, for a load of the same transaction.

use crate::arguments::required;
use crate::source::staged;
use fhir_bulk_pg::error::or_raise;
use fhir_bulk_pg::session;
use pgrx::prelude::*;

/// Adds a piece to what `bulk_load('staged://', …)` will load; answers how many bytes there are.
#[pg_extern(volatile, parallel_unsafe)]
fn bulk_load_stage(piece: Option<&[u8]>) -> i64 {
    session::prevent_if_read_only(c"bulk_load_stage()");
    let bytes = or_raise(required(piece, "piece").and_then(staged::add));
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
