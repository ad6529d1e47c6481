//! The differences between PostgreSQL versions. No other file has `cfg(feature = "pg…")`.

use pgrx::pg_sys;
use std::collections::VecDeque;
use std::ffi::{CStr, c_char, c_int};

/// A range table entry, and the privileges and columns to check for it.
pub struct Entry {
    /// A new node in the current context, for an open and locked relation.
    pub entry: *mut pg_sys::RangeTblEntry,
    /// Bits of `ACL_…`.
    pub privileges: u32,
    /// Columns by number, beyond `FirstLowInvalidHeapAttributeNumber`.
    pub inserted: *mut pg_sys::Bitmapset,
    /// The same for columns that are updated.
    pub updated: *mut pg_sys::Bitmapset,
    /// The same for columns that are read.
    pub selected: *mut pg_sys::Bitmapset,
}

/// Checks the privileges of the current role for the entry; raises 42501 if one is missing.
///
/// # Safety
/// The entry is a live node that is in no list.
pub unsafe fn check_privileges(entry: Entry) {
    // SAFETY: nodes live in the current context.
    unsafe {
        let (list, permissions) = range_table(entry);
        #[cfg(feature = "pg15")]
        {
            let _ = permissions;
            pg_sys::ExecCheckRTPerms(list, true);
        }
        #[cfg(not(feature = "pg15"))]
        pg_sys::ExecCheckPermissions(list, permissions, true);
    }
}

/// Puts the entry into the executor state's range table, as number 1.
///
/// # Safety
/// `estate` is live, and ends before the entry's context; the entry is a live node that is in no list.
pub unsafe fn set_range_table(estate: *mut pg_sys::EState, entry: Entry) {
    // SAFETY: the caller guarantees it.
    unsafe {
        let (list, permissions) = range_table(entry);
        #[cfg(feature = "pg15")]
        {
            let _ = permissions;
            pg_sys::ExecInitRangeTable(estate, list);
        }
        #[cfg(any(feature = "pg16", feature = "pg17"))]
        pg_sys::ExecInitRangeTable(estate, list, permissions);
        #[cfg(feature = "pg18")]
        pg_sys::ExecInitRangeTable(estate, list, permissions, pg_sys::bms_make_singleton(1));
    }
}

/// A range table of one entry. From 16 on a second list has its privileges and columns, which the entry had before.
///
/// # Safety
/// The entry is a live node that is in no list.
unsafe fn range_table(
    Entry { entry, privileges, inserted, updated, selected }: Entry,
) -> (*mut pg_sys::List, *mut pg_sys::List) {
    let mut permissions = std::ptr::null_mut();
    // SAFETY: the caller guarantees it.
    unsafe {
        #[cfg(feature = "pg15")]
        let holder = entry;
        #[cfg(not(feature = "pg15"))]
        let holder = pg_sys::addRTEPermissionInfo(&mut permissions, entry);
        (*holder).requiredPerms = privileges as pg_sys::AclMode;
        (*holder).insertedCols = inserted;
        (*holder).updatedCols = updated;
        (*holder).selectedCols = selected;
        (pg_sys::lappend(std::ptr::null_mut(), entry.cast()), std::mem::take(&mut permissions))
    }
}

/// Begins a scan that looks up rows by the first column of an index.
///
/// # Safety
/// Both relations are open; the index is one of the table's; the snapshot is registered.
pub unsafe fn begin_index_scan(
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
) -> pg_sys::IndexScanDesc {
    // SAFETY: the caller guarantees it.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        return pg_sys::index_beginscan(table, index, snapshot, 1, 0);
        #[cfg(feature = "pg18")]
        pg_sys::index_beginscan(table, index, snapshot, std::ptr::null_mut(), 1, 0)
    }
}

/// Which index entries the new version of a row needs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum IndexEntries {
    /// None: the new version is on the old one's page, and no indexed column changed.
    None,
    /// Only those of indexes that summarize pages; from 16 on.
    #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
    Summarizing,
    /// All.
    All,
}

/// Replaces a row by a new version. Waits for a transaction that has locked the row. `None` if the row is no longer the
/// latest version.
///
/// # Safety
/// The table is a locked heap; a snapshot of this transaction sees the row at `place`; `tuple` has the table's columns. The
/// call sets its `t_self`.
pub unsafe fn update_row(
    table: pg_sys::Relation,
    place: &mut pg_sys::ItemPointerData,
    tuple: pg_sys::HeapTuple,
) -> Option<IndexEntries> {
    // SAFETY: the caller guarantees it; the out parameters are locals. No crosscheck.
    unsafe {
        let command = pg_sys::GetCurrentCommandId(true);
        let mut failure: pg_sys::TM_FailureData = std::mem::zeroed();
        let mut lock: pg_sys::LockTupleMode::Type = 0;
        let crosscheck = std::ptr::null_mut();
        #[cfg(feature = "pg15")]
        let (result, entries) = {
            let result = pg_sys::heap_update(table, place, tuple, command, crosscheck, true, &mut failure, &mut lock);
            let is_heap_only = u32::from((*(*tuple).t_data).t_infomask2) & pg_sys::HEAP_ONLY_TUPLE != 0;
            (result, if is_heap_only { IndexEntries::None } else { IndexEntries::All })
        };
        #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
        let (result, entries) = {
            let mut entries: pg_sys::TU_UpdateIndexes::Type = 0;
            let (failure, lock) = (&mut failure, &mut lock);
            let result =
                pg_sys::heap_update(table, place, tuple, command, crosscheck, true, failure, lock, &mut entries);
            let entries = match entries {
                pg_sys::TU_UpdateIndexes::TU_None => IndexEntries::None,
                pg_sys::TU_UpdateIndexes::TU_Summarizing => IndexEntries::Summarizing,
                _ => IndexEntries::All,
            };
            (result, entries)
        };
        (result == pg_sys::TM_Result::TM_Ok).then_some(entries)
    }
}

unsafe extern "C-unwind" {
    // executor.h; not pgrx's wrapper, so that an error keeps its fields: see `whole`.
    #[cfg(feature = "pg15")]
    fn ExecInsertIndexTuples(
        relation_info: *mut pg_sys::ResultRelInfo,
        slot: *mut pg_sys::TupleTableSlot,
        estate: *mut pg_sys::EState,
        is_update: bool,
        no_error: bool,
        conflict: *mut bool,
        arbiters: *mut pg_sys::List,
    ) -> *mut pg_sys::List;
    #[cfg(not(feature = "pg15"))]
    fn ExecInsertIndexTuples(
        relation_info: *mut pg_sys::ResultRelInfo,
        slot: *mut pg_sys::TupleTableSlot,
        estate: *mut pg_sys::EState,
        is_update: bool,
        no_error: bool,
        conflict: *mut bool,
        arbiters: *mut pg_sys::List,
        only_summarizing: bool,
    ) -> *mut pg_sys::List;
    fn list_free(list: *mut pg_sys::List);
}

/// Inserts the index entries of a row in the heap: all of them, or those that an update (`updated`) needs. Raises 23505 if
/// another row has a unique key. If that row's transaction has not ended yet, this waits for it first.
///
/// # Safety
/// `relation_info`, `slot` and `estate` are live and belong together; the slot's tuple has been inserted. Called through `whole`.
pub unsafe fn insert_index_entries(
    relation_info: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    estate: *mut pg_sys::EState,
    updated: Option<IndexEntries>,
) {
    if updated == Some(IndexEntries::None) {
        return;
    }
    let is_update = updated.is_some();
    let (conflict, arbiters) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: the caller guarantees it. The returned list names deferred constraints, which triggers check.
    unsafe {
        #[cfg(feature = "pg15")]
        let rechecks = ExecInsertIndexTuples(relation_info, slot, estate, is_update, false, conflict, arbiters);
        #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
        let rechecks = {
            let only = updated == Some(IndexEntries::Summarizing);
            ExecInsertIndexTuples(relation_info, slot, estate, is_update, false, conflict, arbiters, only)
        };
        if !rechecks.is_null() {
            list_free(rechecks);
        }
    }
}

/// Closes what indexes keep open between entries: from 17 on, a BRIN index keeps a page of its map pinned. The same
/// (sub)transaction that opened it must close it.
///
/// # Safety
/// `relation_info` is live and its indexes are open.
pub unsafe fn end_index_entries(relation_info: *mut pg_sys::ResultRelInfo) {
    #[cfg(not(any(feature = "pg17", feature = "pg18")))]
    let _ = relation_info;
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    // SAFETY: the caller guarantees it.
    unsafe {
        for (index, info) in indexes(relation_info) {
            pg_sys::index_insert_cleanup(index, info);
        }
    }
}

/// Forgets what [`end_index_entries`] would close, after an error: the subtransaction's end has closed it already.
///
/// # Safety
/// As for [`end_index_entries`].
pub unsafe fn forget_index_entries(relation_info: *mut pg_sys::ResultRelInfo) {
    #[cfg(not(any(feature = "pg17", feature = "pg18")))]
    let _ = relation_info;
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    // SAFETY: the caller guarantees it; an open index has its methods.
    unsafe {
        for (index, info) in indexes(relation_info) {
            if (*(*index).rd_indam).aminsertcleanup.is_some() {
                (*info).ii_AmCache = std::ptr::null_mut();
            }
        }
    }
}

/// # Safety
/// As for [`end_index_entries`]; the indexes stay open while the result is used.
#[cfg(any(feature = "pg17", feature = "pg18"))]
unsafe fn indexes(
    relation_info: *mut pg_sys::ResultRelInfo,
) -> impl Iterator<Item = (pg_sys::Relation, *mut pg_sys::IndexInfo)> {
    // SAFETY: the caller guarantees it; both arrays have `ri_NumIndices` elements.
    unsafe {
        let pg_sys::ResultRelInfo { ri_NumIndices, ri_IndexRelationDescs, ri_IndexRelationInfo, .. } = *relation_info;
        (0..ri_NumIndices.max(0) as usize)
            .map(move |at| (*ri_IndexRelationDescs.add(at), *ri_IndexRelationInfo.add(at)))
    }
}

/// The attribute at `index` (from 0) of a tuple descriptor.
///
/// # Safety
/// `descriptor` is live and has more than `index` attributes.
pub unsafe fn attribute(descriptor: pg_sys::TupleDesc, index: usize) -> *const pg_sys::FormData_pg_attribute {
    // SAFETY: the caller guarantees it. From 18 on the attributes follow their compact forms.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        return (*descriptor).attrs.as_ptr().add(index);
        #[cfg(feature = "pg18")]
        {
            let count = (*descriptor).natts as usize;
            let compact = (*descriptor).compact_attrs.as_ptr().add(count);
            compact.cast::<pg_sys::FormData_pg_attribute>().add(index)
        }
    }
}

/// A type by its name in SQL, and its modifier, or -1. Raises the error for a name that is none.
///
/// # Safety
/// Inside a transaction.
pub unsafe fn type_by_name(name: &CStr) -> (pg_sys::Oid, i32) {
    let (mut oid, mut modifier) = (pg_sys::InvalidOid, -1);
    // SAFETY: the caller guarantees it; both results have room.
    unsafe {
        #[cfg(feature = "pg15")]
        pg_sys::parseTypeString(name.as_ptr(), &mut oid, &mut modifier, false);
        #[cfg(not(feature = "pg15"))]
        pg_sys::parseTypeString(name.as_ptr(), &mut oid, &mut modifier, std::ptr::null_mut());
    }
    (oid, modifier)
}

/// A set for `events` events, in the current memory context or, from 17 on, of the current resource owner.
///
/// # Safety
/// Inside a transaction; the caller frees it.
pub unsafe fn new_wait_event_set(events: i32) -> *mut pg_sys::WaitEventSet {
    // SAFETY: the caller guarantees it.
    unsafe {
        #[cfg(not(any(feature = "pg17", feature = "pg18")))]
        return pg_sys::CreateWaitEventSet(pg_sys::CurrentMemoryContext, events);
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        pg_sys::CreateWaitEventSet(pg_sys::CurrentResourceOwner, events)
    }
}

/// Runs a query on until its receiver stops it or there are no more rows. Errors are not caught.
///
/// # Safety
/// The query is started, and has a receiver.
pub unsafe fn run_executor(query: *mut pg_sys::QueryDesc) {
    unsafe extern "C-unwind" {
        // executor.h
        #[cfg(not(feature = "pg18"))]
        fn ExecutorRun(query: *mut pg_sys::QueryDesc, direction: pg_sys::ScanDirection::Type, count: u64, once: bool);
        #[cfg(feature = "pg18")]
        fn ExecutorRun(query: *mut pg_sys::QueryDesc, direction: pg_sys::ScanDirection::Type, count: u64);
    }
    let forward = pg_sys::ScanDirection::ForwardScanDirection;
    // SAFETY: the caller guarantees it; 0 means all rows. After a stop it may be run again, for the other rows.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        ExecutorRun(query, forward, 0, false);
        #[cfg(feature = "pg18")]
        ExecutorRun(query, forward, 0);
    }
}

/// Sets this process's handler of a signal.
///
/// # Safety
/// `handler` does only what a signal handler may do.
pub unsafe fn on_signal(signal: u32, handler: unsafe extern "C-unwind" fn(c_int)) {
    // SAFETY: the caller guarantees it.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        pg_sys::pqsignal(signal as c_int, Some(handler));
        #[cfg(feature = "pg18")]
        pg_sys::pqsignal_be(signal as c_int, Some(handler));
    }
}

/// Whether this session has a lock in this mode.
pub fn holds_lock(tag: &pg_sys::LOCKTAG, mode: u32) -> bool {
    // SAFETY: reads memory of this process.
    unsafe {
        #[cfg(not(any(feature = "pg17", feature = "pg18")))]
        return pg_sys::LockHeldByMe(tag, mode as pg_sys::LOCKMODE);
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        pg_sys::LockHeldByMe(tag, mode as pg_sys::LOCKMODE, false)
    }
}

/// All settings that this process knows.
pub fn settings() -> &'static [*mut pg_sys::config_generic] {
    // SAFETY: PostgreSQL's array of `count` live entries; it changes only when settings are defined, which no caller does
    // while it reads.
    unsafe {
        #[cfg(feature = "pg15")]
        let (array, count) = (pg_sys::get_guc_variables(), pg_sys::GetNumConfigOptions());
        #[cfg(not(feature = "pg15"))]
        let (array, count) = {
            let mut count = 0;
            (pg_sys::get_guc_variables(&mut count), count)
        };
        std::slice::from_raw_parts(array, count.unsigned_abs() as usize)
    }
}

/// libpq.h, which pgrx does not bind: how messages go to the client. The same from 14 to 18.
#[repr(C)]
pub struct CommMethods {
    comm_reset: unsafe extern "C-unwind" fn(),
    flush: unsafe extern "C-unwind" fn() -> c_int,
    /// Sends as many bytes as the connection takes without waiting; -1 if it is lost.
    pub flush_if_writable: unsafe extern "C-unwind" fn() -> c_int,
    /// Whether bytes are left to send.
    pub is_send_pending: unsafe extern "C-unwind" fn() -> bool,
    putmessage: unsafe extern "C-unwind" fn(c_char, *const c_char, usize) -> c_int,
    /// Adds a message to a buffer that grows as needed.
    pub putmessage_noblock: unsafe extern "C-unwind" fn(c_char, *const c_char, usize),
}

unsafe extern "C-unwind" {
    /// The functions of this session.
    pub static PqCommMethods: *const CommMethods;
}

/// The socket of a client's connection: the first member of `Port` (libpq-be.h), from 15 to 18.
///
/// # Safety
/// The port is live.
pub unsafe fn socket(port: *const pg_sys::Port) -> c_int {
    // SAFETY: the caller guarantees it.
    unsafe { *port.cast::<c_int>() }
}

/// Whether PostgreSQL has read bytes of the client that nobody has taken yet.
pub fn has_buffered_bytes() -> bool {
    unsafe extern "C-unwind" {
        // libpq.h
        #[cfg(not(any(feature = "pg17", feature = "pg18")))]
        fn pq_buffer_has_data() -> bool;
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        fn pq_buffer_remaining_data() -> isize;
    }
    // SAFETY: both compare two numbers of this process.
    unsafe {
        #[cfg(not(any(feature = "pg17", feature = "pg18")))]
        return pq_buffer_has_data();
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        return pq_buffer_remaining_data() > 0;
    }
}

/// Adds up to `count` pages to a table, at least one, and puts them behind `pinned`, pinned but not locked. They are zero, and
/// other sessions may find them.
///
/// # Safety
/// The table is open, locked for writing, and not temporary.
pub unsafe fn add_pages(table: pg_sys::Relation, count: usize, pinned: &mut VecDeque<pg_sys::Buffer>) {
    // SAFETY: the caller's.
    #[cfg(feature = "pg15")]
    unsafe {
        super::extend::add_pages(table, count, pinned);
    }
    // SAFETY: the caller's; the array has room for as many buffers.
    #[cfg(not(feature = "pg15"))]
    unsafe {
        let strategy = pg_sys::GetAccessStrategy(pg_sys::BufferAccessStrategyType::BAS_BULKWRITE);
        let (mut buffers, mut added) = (vec![0; count], 0);
        let of = pg_sys::BufferManagerRelation { rel: table, ..Default::default() };
        let fork = pg_sys::ForkNumber::MAIN_FORKNUM;
        pg_sys::ExtendBufferedRelBy(of, fork, strategy, 0, count as u32, buffers.as_mut_ptr(), &mut added);
        pg_sys::FreeAccessStrategy(strategy);
        pinned.extend(&buffers[..added as usize]);
    }
}
