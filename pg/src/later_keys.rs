//! The entries of a unique index for many rows, inserted when the rows are stored: sorted, so that they go into one page
//! after the other. In the order of the rows, each goes into any page of the index, and in a large one waits for memory on its
//! whole way there.

use super::datum::{Value, Values, prefix};
use super::find::{Old, Place, fetch_row, look};
use super::memory::Scratch;
use super::session::check_for_interrupts;
use super::whole::call_for_client;
use pgrx::pg_sys;
use std::collections::TryReserveError;

/// So many entries are inserted between two looks for a cancel.
const ENTRIES_PER_LOOK: usize = 4096;

unsafe extern "C-unwind" {
    // genam.h; not pgrx's wrapper, as `whole` asks.
    fn index_insert(
        index: pg_sys::Relation,
        values: *mut pg_sys::Datum,
        is_null: *mut bool,
        place: pg_sys::ItemPointer,
        table: pg_sys::Relation,
        unique: pg_sys::IndexUniqueCheck::Type,
        is_unchanged: bool,
        info: *mut pg_sys::IndexInfo,
    ) -> bool;
}

/// The most bytes of keys, and the most rows, that are kept.
const MOST_KEY_BYTES: usize = 12 << 20;
const MOST_ROWS: usize = 350_000;

/// Keys of rows that a [`HeapInsert`](super::insert::HeapInsert) has stored, and where the rows are.
pub struct LaterKeys {
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
    has_others: bool,
    keys: Values,
    entries: Vec<Entry>,
    scratch: Scratch,
}

#[derive(Clone, Copy)]
struct Entry {
    /// The first bytes of the key, whose order is mostly that of the keys.
    prefix: u128,
    key: Value,
    place: Place,
}

impl LaterKeys {
    /// Prepares to insert the entries of an index of one column, of variable length, later. `None` if the index has more than
    /// that, or the table has another index that may refuse a row: then nothing tells which of them it was.
    ///
    /// # Safety
    /// The table and its indexes are open as long as this value, and `relation_info` has them.
    pub(super) unsafe fn of(
        table: pg_sys::Relation,
        relation_info: *mut pg_sys::ResultRelInfo,
        index: pg_sys::Oid,
    ) -> Option<LaterKeys> {
        // SAFETY: the caller guarantees it; an open index has its row in pg_index.
        unsafe {
            let relation_info = &*relation_info;
            let count = relation_info.ri_NumIndices.max(0) as usize;
            let indexes = std::slice::from_raw_parts(relation_info.ri_IndexRelationDescs, count);
            let infos = std::slice::from_raw_parts(relation_info.ri_IndexRelationInfo, count);
            let at = indexes.iter().position(|open| (**open).rd_id == index)?;
            let (index, info) = (indexes[at], infos[at]);
            let is_simple = (*(*index).rd_index).indnatts == 1 && (*info).ii_Expressions.is_null();
            let may_refuse =
                |info: &&*mut pg_sys::IndexInfo| (***info).ii_Unique || !(***info).ii_ExclusionOps.is_null();
            let is_only = infos.iter().filter(may_refuse).count() == 1;
            (is_simple && is_only && (*info).ii_Unique && (*info).ii_ReadyForInserts).then(|| LaterKeys {
                table,
                index,
                info,
                has_others: count > 1,
                keys: Values::default(),
                entries: Vec::new(),
                scratch: Scratch::default(),
            })
        }
    }

    /// Whether the table has other indexes.
    pub(super) fn has_others(&self) -> bool {
        self.has_others
    }

    /// Whether PostgreSQL inserts entries with those of the other indexes.
    pub(super) fn set_ready(&self, is_ready: bool) {
        // SAFETY: the info lives as long as the insert.
        unsafe { (*self.info).ii_ReadyForInserts = is_ready }
    }

    /// Whether there is room for these rows, too.
    pub fn has_room(&self, rows: usize, key_bytes: usize) -> bool {
        let all_key_bytes = self.keys.size() + key_bytes + rows * Values::HEAD_BYTES;
        self.entries.len() + rows <= MOST_ROWS && all_key_bytes <= MOST_KEY_BYTES
    }

    /// Takes the memory for as many as there may be, unless it has it.
    ///
    /// # Errors
    /// Out of memory.
    pub fn reserve(&mut self) -> Result<(), TryReserveError> {
        self.keys.reserve(MOST_KEY_BYTES - self.keys.size())?;
        self.entries.try_reserve_exact(MOST_ROWS - self.entries.len())
    }

    /// Adds the key of a row that was stored, for which there is room.
    pub fn push(&mut self, key: &[u8], place: Place) {
        let pushed = self.keys.push::<std::convert::Infallible>(|out| {
            out.extend_from_slice(key);
            Ok(())
        });
        let Ok(key_at) = pushed;
        self.entries.push(Entry { prefix: prefix(key), key: key_at, place });
    }

    /// Inserts the entries. False if another row has one of the keys, or may have it when its transaction has committed: then
    /// the subtransaction must be rolled back. Does not wait for other transactions.
    pub fn insert(&mut self) -> bool {
        let LaterKeys { table, index, info, keys, entries, scratch, .. } = self;
        entries.sort_unstable_by(|a, b| a.prefix.cmp(&b.prefix).then_with(|| keys.bytes(a.key).cmp(keys.bytes(b.key))));
        let (table, index, info) = (*table, *index, *info);
        entries.chunks(ENTRIES_PER_LOOK).all(|chunk| {
            check_for_interrupts();
            scratch.run(|| {
                // SAFETY: index and table are open, the rows are of the table, and their keys of the index's only column.
                unsafe {
                    call_for_client(|| {
                        chunk.iter().all(|entry| {
                            let (mut key, mut is_null, mut place) = (keys.datum(entry.key), false, entry.place.0);
                            let unique = pg_sys::IndexUniqueCheck::UNIQUE_CHECK_PARTIAL;
                            index_insert(index, &mut key, &mut is_null, &mut place, table, unique, false, info)
                        })
                    })
                }
            })
        })
    }

    /// Passes the rows to `take`, in the order in which they were added. Before a rollback: after it they are gone.
    pub fn each_row(&mut self, mut take: impl FnMut(&Old<'_>)) {
        self.entries.sort_unstable_by_key(|entry| entry.key);
        let table = self.table;
        let mut row = (Vec::new(), Vec::new());
        for entry in &self.entries {
            check_for_interrupts();
            self.scratch.run(|| {
                // SAFETY: the table is open; this transaction stored the row, so that nobody else has removed it. Its page
                // stays pinned while it is looked at.
                unsafe {
                    let mut tuple = pg_sys::HeapTupleData { t_self: entry.place.0, ..Default::default() };
                    let any = &raw mut pg_sys::SnapshotAnyData;
                    let Some(page) = fetch_row(table, any, &mut tuple) else { return };
                    look(table, &mut tuple, &mut row, &mut take);
                    pg_sys::ReleaseBuffer(page);
                }
            });
        }
    }

    /// Forgets them, but keeps the memory.
    pub fn clear(&mut self) {
        self.keys.clear(MOST_KEY_BYTES);
        self.entries.clear();
    }

    /// Frees everything. After an error the transaction's end does that instead.
    pub fn close(self) {
        self.scratch.delete();
    }
}
