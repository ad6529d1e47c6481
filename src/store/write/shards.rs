//! The path into tables that Citus distributes: rows that are new go to their shards by COPY.
//!
//! Of an `INSERT … SELECT` without ON CONFLICT Citus makes one COPY for each shard, which is the fastest way into a
//! distributed table. With ON CONFLICT it writes the rows to files on the servers of the shards, from which a statement for
//! each shard then reads them.

use super::batch::Batch;
use super::kept::{Kept, out_of_memory};
use super::statements::{Statements, Target};
use super::streamed::{Next, Taker};
use super::supplied::{self, SuppliedRow};
use fhir_bulk_pg::datum::{Jsonb, Text, Timestamptz};
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::memory::with_scratch;
use fhir_bulk_pg::supply::Supply;
use fhir_bulk_pg::{session, spi, subtransaction};
use pgrx::PgSqlErrorCode;
use std::ffi::CString;

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
    /// See [`Target::insert_supplied`].
    insert_supplied: CString,
    /// What is known of the ids that come.
    ids: Ids,
}

/// Takes the row that a statement asks for.
struct Asked<'a> {
    kept: &'a mut Kept,
    ts: i64,
    row: Option<SuppliedRow>,
}

impl Taker for Asked<'_> {
    fn has_room(&self, id: &str, resource: &[u8]) -> bool {
        self.kept.has_room(id, resource)
    }

    fn take(&mut self, id: &str, resource: &[u8], created_at: Option<i64>) -> Result<()> {
        self.kept.keep(id, resource, created_at);
        let cts = created_at.unwrap_or(self.ts);
        self.row = Some((Text::new(id.as_bytes()), Jsonb::new(resource), Timestamptz::new(cts)));
        Ok(())
    }
}

/// Rows for a running statement.
struct Coming<'c, 'n> {
    kept: Kept,
    next: &'c mut Next<'n>,
    ts: i64,
    /// Why there are no more. Raised in the statement, it could be taken for an error of the statement's.
    error: Option<Error>,
}

impl Supply<SuppliedRow> for Coming<'_, '_> {
    fn next(&mut self) -> Option<SuppliedRow> {
        let mut asked = Asked { kept: &mut self.kept, ts: self.ts, row: None };
        match (self.next)(&mut asked) {
            Ok(true) => asked.row,
            Ok(false) => None,
            Err(error) => {
                self.error = Some(error);
                None
            }
        }
    }
}

enum Ids {
    NotSeen,
    New,
    /// Some are known.
    Mixed,
}

impl Shards {
    pub fn new(statements: Statements, target: &Target) -> Shards {
        Shards { statements, insert_supplied: target.insert_supplied(), ids: Ids::NotSeen }
    }

    /// How many rows and bytes make a batch full.
    pub fn batch_limits(&self) -> (usize, usize) {
        (if matches!(self.ids, Ids::NotSeen) { FIRST_ROWS } else { ROWS }, BYTES)
    }

    /// Whether rows may come while a statement writes them: as far as is known, all of them are new.
    pub fn streams(&self) -> bool {
        matches!(self.ids, Ids::New)
    }

    /// Writes rows that come while they are written: collecting them takes as long as writing them does, and each statement
    /// waits for its slowest shard. `next` gives a row, or returns false. They are kept meanwhile, in case that some are known:
    /// then they are written by way of `batch`, which is empty. Returns how many there were, and how many of them are not in
    /// the table afterwards.
    ///
    /// # Errors
    /// Those of `next`; 53200 if there is no memory for the batch.
    pub fn stream(&mut self, batch: &mut Batch, next: &mut Next<'_>) -> Result<(u64, u64)> {
        let (parameters, ts) = (batch.stamp_parameters(), batch.stamp().ts);
        let mut coming = Coming { kept: Kept::new(), next, ts, error: None };
        let insert = || spi::execute_large(&self.insert_supplied, &parameters);
        let inserted = subtransaction::unless(&MAY_BE_TAKEN, || with_scratch(|| supplied::offer(&mut coming, insert)));
        let Coming { kept, error, .. } = coming;
        if let Some(error) = error {
            return Err(error);
        }
        let lines = kept.rows();
        if inserted.is_some() {
            kept.forget();
            return Ok((lines, 0));
        }
        self.ids = Ids::Mixed;
        let mut kept_out = 0;
        kept.each(|id, resource, cts| {
            batch.push(id, resource, cts).map_err(out_of_memory)?;
            if batch.len() == ROWS || batch.bytes() >= BYTES {
                kept_out += self.write_and_clear(batch);
            }
            Ok(())
        })?;
        Ok((lines, kept_out + self.write_and_clear(batch)))
    }

    fn write_and_clear(&mut self, batch: &mut Batch) -> u64 {
        session::check_for_interrupts();
        let rows = batch.last_of_each_id(batch.all());
        let kept_out = self.write(batch, rows);
        batch.clear(2 * BYTES);
        kept_out
    }

    /// The statements that write.
    pub fn statements(&self) -> &Statements {
        &self.statements
    }

    /// Writes rows of a batch, with different ids. Returns how many of them are not in the table afterwards.
    pub fn write(&mut self, batch: &Batch, rows: Vec<usize>) -> u64 {
        let Shards { statements, ids, .. } = self;
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
