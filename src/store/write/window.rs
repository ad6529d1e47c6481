//! Many batches into a plain table, whose keys are entered together when the rows are stored, sorted: an index that is larger
//! than the processor's caches costs as much as all the rest of a load where each batch goes through all of it.
//!
//! All is in one subtransaction. If one of the ids turns out to be known, it is rolled back, and nothing but its log has seen
//! rows with the same id: decoding passes over what was rolled back. Before that, the rows are read back from the table, since
//! the lines that they were made of are gone.

use super::batch::{self, Batch};
use super::columns::Columns;
use super::kept::{self, Kept, out_of_memory};
use super::streamed::{Next, Taker};
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::find::Old;
use fhir_bulk_pg::insert::HeapInsert;
use fhir_bulk_pg::later_keys::LaterKeys;
use fhir_bulk_pg::{session, subtransaction};
use pgrx::pg_sys;

/// The bytes of rows in the first window, and in the one after a window that was rolled back: rows that are written twice
/// leave dead ones behind. Each window is twice as large as the one before.
const FIRST_BYTES: u64 = 8 << 20;

/// The rows whose keys are entered together.
pub(super) struct Window {
    later: LaterKeys,
    bytes: u64,
}

/// How a window has ended.
pub(super) enum Ended {
    /// All lines are stored.
    Stored(u64),
    /// Some ids are known. Nothing is stored of the lines whose rows are kept.
    Known(u64, Kept),
}

/// Why a window is rolled back.
enum Undone {
    Failed(Error),
    Known(Kept),
}

impl Window {
    /// None if the table's indexes do not allow it.
    pub fn of(insert: &HeapInsert, id_index: pg_sys::Oid) -> Option<Window> {
        Some(Window { later: insert.later_keys(id_index)?, bytes: FIRST_BYTES })
    }

    /// Takes the memory that it needs. False if there is not so much.
    pub fn has_memory(&mut self) -> bool {
        self.later.reserve().is_ok()
    }

    /// Stores rows that `next` gives, by way of `batch`, which is empty before and after.
    ///
    /// It has its memory.
    ///
    /// # Errors
    /// Those of `next`; 53200 if there is no memory for a row. Errors of writing are raised.
    pub fn fill(
        &mut self,
        insert: &mut HeapInsert,
        columns: &Columns,
        batch: &mut Batch,
        next: &mut Next<'_>,
    ) -> Result<Ended> {
        let Window { later, bytes } = self;
        let most_bytes = (*bytes).min(kept::most_bytes());
        let mut lines = 0;
        let done = subtransaction::attempt(|| {
            let mut taken_bytes = 0;
            let mut has_more = true;
            while has_more {
                let mut rows = Rows { batch, later, taken_bytes, most_bytes, key_bytes: 0 };
                while has_more && !rows.batch.is_full() {
                    has_more = next(&mut rows).map_err(Undone::Failed)?;
                }
                taken_bytes = rows.taken_bytes;
                if batch.len() > 0 {
                    lines += batch.len() as u64;
                    store(insert, later, batch);
                }
            }
            if later.insert() { Ok(()) } else { Err(Undone::Known(rows_again(later, columns))) }
        });
        later.clear();
        match done {
            Ok(()) => {
                *bytes = (*bytes * 2).min(kept::MOST_BYTES);
                session::advance_command();
                Ok(Ended::Stored(lines))
            }
            Err(Undone::Known(kept)) => {
                *bytes = FIRST_BYTES;
                insert.was_undone();
                Ok(Ended::Known(lines, kept))
            }
            Err(Undone::Failed(error)) => Err(error),
        }
    }

    /// Frees everything. After an error the transaction's end does that instead.
    pub fn close(self) {
        self.later.close();
    }
}

/// The rows of a batch as they come.
struct Rows<'r> {
    batch: &'r mut Batch,
    later: &'r LaterKeys,
    /// The bytes of all rows of the window.
    taken_bytes: u64,
    most_bytes: u64,
    /// The bytes of the batch's ids.
    key_bytes: usize,
}

impl Taker for Rows<'_> {
    fn has_room(&self, id: &str, resource: &[u8]) -> bool {
        self.taken_bytes + Kept::bytes_of(id, resource) <= self.most_bytes
            && self.later.has_room(self.batch.len() + 1, self.key_bytes + id.len())
    }

    fn take(&mut self, id: &str, resource: &[u8], created_at: Option<i64>) -> Result<()> {
        self.batch.push(id, resource, created_at).map_err(out_of_memory)?;
        self.taken_bytes += Kept::bytes_of(id, resource);
        self.key_bytes += id.len();
        Ok(())
    }
}

/// Stores the rows of a batch in the table, and empties it.
fn store(insert: &mut HeapInsert, later: &mut LaterKeys, batch: &mut Batch) {
    session::check_for_interrupts();
    let mut rows = batch.last_of_each_id(batch.all());
    // The table keeps the source's order.
    rows.sort_unstable();
    insert.insert_but_key(later, rows.len(), |at, row| batch.row_values(rows[at], row), |at| batch.id_bytes(rows[at]));
    batch.clear(2 * batch::BYTES);
    session::have_log_written();
}

/// The rows of a window that is about to be rolled back.
fn rows_again(later: &mut LaterKeys, columns: &Columns) -> Kept {
    let mut kept = Kept::new();
    later.each_row(|row: &Old<'_>| {
        let (Some(id), Some(resource)) = (row.bytes(columns.id), row.bytes(columns.resource)) else { return };
        let created_at = columns.cts.and_then(|column| row.get(column)).map(|cts| cts.value() as i64);
        kept.keep(str::from_utf8(id).unwrap_or_default(), resource, created_at);
    });
    kept
}
