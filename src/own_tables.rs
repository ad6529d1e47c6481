//! Reads and writes the extension's own tables, in schema `fhir_bulk_internal`: jobs, submissions, rejected lines, the
//! secret. Only this file does so, as the extension's owner, whatever GRANTs exist. It calls functions of that schema
//! (`sql/queue.sql`, `own_jobs.sql`, `submissions.sql`, `kept.sql`), which can also be called from psql.
//!
//! The tables must not be replicated, but a publication FOR ALL TABLES includes them. A subscriber with the extension would
//! run the jobs a second time, and keys that both servers have used would stop the replication of all tables.

use fhir_bulk_pg::error::Error;
use fhir_bulk_pg::memory::with_scratch;
use fhir_bulk_pg::spi::{Parameter, kept};
use fhir_bulk_pg::{replication, session};
use pgrx::heap_tuple::PgHeapTupleError;
use pgrx::prelude::*;
use pgrx::{PgSqlErrorCode, pg_sys};
use serde::de::DeserializeOwned;
use std::cell::Cell;
use std::ffi::CString;

thread_local! {
    /// Whether one of this file's statements is running.
    static OURS: Cell<bool> = const { Cell::new(false) };
}

/// Calls a function of schema `fhir_bulk_internal` as the extension's owner, such as `delete_job($1)`.
pub fn call(owner: pg_sys::Oid, function: &str, parameters: impl FnOnce() -> Vec<Parameter>) {
    ours(owner, || {
        with_scratch(|| kept::execute(&sql(format!("SELECT fhir_bulk_internal.{function}")), &parameters()))
    });
}

/// As [`call`], and returns the function's result: rows with columns by name, or values. NULLs are left out.
pub fn rows<T: DeserializeOwned>(
    owner: pg_sys::Oid,
    function: &str,
    parameters: impl FnOnce() -> Vec<Parameter>,
) -> Vec<T> {
    let query = sql(format!("SELECT to_jsonb(r) FROM fhir_bulk_internal.{function} AS r"));
    let texts = ours(owner, || with_scratch(|| kept::texts(&query, &parameters())));
    texts.iter().map(|text| serde_json::from_str(text).expect("the shape that the function has")).collect()
}

/// As [`call`], and returns the function's result: values of type bytea, without NULLs.
pub fn bytes(owner: pg_sys::Oid, function: &str, parameters: impl FnOnce() -> Vec<Parameter>) -> Vec<Vec<u8>> {
    let query = sql(format!("SELECT r FROM fhir_bulk_internal.{function} AS r"));
    ours(owner, || with_scratch(|| kept::byteas(&query, &parameters())))
}

fn ours<T>(owner: pg_sys::Oid, work: impl FnOnce() -> T) -> T {
    /// Restores the old value, also when `work` unwinds.
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

/// Trigger before each change of a row and before TRUNCATE: refuses changes that do not come from this file. It ignores
/// changes from logical replication, so that replication goes on. A role may delete lines that its own loads rejected, and
/// files that its own imports remember, as it does through the views.
#[pg_trigger(sql = r#"
CREATE FUNCTION fhir_bulk_internal.own_rows() RETURNS trigger LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn own_rows<'a>(trigger: &'a PgTrigger<'a>) -> Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, PgHeapTupleError> {
    if !OURS.get() && replication::is_applying() {
        return Ok(None);
    }
    if !OURS.get() && !deletes_own(trigger) {
        let table = trigger.table_name().unwrap_or_default();
        Error::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("only the extension fhir_bulk may write table fhir_bulk_internal.{table}"),
        )
        .hint("Use its functions: bulk_import_cancel() and bulk_export_cancel() end jobs.")
        .raise();
    }
    Ok(trigger.new().or_else(|| trigger.old()))
}

fn deletes_own(trigger: &PgTrigger<'_>) -> bool {
    let Some(row) = trigger.old().filter(|_| trigger.new().is_none()) else { return false };
    let of_role = || row.get_by_name::<pg_sys::Oid>("role").ok().flatten() == Some(session::role());
    match trigger.table_name().as_deref() {
        Ok("bulk_load_reject_row") => of_role(),
        Ok("bulk_file") if of_role() => {
            if row.get_by_name::<i64>("job").ok().flatten().is_some() {
                let url = row.get_by_name::<String>("url").ok().flatten().unwrap_or_default();
                Error::new(PgSqlErrorCode::ERRCODE_OBJECT_IN_USE, format!("an import works on {url}"))
                    .hint("Wait for it, or end it with bulk_import_cancel(). To delete the others: WHERE status <> 'active'.")
                    .raise();
            }
            true
        }
        _ => false,
    }
}

/// Its name in 0.1.0: `CREATE EXTENSION … VERSION '0.1.0'` and the upgrade from 0.1.0 need it.
#[pg_trigger(sql = false)]
fn bulk_own_rows<'a>(
    trigger: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, PgHeapTupleError> {
    own_rows(trigger)
}
