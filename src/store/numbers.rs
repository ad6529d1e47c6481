//! The numbers of versions: each load takes one, and all rows that it writes have it in `txid`.
//!
//! They come from the sequence `transaction_id_seq`. On a cluster of Citus it is that of the coordinator, for loads on any
//! node: a number that is larger is one that was taken later, wherever.

use super::ResourceTable;
use super::statement::{qualified, sql};
use super::table::{COMMON, schema_oid, wait_for_others};
use crate::citus::{self, Node};
use crate::settings;
use fhir_bulk_pg::catalog;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::spi;
use pgrx::{PgSqlErrorCode, pg_sys};
use std::ffi::CStr;

const SEQUENCE: &CStr = c"transaction_id_seq";

/// The next number of the sequence that counts versions: the sequence of the table's schema if there is one, else that of
/// `fhir_bulk.data_schema`, which is created if it does not exist. On a worker of Citus the coordinator is asked, as the
/// current role; a number that is not used in the end is lost.
///
/// # Errors
/// 3F000; on a worker those of [`Node::ask`]. PostgreSQL raises its own errors.
pub fn next_txid(table: Option<&ResourceTable>) -> Result<i64> {
    if let Some(coordinator) = citus::coordinator_of_worker()? {
        return next_of(&coordinator, table);
    }
    let own = table.map(ResourceTable::schema);
    let sequence = match own.filter(|schema| schema_oid(schema).is_ok_and(has_sequence)) {
        Some(schema) => qualified(schema, SEQUENCE),
        None => get_or_create_sequence()?,
    };
    let next = format!("SELECT pg_catalog.nextval({}::pg_catalog.regclass)", citus::literal(&sequence));
    let found = spi::texts(&sql(next), &[]);
    Ok(found.first().and_then(|number| number.parse().ok()).expect("nextval gives a bigint"))
}

/// Creates the sequence that counts versions, if it does not exist. On a worker of Citus it does nothing.
///
/// # Errors
/// 3F000. PostgreSQL raises its own errors.
pub fn make_sequence() -> Result<()> {
    if citus::coordinator_of_worker()?.is_none() {
        get_or_create_sequence()?;
    }
    Ok(())
}

/// The next number of the coordinator's sequence.
fn next_of(coordinator: &Node, table: Option<&ResourceTable>) -> Result<i64> {
    let data_schema = settings::data_schema()?;
    let own = table.map(ResourceTable::schema).filter(|schema| *schema != data_schema.as_c_str());
    for schema in own.into_iter().chain([data_schema.as_c_str()]) {
        let sequence = qualified(schema, SEQUENCE);
        let found = format!("pg_catalog.to_regclass({})", citus::literal(&sequence));
        let next = format!("CASE WHEN {found} IS NOT NULL THEN pg_catalog.nextval({found}) END");
        let mut answer = coordinator.ask(&[], &next)?;
        if answer.is_empty() {
            if schema != data_schema.as_c_str() {
                continue;
            }
            coordinator.run(&format!("CREATE SEQUENCE IF NOT EXISTS {sequence}"))?;
            answer = coordinator.ask(&[], &next)?;
        }
        return answer.parse().map_err(|_| {
            let message = format!("node {coordinator} gave \"{answer}\" for the next number of {sequence}");
            Error::new(PgSqlErrorCode::ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, message)
        });
    }
    unreachable!("the last schema returns")
}

fn has_sequence(schema: pg_sys::Oid) -> bool {
    catalog::relation(SEQUENCE, schema).is_some()
}

/// The sequence's name, quoted.
fn get_or_create_sequence() -> Result<String> {
    let schema = settings::data_schema()?;
    let schema_oid = schema_oid(&schema)?;
    let sequence = qualified(&schema, SEQUENCE);
    if !has_sequence(schema_oid) {
        wait_for_others(schema_oid, COMMON);
        if !has_sequence(schema_oid) {
            spi::execute(&sql(format!("CREATE SEQUENCE {sequence}")), &[]);
        }
    }
    Ok(sequence)
}
