//! The path into tables that Citus distributes: rows that are new go to their shards by COPY.
//!
//! Of an `INSERT … SELECT` without ON CONFLICT Citus makes one COPY for each shard, which is the fastest way into a
//! distributed table. With ON CONFLICT it writes the rows to files on the servers of the shards, from which a statement for
//! each shard then reads them.

use super::batch::Batch;
use super::statements::Statements;
use fhir_bulk_pg::subtransaction;
use pgrx::PgSqlErrorCode;

/// A statement has a COPY for each shard, so its batches are larger than others.
const ROWS: usize = 32_000;
const BYTES: usize = 16 << 20;
/// The first batch finds out whether ids are known. It is small, because it is written twice if they are.
const FIRST_ROWS: usize = 1000;

/// What is raised where an id is known: PostgreSQL's own code, or Citus's for any failure on the server of a shard. If it
/// was another failure, the statement that follows reports it, with the code that server gave it.
const MAY_BE_TAKEN: [PgSqlErrorCode; 2] =
    [PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION, PgSqlErrorCode::ERRCODE_INTERNAL_ERROR];

/// Writes batches into one table.
pub(super) struct Shards {
    statements: Statements,
    /// What is known of the ids that come.
    ids: Ids,
}

enum Ids {
    NotSeen,
    New,
    /// Some are known.
    Mixed,
}

impl Shards {
    pub fn new(statements: Statements) -> Shards {
        Shards { statements, ids: Ids::NotSeen }
    }

    /// How many rows and bytes make a batch full.
    pub fn batch_limits(&self) -> (usize, usize) {
        (if matches!(self.ids, Ids::NotSeen) { FIRST_ROWS } else { ROWS }, BYTES)
    }

    /// The statements that write.
    pub fn statements(&self) -> &Statements {
        &self.statements
    }

    /// Writes rows of a batch, with different ids. Returns how many of them are not in the table afterwards.
    pub fn write(&mut self, batch: &Batch, rows: Vec<usize>) -> u64 {
        let Shards { statements, ids } = self;
        if !matches!(ids, Ids::Mixed) {
            let inserted = subtransaction::unless(&MAY_BE_TAKEN, || statements.insert(batch, &rows));
            *ids = if inserted.is_some() { Ids::New } else { Ids::Mixed };
            if inserted.is_some() {
                return 0;
            }
        }
        (rows.len() as u64).saturating_sub(statements.upsert(batch, rows))
    }
}
