//! Updates rows of a plain heap table without the executor: finds them by key, and replaces them as UPDATE does.

use super::access::Access;
use super::compat::{self, IndexEntries};
use super::find::{Finder, Found, IsSame, Old, Place, Snapshot, equals, fetch_row};
use super::insert::{HeapInsert, check_constraints, forget_expressions};
use super::memory::Scratch;
use super::slot::clear;
use super::whole::call_for_client;
use pgrx::pg_sys;

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

    /// Finds the rows with these keys, each of which comes once, that the snapshot sees. `is_same` looks at each of them.
    ///
    /// `order` has the indexes of the keys in the order in which the table probably has the rows: that of a source which was
    /// loaded before. Then they are found without the index.
    pub fn find(
        &mut self,
        insert: &HeapInsert,
        snapshot: &Snapshot,
        keys: &[pg_sys::Datum],
        order: &[usize],
        is_same: Option<IsSame<'_>>,
    ) -> Vec<Found> {
        let HeapUpdate { index, key, found, scratch, .. } = self;
        scratch.run(|| {
            // SAFETY: table and index are open, the keys are of the index's type, the slot is of the table.
            unsafe {
                let relations = (insert.table.raw(), *index);
                let mut finder = Finder::begin(relations, snapshot, key, *found, is_same);
                let all = finder.all(keys, order);
                finder.end();
                all
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
