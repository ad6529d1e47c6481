//! Checks the privileges on columns before rows are inserted or updated without PostgreSQL's executor.

use super::catalog::Table;
use super::compat;
use pgrx::pg_sys;

/// An open table and the columns that a write uses, by number.
#[derive(Clone)]
pub struct Access {
    /// The table.
    pub table: Table,
    /// Columns that new rows get values for.
    pub inserted: Vec<i16>,
    /// Columns that existing rows get new values for.
    pub updated: Vec<i16>,
    /// Columns that the write reads.
    pub selected: Vec<i16>,
}

impl Access {
    /// Only inserts into columns.
    pub fn insert(table: Table, columns: Vec<i16>) -> Access {
        Access { table, inserted: columns, updated: Vec::new(), selected: Vec::new() }
    }

    /// Updates columns and reads some.
    pub fn update(table: Table, updated: Vec<i16>, selected: Vec<i16>) -> Access {
        Access { table, inserted: Vec::new(), updated, selected }
    }

    /// Raises 42501 if the current role lacks a privilege.
    pub fn check(&self) {
        // SAFETY: the table is open and locked.
        unsafe { compat::check_privileges(self.entry()) }
    }

    /// The privileges that the write needs.
    fn privileges(&self) -> u32 {
        let needs = |columns: &[i16], privilege: u32| if columns.is_empty() { 0 } else { privilege };
        needs(&self.inserted, pg_sys::ACL_INSERT)
            | needs(&self.updated, pg_sys::ACL_UPDATE)
            | needs(&self.selected, pg_sys::ACL_SELECT)
    }

    /// The table's entry in a range table, with the privileges and columns.
    pub(super) fn entry(&self) -> compat::Entry {
        // SAFETY: the tag is that of the struct.
        let mut entry = unsafe { pgrx::PgBox::<pg_sys::RangeTblEntry>::alloc_node(pg_sys::NodeTag::T_RangeTblEntry) };
        entry.rtekind = pg_sys::RTEKind::RTE_RELATION;
        entry.relid = self.table.oid();
        entry.relkind = self.table.kind() as std::ffi::c_char;
        entry.rellockmode = pg_sys::RowExclusiveLock as i32;
        compat::Entry {
            entry: entry.into_pg(),
            privileges: self.privileges(),
            inserted: bitmap(&self.inserted),
            updated: bitmap(&self.updated),
            selected: bitmap(&self.selected),
        }
    }
}

/// A set of columns, with PostgreSQL's offset for system columns.
fn bitmap(columns: &[i16]) -> *mut pg_sys::Bitmapset {
    let mut set = std::ptr::null_mut();
    for number in columns {
        let member = i32::from(*number) - pg_sys::FirstLowInvalidHeapAttributeNumber;
        // SAFETY: null is the empty set; each call returns the new set.
        set = unsafe { pg_sys::bms_add_member(set, member) };
    }
    set
}
