//! Updates rows of a plain heap table without the executor: finds them by key, and replaces them as UPDATE does.

use super::access::Access;
use super::compat::{self, IndexEntries};
use super::datum::varlena_equals;
use super::insert::{HeapInsert, check_constraints, clear, forget_expressions};
use super::memory::Scratch;
use super::whole::call_for_client;
use pgrx::pg_sys;

/// A snapshot of what other transactions have committed and this one has done; in REPEATABLE READ and SERIALIZABLE the
/// transaction's snapshot. While it is held, a row that it sees keeps its place.
pub struct Snapshot(pg_sys::Snapshot);

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
pub struct Place(pg_sys::ItemPointerData);

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
    descriptor: pg_sys::TupleDesc,
    values: &'a [pg_sys::Datum],
    nulls: &'a [bool],
}

impl Old<'_> {
    /// The value of a column, by its number; `None` for NULL. The value may point into the page.
    pub fn get(&self, column: i16) -> Option<pg_sys::Datum> {
        let at = column as usize - 1;
        (!self.nulls[at]).then(|| self.values[at])
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

/// Looks up rows of the table of a [`HeapInsert`] by a unique index of one column, and replaces them.
pub struct HeapUpdate {
    /// Open as long as the [`HeapInsert`].
    index: pg_sys::Relation,
    /// The index's info, if the table has no other index.
    only_index: Option<*mut pg_sys::IndexInfo>,
    key: pg_sys::ScanKeyData,
    /// The columns that get new values.
    columns: Vec<i16>,
    found: *mut pg_sys::TupleTableSlot,
    new: *mut pg_sys::TupleTableSlot,
    scratch: Scratch,
}

impl HeapUpdate {
    /// Prepares to update `access.updated`. The caller has checked `access`. `index` is one of the table's B-trees.
    pub fn new(insert: &HeapInsert, access: &Access, index: pg_sys::Oid) -> Option<HeapUpdate> {
        // SAFETY: the insert's indexes are open; the slots' descriptor lives as long as the insert.
        unsafe {
            let info = &*insert.relation_info;
            let indexes = std::slice::from_raw_parts(info.ri_IndexRelationDescs, info.ri_NumIndices.max(0) as usize);
            let index = indexes.iter().copied().find(|open| (**open).rd_id == index)?;
            Some(HeapUpdate {
                index,
                only_index: (indexes.len() == 1).then(|| *info.ri_IndexRelationInfo),
                key: equals(index),
                columns: access.updated.clone(),
                found: pg_sys::MakeSingleTupleTableSlot(insert.descriptor, &raw const pg_sys::TTSOpsBufferHeapTuple),
                new: pg_sys::MakeSingleTupleTableSlot(insert.descriptor, &raw const pg_sys::TTSOpsVirtual),
                scratch: Scratch::default(),
            })
        }
    }

    /// Finds the rows with these keys that the snapshot sees. `is_same` looks at each of them.
    pub fn find(
        &mut self,
        insert: &HeapInsert,
        snapshot: &Snapshot,
        keys: impl Iterator<Item = pg_sys::Datum>,
        mut is_same: Option<IsSame<'_>>,
    ) -> Vec<Found> {
        let HeapUpdate { index, key, found, scratch, .. } = self;
        scratch.run(|| {
            let mut row = (Vec::new(), Vec::new());
            // SAFETY: table and index are open, the keys are of the index's type; the slot holds no page at the end.
            unsafe {
                let scan = compat::begin_index_scan(insert.table.raw(), *index, snapshot.0);
                let places = keys
                    .enumerate()
                    .map(|(at, value)| {
                        key.sk_argument = value;
                        pg_sys::index_rescan(scan, key, 1, std::ptr::null_mut(), 0);
                        let forward = pg_sys::ScanDirection::ForwardScanDirection;
                        if !pg_sys::index_getnext_slot(scan, forward, *found) {
                            return Found::Nothing;
                        }
                        let same = match &mut is_same {
                            Some(is_same) => look(insert.table.raw(), *found, &mut row, |old| is_same(at, old)),
                            None => false,
                        };
                        if same { Found::Same } else { Found::Row(Place((**found).tts_tid)) }
                    })
                    .collect();
                clear(*found);
                pg_sys::index_endscan(scan);
                places
            }
        })
    }

    /// Replaces the rows at these places, which the snapshot sees. `change` appends the new values of the columns, in their
    /// order, `None` for NULL; other columns keep their values. Returns the rows that are not replaced, because another
    /// session has replaced or deleted them meanwhile. Raises 23505 if another row has a unique key.
    pub fn replace(
        &mut self,
        insert: &HeapInsert,
        snapshot: &Snapshot,
        rows: &[(usize, Place)],
        mut change: impl FnMut(usize, &Old<'_>, &mut Vec<Option<pg_sys::Datum>>),
    ) -> Vec<usize> {
        let mut left = Vec::new();
        let HeapUpdate { index, only_index, columns, new, scratch, .. } = self;
        // SAFETY: the table is open and locked.
        unsafe { pg_sys::CheckCmdReplicaIdentity(insert.table.raw(), pg_sys::CmdType::CMD_UPDATE) }
        let values = Vec::with_capacity(columns.len());
        let only_index = only_index.map(|info| (*index, info));
        let mut replacer = Replacer { insert, snapshot, only_index, columns, new: *new, values };
        scratch.run(|| {
            for (row, place) in rows {
                // SAFETY: the snapshot is held and sees the row; the slot has the table's columns.
                if !unsafe { replacer.replace(*place, |old, new| change(*row, old, new)) } {
                    left.push(*row);
                }
            }
        });
        // SAFETY: the insert's state is live and its indexes are open.
        unsafe {
            compat::end_index_entries(insert.relation_info);
            forget_expressions(insert.state);
        }
        left
    }

    /// Frees everything. After an error the transaction's end does that instead.
    pub fn close(self) {
        // SAFETY: both slots were made in `new`, and are dropped once.
        unsafe {
            pg_sys::ExecDropSingleTupleTableSlot(self.found);
            pg_sys::ExecDropSingleTupleTableSlot(self.new);
        }
        self.scratch.delete();
    }
}

/// The state for replacing the rows of a batch.
struct Replacer<'a> {
    insert: &'a HeapInsert,
    snapshot: &'a Snapshot,
    only_index: Option<(pg_sys::Relation, *mut pg_sys::IndexInfo)>,
    columns: &'a [i16],
    /// A virtual slot.
    new: *mut pg_sys::TupleTableSlot,
    /// New values of the columns.
    values: Vec<Option<pg_sys::Datum>>,
}

impl Replacer<'_> {
    /// Replaces one row by the values that `change` returns. Returns false if the row is not replaced.
    ///
    /// # Safety
    /// The snapshot sees the row; the slot has the table's columns.
    unsafe fn replace(&mut self, place: Place, change: impl FnOnce(&Old<'_>, &mut Vec<Option<pg_sys::Datum>>)) -> bool {
        let Replacer { insert, snapshot, only_index, columns, new, values: changed } = self;
        let HeapInsert { table, state, relation_info, has_constraints, .. } = insert;
        let new = *new;
        // SAFETY: the caller guarantees it; the old version's page stays pinned while its values are used. The descriptor is
        // the relation's own, which has the values of columns that were added after the row was written.
        unsafe {
            let mut old = pg_sys::HeapTupleData { t_self: place.0, ..Default::default() };
            let Some(page) = fetch_row(table.raw(), snapshot.0, &mut old) else { return false };
            let descriptor = (*table.raw()).rd_att;
            let (values, nulls) = ((*new).tts_values, (*new).tts_isnull);
            clear(new);
            pg_sys::heap_deform_tuple(&mut old, descriptor, values, nulls);
            let natts = (*descriptor).natts as usize;
            let old_values = std::slice::from_raw_parts(values, natts);
            changed.clear();
            change(&Old { descriptor, values: old_values, nulls: std::slice::from_raw_parts(nulls, natts) }, changed);
            for (column, value) in columns.iter().zip(changed.iter()) {
                let at = *column as usize - 1;
                *nulls.add(at) = value.is_none();
                *values.add(at) = value.unwrap_or(pg_sys::Datum::null());
            }
            pg_sys::ExecStoreVirtualTuple(new);
            (*new).tts_tableOid = table.oid();
            if *has_constraints {
                check_constraints(*relation_info, new, *state);
            }
            let version = pg_sys::heap_form_tuple(descriptor, values, nulls);
            (*version).t_tableOid = table.oid();
            let entries = compat::update_row(table.raw(), &mut old.t_self, version);
            if entries.is_some() {
                (*new).tts_tid = (*version).t_self;
                match *only_index {
                    Some((index, info)) if entries == Some(IndexEntries::All) => {
                        insert_known_key(table.raw(), index, info, new, *state);
                    }
                    _ => {
                        let (info, state) = (*relation_info, *state);
                        call_for_client(|| compat::insert_index_entries(info, new, state, entries));
                    }
                }
            }
            pg_sys::heap_freetuple(version);
            clear(new);
            pg_sys::ReleaseBuffer(page);
            entries.is_some()
        }
    }
}

/// Calls `look` with the row in a slot. The descriptor is the relation's own, as in [`Replacer::replace`].
///
/// # Safety
/// The table is open; the slot holds a row of it, and its page.
unsafe fn look<T>(
    table: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
    row: &mut (Vec<pg_sys::Datum>, Vec<bool>),
    look: impl FnOnce(&Old<'_>) -> T,
) -> T {
    // SAFETY: the caller guarantees it; the arrays have an element for each column. The slot's tuple is not copied, and so
    // not to be freed.
    unsafe {
        let descriptor = (*table).rd_att;
        let natts = (*descriptor).natts as usize;
        let (values, nulls) = row;
        values.resize(natts, pg_sys::Datum::null());
        nulls.resize(natts, true);
        let tuple = pg_sys::ExecFetchSlotHeapTuple(slot, false, std::ptr::null_mut());
        pg_sys::heap_deform_tuple(tuple, descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
        look(&Old { descriptor, values, nulls })
    }
}

/// Fetches the row at `tuple.t_self`, if the snapshot sees it. Returns its page, pinned.
///
/// # Safety
/// The table is open; the snapshot is registered.
unsafe fn fetch_row(
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

/// Inserts the index entry of a row's new version whose unique key is that of the old version. No other row can have this
/// key, so there is no check. Entries of dead versions need none either: the look-up of the key has marked them, and the
/// index removes marked entries when a page is full.
///
/// # Safety
/// All are live and belong to the same table; the version in the slot is stored at its tid.
unsafe fn insert_known_key(
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
    slot: *mut pg_sys::TupleTableSlot,
    estate: *mut pg_sys::EState,
) {
    let mut values = [pg_sys::Datum::null(); pg_sys::INDEX_MAX_KEYS as usize];
    let mut nulls = [false; pg_sys::INDEX_MAX_KEYS as usize];
    let unique = pg_sys::IndexUniqueCheck::UNIQUE_CHECK_NO;
    // SAFETY: the caller guarantees it; no index has more than INDEX_MAX_KEYS columns.
    unsafe {
        let (values, nulls) = (values.as_mut_ptr(), nulls.as_mut_ptr());
        pg_sys::FormIndexDatum(info, slot, estate, values, nulls);
        pg_sys::index_insert(index, values, nulls, &mut (*slot).tts_tid, table, unique, false, info);
    }
}

/// The scan key `first column of index = value`; the caller sets the value.
///
/// # Safety
/// `index` is an open B-tree.
unsafe fn equals(index: pg_sys::Relation) -> pg_sys::ScanKeyData {
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
