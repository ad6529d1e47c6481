//! Citus, if the database has it: which tables it distributes to other servers, and how it is asked to.

use fhir_bulk_pg::catalog;
use fhir_bulk_pg::error::{Error, Result};
#[cfg(doc)]
use fhir_bulk_pg::session;
use fhir_bulk_pg::spi::{self, Parameter};
use pgrx::{PgSqlErrorCode, pg_sys};
use std::ffi::{CStr, CString};

/// Whether the database has Citus.
pub fn is_here() -> bool {
    has(c"pg_dist_partition")
}

/// Whether Citus distributes a table. Then only a shell of it is here, without rows.
pub fn is_distributed(table: pg_sys::Oid) -> bool {
    let query = c"SELECT 'yes' FROM pg_dist_partition WHERE logicalrelid = $1";
    is_here() && !spi::catalog_texts(query, &[Parameter::oid(table)]).is_empty()
}

/// The column by whose value Citus finds the shard of a row. `None` for tables that it does not distribute, and for those
/// that it does not cut, such as reference tables.
pub fn distribution_column(table: pg_sys::Oid) -> Option<String> {
    if !is_distributed(table) {
        return None;
    }
    let query = c"SELECT column_to_column_name(logicalrelid, partkey) FROM pg_dist_partition WHERE logicalrelid = $1";
    spi::catalog_texts(query, &[Parameter::oid(table)]).pop()
}

/// How many bytes the shards of a distributed table have, on all servers; `None` of another table.
pub fn bytes(table: pg_sys::Oid) -> Option<u64> {
    if !is_distributed(table) {
        return None;
    }
    spi::catalog_texts(c"SELECT citus_table_size($1)", &[Parameter::oid(table)]).pop()?.parse().ok()
}

/// Whether Citus may have the rows of two tables on different servers. It cannot join such tables in every query.
pub fn are_apart(table: pg_sys::Oid, other: pg_sys::Oid) -> bool {
    let query = c"SELECT 'yes' FROM pg_dist_partition t WHERE t.logicalrelid = $1 AND t.colocationid = \
        (SELECT o.colocationid FROM pg_dist_partition o WHERE o.logicalrelid = $2)";
    let is_together = || !spi::catalog_texts(query, &[Parameter::oid(table), Parameter::oid(other)]).is_empty();
    (is_distributed(table) || is_distributed(other)) && !is_together()
}

/// Whether this server is one of Citus's workers, and not the coordinator.
pub fn is_worker() -> bool {
    let query = c"SELECT 'yes' FROM pg_dist_local_group WHERE groupid <> 0";
    has(c"pg_dist_local_group") && !spi::catalog_texts(query, &[]).is_empty()
}

/// Runs a query that returns one text on each worker, as the current role. Returns the texts, and the servers that did not
/// answer, each with the reason. Without Citus there are none. It runs under the active snapshot, and the caller's
/// search_path must be [`session::SAFE_SEARCH_PATH`].
pub fn ask_workers(query: &CStr) -> (Vec<String>, Vec<String>) {
    if !has(c"pg_dist_node") {
        return (Vec::new(), Vec::new());
    }
    let ask = c"SELECT CASE WHEN success THEN concat('+', result) ELSE concat('-', nodename, ':', nodeport, ': ', result) END \
        FROM run_command_on_workers($1) \
        UNION ALL SELECT '-the coordinator: workers do not ask it' FROM pg_dist_local_group WHERE groupid <> 0";
    let answers = spi::texts_in_snapshot(ask, &[Parameter::string(&query.to_string_lossy())]);
    let (good, bad): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.starts_with('+'));
    let text = |answers: Vec<String>| answers.into_iter().map(|answer| answer[1..].to_owned()).collect();
    (text(good), text(bad))
}

/// Whether a transaction prepared for two-phase commit under this name belongs to a process of the coordinator.
pub fn prepares(pid: &str, name: &str) -> bool {
    name.strip_prefix("citus_0_").and_then(|rest| rest.strip_prefix(pid)).is_some_and(|rest| rest.starts_with('_'))
}

/// Lets Citus distribute a table by `id`, each row to the server that has the rows of `beside` with the same id. Both are
/// `schema.table`, quoted.
///
/// # Errors
/// 55000 without Citus. Citus raises its own errors.
pub fn distribute(table: &str, beside: Option<&str>) -> Result<()> {
    if !is_here() {
        let message = "fhir_bulk.distribute_tables is on, but this database has no Citus";
        return Err(Error::new(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message)
            .hint("CREATE EXTENSION citus, or turn the setting off."));
    }
    let literal = |name: &str| format!("'{}'", name.replace('\'', "''"));
    let beside = beside.map_or_else(|| "'default'".to_owned(), literal);
    let statement = format!(
        "SELECT pg_catalog.create_distributed_table({}::pg_catalog.regclass, 'id', colocate_with => {beside})",
        literal(table)
    );
    spi::execute(&CString::new(statement).expect("names have no NUL"), &[]);
    Ok(())
}

/// Whether Citus's catalogue has a table. Nobody but a superuser can create one in pg_catalog.
fn has(table: &CStr) -> bool {
    catalog::schema(c"pg_catalog").is_some_and(|schema| catalog::relation(table, schema).is_some())
}
