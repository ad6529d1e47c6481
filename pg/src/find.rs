//! Finds rows of a plain heap table by key, without the executor.

use super::compat;
use super::datum::{text_bytes, varlena_bytes, varlena_equals};
use super::slot::clear;
use pgrx::pg_sys;

/// A snapshot of what other transactions have committed and this one has done; in REPEATABLE READ and SERIALIZABLE the
/// transaction's snapshot. While it is held, a row that it sees keeps its place.
pub struct Snapshot(pub(super) pg_sys::Snapshot);

impl Snapshot {
    /// Takes a snapshot. [`Snapshot::release`] releases it; after an error the transaction's end does.
    pub fn take() -> Snapshot {
        // SAFETY: inside a transaction.
        Snapshot(unsafe { pg_sys::RegisterSnapshot(pg_sys::GetTransactionSnapshot()) })
    }

    /// Releases the snapshot.
    pub fn release(self) {
        // SAFETY: registered by `take`, once.
        unsafe { pg_sys::UnregisterSnapshot(self.0) }
    }
}

/// Where a row is in the table.
#[derive(Clone, Copy, Debug)]
pub struct Place(pub(super) pg_sys::ItemPointerData);

/// What is found of a key.
#[derive(Clone, Copy, Debug)]
pub enum Found {
    /// No row.
    Nothing,
    /// A row that may be replaced.
    Row(Place),
    /// A row that need not be replaced.
    Same,
}

/// Whether the row that is found for a key, counted from 0, need not be replaced.
pub type IsSame<'f> = &'f mut dyn FnMut(usize, &Old<'_>) -> bool;

/// The version of a row that is replaced.
pub struct Old<'a> {
    pub(super) descriptor: pg_sys::TupleDesc,
    pub(super) values: &'a [pg_sys::Datum],
    pub(super) nulls: &'a [bool],
}

impl Old<'_> {
    /// The value of a column, by its number; `None` for NULL. The value may point into the page.
    pub fn get(&self, column: i16) -> Option<pg_sys::Datum> {
        let at = column as usize - 1;
        (!self.nulls[at]).then(|| self.values[at])
    }

    /// The bytes of a column of variable length, decompressed in the current memory context where needed; `None` for NULL and
    /// for columns of fixed length.
    pub fn bytes(&self, column: i16) -> Option<&[u8]> {
        let value = self.get(column)?;
        // SAFETY: as in `has_bytes`; callers reset the memory context when they are done with the row.
        unsafe {
            let is_varlena = (*compat::attribute(self.descriptor, column as usize - 1)).attlen == -1;
            is_varlena.then(|| varlena_bytes(value))
        }
    }

    /// Whether a column of variable length has a value with these bytes.
    pub fn has_bytes(&self, column: i16, bytes: &[u8]) -> bool {
        let Some(value) = self.get(column) else { return false };
        // SAFETY: the values are of a row with this descriptor, and live as long as `self`.
        unsafe {
            let is_varlena = (*compat::attribute(self.descriptor, column as usize - 1)).attlen == -1;
            is_varlena && varlena_equals(value, bytes)
        }
    }
}

/// How many rows in a row may be elsewhere than behind the one before, until no more are looked for there.
const MOST_MISSES: u32 = 8;

/// The state for finding the rows of a batch.
pub(super) struct Finder<'a, 'f> {
    table: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    scan: pg_sys::IndexScanDesc,
    key: &'a mut pg_sys::ScanKeyData,
    slot: *mut pg_sys::TupleTableSlot,
    near: Near,
    /// Room for a row's values.
    row: (Vec<pg_sys::Datum>, Vec<bool>),
    is_same: Option<IsSame<'f>>,
}

/// Where the next row is looked for.
struct Near {
    /// The row that was found last.
    last: Option<pg_sys::ItemPointerData>,
    misses: u32,
    /// How many pages the table has.
    pages: u32,
    /// The column of the key; `None` if its values cannot be compared by their bytes.
    column: Option<i16>,
}

impl Near {
    /// # Safety
    /// Both are open, and the index has one column.
    unsafe fn new(table: pg_sys::Relation, index: pg_sys::Relation) -> Near {
        // SAFETY: the caller guarantees it; an index has a number for each of its columns, 0 for an expression.
        unsafe {
            let pages = pg_sys::RelationGetNumberOfBlocksInFork(table, pg_sys::ForkNumber::MAIN_FORKNUM);
            let column = *(*(*index).rd_index).indkey.values.as_ptr();
            let is_varlena = |column: &i16| (*compat::attribute((*table).rd_att, *column as usize - 1)).attlen == -1;
            let column = Some(column).filter(|column| *column > 0).filter(is_varlena);
            Near { last: None, misses: 0, pages, column }
        }
    }

    /// The places behind the last row: the next on its page, and the first of the next page.
    fn places(&self) -> impl Iterator<Item = pg_sys::ItemPointerData> + use<> {
        let last = self.last.map(pgrx::itemptr::item_pointer_get_both);
        let pages = self.pages;
        let places = last.map(|(page, number)| [(page, number + 1), (page + 1, 1)]);
        places.into_iter().flatten().filter(move |(page, _)| *page < pages).map(|(page, number)| {
            let mut place = pg_sys::ItemPointerData::default();
            pgrx::itemptr::item_pointer_set_all(&mut place, page, number);
            place
        })
    }

    /// The row was elsewhere: where the index says, if it is anywhere.
    fn missed(&mut self, place: Option<pg_sys::ItemPointerData>) {
        self.misses += 1;
        self.last = place;
    }
}

impl<'a, 'f> Finder<'a, 'f> {
    /// Begins to look for rows of a table by an index of it. The slot is of the table.
    ///
    /// # Safety
    /// All are open until [`Finder::end`], and the snapshot is registered.
    pub unsafe fn begin(
        (table, index): (pg_sys::Relation, pg_sys::Relation),
        snapshot: &Snapshot,
        key: &'a mut pg_sys::ScanKeyData,
        slot: *mut pg_sys::TupleTableSlot,
        is_same: Option<IsSame<'f>>,
    ) -> Finder<'a, 'f> {
        // SAFETY: the caller guarantees it.
        unsafe {
            let scan = compat::begin_index_scan(table, index, snapshot.0);
            let near = Near::new(table, index);
            Finder { table, snapshot: snapshot.0, scan, key, slot, near, row: (Vec::new(), Vec::new()), is_same }
        }
    }

    /// Ends it: the slot holds no page.
    ///
    /// # Safety
    /// As for [`Finder::begin`].
    pub unsafe fn end(self) {
        // SAFETY: begun in `begin`, and ended once.
        unsafe {
            clear(self.slot);
            pg_sys::index_endscan(self.scan);
        }
    }

    /// Finds the rows of these keys. As long as each is behind the one before, in this `order`, the index is not asked. It is
    /// asked for the others in the order of the keys: then its pages are read one after the other.
    ///
    /// # Safety
    /// As for [`Finder::begin`]; the keys are of the index's type.
    pub unsafe fn all(&mut self, keys: &[pg_sys::Datum], order: &[usize]) -> Vec<Found> {
        let mut all = vec![None; keys.len()];
        if self.near.column.is_some() {
            for at in order {
                if self.near.misses == MOST_MISSES {
                    break;
                }
                // SAFETY: the caller guarantees it.
                all[*at] =
                    Some(unsafe { self.behind(*at, keys[*at]).unwrap_or_else(|| self.elsewhere(*at, keys[*at])) });
            }
        }
        let all = all.into_iter().enumerate();
        // SAFETY: the caller guarantees it.
        all.map(|(at, found)| found.unwrap_or_else(|| unsafe { self.by_index(at, keys[at]) })).collect()
    }

    /// Looks for a key's row behind the one that was found last.
    ///
    /// # Safety
    /// Table and scan are open; the value is of the key's type.
    unsafe fn behind(&mut self, at: usize, value: pg_sys::Datum) -> Option<Found> {
        let Finder { table, snapshot, near, row, is_same, .. } = self;
        let column = near.column?;
        for place in near.places() {
            let mut tuple = pg_sys::HeapTupleData { t_self: place, ..Default::default() };
            // SAFETY: the caller guarantees it; the table has the page, which stays pinned while the row is looked at.
            let found = unsafe {
                let Some(page) = fetch_row(*table, *snapshot, &mut tuple) else { continue };
                let found = look(*table, &mut tuple, row, |old| {
                    let has_key = old.has_bytes(column, text_bytes(value));
                    has_key.then(|| is_same.as_mut().is_some_and(|is_same| is_same(at, old)))
                });
                pg_sys::ReleaseBuffer(page);
                found
            };
            if let Some(same) = found {
                (near.last, near.misses) = (Some(place), 0);
                return Some(if same { Found::Same } else { Found::Row(Place(place)) });
            }
        }
        None
    }

    /// Looks for a key's row by the index, behind which the next one is looked for.
    ///
    /// # Safety
    /// As for [`Finder::behind`].
    unsafe fn elsewhere(&mut self, at: usize, value: pg_sys::Datum) -> Found {
        // SAFETY: the caller guarantees it. The slot has the row if there is one.
        unsafe {
            let found = self.by_index(at, value);
            self.near.missed((!matches!(found, Found::Nothing)).then(|| (*self.slot).tts_tid));
            found
        }
    }

    /// Looks for a key's row by the index. The slot has it.
    ///
    /// # Safety
    /// As for [`Finder::behind`].
    unsafe fn by_index(&mut self, at: usize, value: pg_sys::Datum) -> Found {
        let Finder { table, scan, key, slot, row, is_same, .. } = self;
        key.sk_argument = value;
        // SAFETY: the caller guarantees it.
        unsafe {
            pg_sys::index_rescan(*scan, &raw mut **key, 1, std::ptr::null_mut(), 0);
            if !pg_sys::index_getnext_slot(*scan, pg_sys::ScanDirection::ForwardScanDirection, *slot) {
                return Found::Nothing;
            }
            let same = is_same.as_mut().is_some_and(|is_same| {
                // It is not copied, and so not to be freed.
                let tuple = pg_sys::ExecFetchSlotHeapTuple(*slot, false, std::ptr::null_mut());
                look(*table, tuple, row, |old| is_same(at, old))
            });
            if same { Found::Same } else { Found::Row(Place((**slot).tts_tid)) }
        }
    }
}

/// Calls `look` with a row. The descriptor is the relation's own, which has the values of columns that were added after the row
/// was written.
///
/// # Safety
/// The table is open; the tuple is one of it, whose page is pinned.
pub(super) unsafe fn look<T>(
    table: pg_sys::Relation,
    tuple: pg_sys::HeapTuple,
    row: &mut (Vec<pg_sys::Datum>, Vec<bool>),
    look: impl FnOnce(&Old<'_>) -> T,
) -> T {
    // SAFETY: the caller guarantees it; the arrays have an element for each column.
    unsafe {
        let descriptor = (*table).rd_att;
        let natts = (*descriptor).natts as usize;
        let (values, nulls) = row;
        values.resize(natts, pg_sys::Datum::null());
        nulls.resize(natts, true);
        pg_sys::heap_deform_tuple(tuple, descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
        look(&Old { descriptor, values, nulls })
    }
}

/// Fetches the row at `tuple.t_self`, if the snapshot sees it. Returns its page, pinned.
///
/// # Safety
/// The table is open; the snapshot is registered.
pub(super) unsafe fn fetch_row(
    table: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    tuple: &mut pg_sys::HeapTupleData,
) -> Option<pg_sys::Buffer> {
    let mut page = 0;
    // SAFETY: the caller guarantees it. A page is pinned only when the row is found.
    unsafe {
        let found = pg_sys::heap_fetch(table, snapshot, tuple, &mut page, false);
        found.then_some(page)
    }
}

/// The scan key `first column of index = value`; the caller sets the value.
///
/// # Safety
/// `index` is an open B-tree.
pub(super) unsafe fn equals(index: pg_sys::Relation) -> pg_sys::ScanKeyData {
    // SAFETY: the caller guarantees it: the index's arrays have an element for each key column. Every B-tree operator family
    // has `=`.
    unsafe {
        let (family, type_oid) = (*(*index).rd_opfamily, *(*index).rd_opcintype);
        let strategy = pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber;
        let operator = pg_sys::get_opfamily_member(family, type_oid, type_oid, strategy as i16);
        let mut key = pg_sys::ScanKeyData::default();
        pg_sys::ScanKeyEntryInitialize(
            &mut key,
            0,
            1,
            strategy,
            pg_sys::InvalidOid,
            *(*index).rd_indcollation,
            pg_sys::get_opcode(operator),
            pg_sys::Datum::null(),
        );
        key
    }
}
