//! Marks resources as deleted, with the caller's rights: triggers, policies and privileges apply.

use super::batch::Stamp;
use crate::store::ResourceTable;
use crate::store::statement::sql;
use fhir_bulk_pg::memory::with_scratch;
use fhir_bulk_pg::spi::{self, Parameter};
use std::ffi::CString;

/// How many ids a statement has.
const TOGETHER: usize = 4000;

/// Deletions in one table.
pub struct Deletes {
    statement: CString,
    stamp: Stamp,
    ids: Vec<String>,
    /// How many rows were marked.
    marked: u64,
}

impl Deletes {
    /// None yet. The caller has locked the table for writing.
    pub fn of(table: &ResourceTable, stamp: Stamp) -> Deletes {
        let statement = sql(format!(
            "UPDATE {} AS t SET status = 'deleted', txid = $2, ts = $3 WHERE t.id OPERATOR(pg_catalog.=) ANY ($1) \
             AND {} OPERATOR(pg_catalog.<>) 'deleted'",
            table.sql_name,
            table.status("t.")
        ));
        Deletes { statement, stamp, ids: Vec::new(), marked: 0 }
    }

    /// Adds a resource by its id. One that is not there, or deleted already, stays as it is. PostgreSQL raises its errors.
    pub fn push(&mut self, id: &str) {
        self.ids.push(id.to_owned());
        if self.ids.len() == TOGETHER {
            self.flush();
        }
    }

    /// Marks the last ones. Returns how many rows were marked in all.
    pub fn finish(mut self) -> u64 {
        self.flush();
        self.marked
    }

    fn flush(&mut self) {
        if self.ids.is_empty() {
            return;
        }
        let parameters = || {
            let ids = Parameter::strings(self.ids.iter().map(String::as_bytes));
            [ids, Parameter::int8(self.stamp.txid), Parameter::timestamptz(self.stamp.ts)]
        };
        self.marked += with_scratch(|| spi::execute(&self.statement, &parameters()));
        self.ids.clear();
    }
}
