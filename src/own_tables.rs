//! The extension's own tables, in schema `fhir_bulk_internal`: jobs, rejected lines, the secret. They are read and written
//! from here alone, as the extension's owner, whatever is granted to whom. What is said to them are functions of that schema
//! (`sql/queue.sql`, `own_jobs.sql`, `kept.sql`), which can be called from psql, too.
//!
//! They are each database's own. A publication FOR ALL TABLES has these tables too: at a subscriber that has the extension
//! as well, jobs would be done a second time, and keys that both have given out would end the replication of everything.

use fhir_bulk_pg::error::Error;
use fhir_bulk_pg::memory::with_scratch;
use fhir_bulk_pg::spi::{self, Parameter};
use fhir_bulk_pg::{replication, session};
use pgrx::heap_tuple::PgHeapTupleError;
use pgrx::prelude::*;
use pgrx::{PgSqlErrorCode, pg_sys};
use serde::de::DeserializeOwned;
use std::cell::Cell;
use std::ffi::CString;

thread_local! {
    /// Whether one of our own statements is at work.
    static OURS: Cell<bool> = const { Cell::new(false) };
}

/// Calls a function of schema `fhir_bulk_internal` as the extension's owner, such as `delete_job($1)`.
pub fn call(owner: pg_sys::Oid, function: &str, parameters: impl FnOnce() -> Vec<Parameter>) {
    ours(owner, || with_scratch(|| spi::execute(&sql(format!("SELECT fhir_bulk_internal.{function}")), &parameters())));
}

/// As [`call`], for what it returns: rows with its columns by name, or values. NULLs are left out.
pub fn rows<T: DeserializeOwned>(
    owner: pg_sys::Oid,
    function: &str,
    parameters: impl FnOnce() -> Vec<Parameter>,
) -> Vec<T> {
    let query = sql(format!("SELECT to_jsonb(r) FROM fhir_bulk_internal.{function} AS r"));
    let texts = ours(owner, || with_scratch(|| spi::texts(&query, &parameters())));
    texts.iter().map(|text| serde_json::from_str(text).expect("the shape that the function has")).collect()
}

fn ours<T>(owner: pg_sys::Oid, work: impl FnOnce() -> T) -> T {
    /// Back to what it was, also when `work` unwinds.
    struct Back(bool);
    impl Drop for Back {
        fn drop(&mut self) {
            OURS.set(self.0);
        }
    }
    let _back = Back(OURS.replace(true));
    session::as_role(owner, work)
}

fn sql(text: String) -> CString {
    CString::new(text).expect("our statements have no NUL")
}

/// Before a row of ours changes, or all are to go: refuses what does not come from here. Of another server's changes it
/// takes none, so that replication goes on. Lines that a role's loads rejected, the role itself may delete, as it does
/// through the view.
#[pg_trigger(sql = r#"
CREATE FUNCTION fhir_bulk_internal.own_rows() RETURNS trigger LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn own_rows<'a>(trigger: &'a PgTrigger<'a>) -> Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, PgHeapTupleError> {
    if !OURS.get() && !deletes_own_reject(trigger) {
        if replication::is_applying() {
            return Ok(None);
        }
        let table = trigger.table_name().unwrap_or_default();
        Error::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("table fhir_bulk_internal.{table} is written by the extension fhir_bulk alone"),
        )
        .hint("Use its functions: bulk_import_cancel() and bulk_export_cancel() end jobs.")
        .raise();
    }
    Ok(trigger.new().or_else(|| trigger.old()))
}

fn deletes_own_reject(trigger: &PgTrigger<'_>) -> bool {
    let is_delete = trigger.new().is_none();
    let of_role = || trigger.old().and_then(|row| row.get_by_name::<pg_sys::Oid>("role").ok().flatten());
    is_delete
        && trigger.table_name().is_ok_and(|table| table == "bulk_load_reject_row")
        && of_role() == Some(session::role())
}

/// What 0.1.0 called it: `CREATE EXTENSION … VERSION '0.1.0'` and the upgrade from there ask for it.
#[pg_trigger(sql = false)]
fn bulk_own_rows<'a>(
    trigger: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, PgHeapTupleError> {
    own_rows(trigger)
}
