//! The function by which a statement asks for rows while it runs.

use crate::extension;
use fhir_bulk_pg::datum::{Jsonb, Text, Timestamptz};
use fhir_bulk_pg::error::{Error, or_raise};
use fhir_bulk_pg::supply::{Supplied, Supply};
use pgrx::PgSqlErrorCode;
use pgrx::prelude::*;

/// `id, resource, cts`
pub type SuppliedRow = (Text, Jsonb, Timestamptz);

thread_local! { static SUPPLIED: Supplied<SuppliedRow> = const { Supplied::new() } }

/// Runs a statement that calls [`function`] once.
pub(super) fn offer<T>(supply: &mut dyn Supply<SuppliedRow>, statement: impl FnOnce() -> T) -> T {
    SUPPLIED.with(|supplied| supplied.offer(supply, statement))
}

/// The call in a statement.
pub(super) fn function() -> String {
    format!("{}.bulk_load_rows()", extension::schema())
}

/// The rows of the load that calls it: of a load into a table that Citus distributes.
#[pg_extern(volatile, parallel_unsafe)]
fn bulk_load_rows() -> TableIterator<'static, (name!(id, Text), name!(resource, Jsonb), name!(cts, Timestamptz))> {
    let taken = SUPPLIED.with(Supplied::take).ok_or_else(|| {
        Error::new(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "no load has rows for bulk_load_rows()")
            .detail("Loads call it in their own statements.")
    });
    let taken = or_raise(taken);
    TableIterator::new(std::iter::from_fn(move || SUPPLIED.with(|supplied| supplied.next(&taken))))
}
