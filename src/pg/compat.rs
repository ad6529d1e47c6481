//! What differs between PostgreSQL versions. No `cfg(feature = "pg…")` stands anywhere else.

use pgrx::pg_sys;
use std::ffi::CStr;

/// Refuses unknown settings under a prefix.
pub fn reserve_settings_prefix(prefix: &'static CStr) {
    // SAFETY: a static C string, in _PG_init.
    unsafe {
        #[cfg(any(feature = "pg13", feature = "pg14"))]
        pg_sys::EmitWarningsOnPlaceholders(prefix.as_ptr());
        #[cfg(not(any(feature = "pg13", feature = "pg14")))]
        pg_sys::MarkGUCPrefixReserved(prefix.as_ptr());
    }
}

/// Checks that the current role may INSERT into the columns; raises 42501 when not.
///
/// # Safety
/// `access` names an open, locked relation.
pub unsafe fn check_insert_privilege(access: &super::insert::Access) {
    // SAFETY: nodes live in the current context.
    unsafe {
        let entry = super::insert::range_table_entry(access);
        #[cfg(any(feature = "pg13", feature = "pg14", feature = "pg15"))]
        {
            (*entry).requiredPerms = pg_sys::ACL_INSERT as pg_sys::AclMode;
            (*entry).insertedCols = access.columns_bitmap();
            pg_sys::ExecCheckRTPerms(pg_sys::lappend(std::ptr::null_mut(), entry.cast()), true);
        }
        #[cfg(not(any(feature = "pg13", feature = "pg14", feature = "pg15")))]
        {
            let mut permissions = std::ptr::null_mut();
            let info = pg_sys::addRTEPermissionInfo(&mut permissions, entry);
            (*info).requiredPerms = pg_sys::ACL_INSERT as pg_sys::AclMode;
            (*info).insertedCols = access.columns_bitmap();
            let list = pg_sys::lappend(std::ptr::null_mut(), entry.cast());
            pg_sys::ExecCheckPermissions(list, permissions, true);
        }
    }
}

/// Puts the table into the executor state's range table, as number 1.
///
/// # Safety
/// `estate` is live; `access` names an open, locked relation.
pub unsafe fn set_range_table(estate: *mut pg_sys::EState, access: &super::insert::Access) {
    // SAFETY: by the caller; the entry lives in the current context, which outlives `estate`.
    unsafe {
        let entry = super::insert::range_table_entry(access);
        let list = pg_sys::lappend(std::ptr::null_mut(), entry.cast());
        #[cfg(any(feature = "pg13", feature = "pg14", feature = "pg15"))]
        pg_sys::ExecInitRangeTable(estate, list);
        #[cfg(any(feature = "pg16", feature = "pg17"))]
        pg_sys::ExecInitRangeTable(estate, list, std::ptr::null_mut());
        #[cfg(feature = "pg18")]
        pg_sys::ExecInitRangeTable(estate, list, std::ptr::null_mut(), pg_sys::bms_make_singleton(1));
    }
}

/// Inserts the index entries of a row that stands in the heap. A unique key that is taken raises 23505, after waiting
/// for a transaction that holds it and may still give it up.
///
/// # Safety
/// `relation_info`, `slot` and `estate` are live and belong together; the slot's tuple has been inserted.
pub unsafe fn insert_index_entries(
    relation_info: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    estate: *mut pg_sys::EState,
) {
    let (no_conflict, no_arbiters) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: by the caller. A list that comes back names deferred constraints, which are triggers' business.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let rechecks =
            pg_sys::ExecInsertIndexTuples(relation_info, slot, estate, false, false, no_conflict, no_arbiters);
        #[cfg(feature = "pg13")]
        let rechecks = pg_sys::ExecInsertIndexTuples(slot, estate, false, no_conflict, no_arbiters);
        #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
        let rechecks =
            pg_sys::ExecInsertIndexTuples(relation_info, slot, estate, false, false, no_conflict, no_arbiters, false);
        if !rechecks.is_null() {
            pg_sys::list_free(rechecks);
        }
    }
}

/// The attribute at `index` (from 0) of a tuple descriptor.
///
/// # Safety
/// `descriptor` is live and has more than `index` attributes.
pub unsafe fn attribute(descriptor: pg_sys::TupleDesc, index: usize) -> *const pg_sys::FormData_pg_attribute {
    // SAFETY: by the caller. From 18 on the attributes stand behind their compact forms.
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
