//! Looks names up in the catalogue, and describes open tables.

use pgrx::pg_sys;
use std::ffi::{CStr, CString};

/// A schema's OID.
pub fn schema(name: &CStr) -> Option<pg_sys::Oid> {
    // SAFETY: a C string; `true` returns InvalidOid if there is none.
    valid(unsafe { pg_sys::get_namespace_oid(name.as_ptr(), true) })
}

/// A database's OID, for a process that is connected to no database. After a crash such a process cannot use the catalogue's
/// indexes until another process has written the relation cache's init file. So this scans the table, as autovacuum does
/// (`get_database_list`).
pub fn database(name: &CStr) -> Option<pg_sys::Oid> {
    let mut found = None;
    // SAFETY: inside a transaction; the scan is ended and the table closed, after an error by the transaction's end.
    // Each tuple is one of pg_database, whose fixed part comes first, and lives until the next.
    unsafe {
        let table = pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as i32);
        let scan = pg_sys::table_beginscan_catalog(table, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if tuple.is_null() {
                break;
            }
            let data = (*tuple).t_data;
            let form = data.byte_add(usize::from((*data).t_hoff)).cast::<pg_sys::FormData_pg_database>();
            if CStr::from_ptr((*form).datname.data.as_ptr()) == name {
                found = Some((*form).oid);
            }
        }
        pg_sys::heap_endscan(scan);
        pg_sys::table_close(table, pg_sys::AccessShareLock as i32);
    }
    found
}

/// The OID of a table, view, index or sequence in a schema.
pub fn relation(name: &CStr, schema: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: a C string.
    valid(unsafe { pg_sys::get_relname_relid(name.as_ptr(), schema) })
}

/// Locks the relation of this name for writing rows, and returns its OID. The lock stays. If the relation is renamed or
/// dropped during the wait, the name is looked up again.
pub fn lock_for_insert(name: &CStr, schema: &CStr) -> Option<pg_sys::Oid> {
    lock(name, schema, pg_sys::RowExclusiveLock)
}

/// As [`lock_for_insert`], for reading rows.
pub fn lock_for_select(name: &CStr, schema: &CStr) -> Option<pg_sys::Oid> {
    lock(name, schema, pg_sys::AccessShareLock)
}

fn lock(name: &CStr, schema: &CStr, mode: u32) -> Option<pg_sys::Oid> {
    // SAFETY: C strings that outlive the call; PostgreSQL does not change them; no callback.
    valid(unsafe {
        let range = pg_sys::makeRangeVar(schema.as_ptr().cast_mut(), name.as_ptr().cast_mut(), -1);
        let missing_ok = pg_sys::RVROption::RVR_MISSING_OK;
        pg_sys::RangeVarGetRelidExtended(range, mode as i32, missing_ok, None, std::ptr::null_mut())
    })
}

/// A relation's schema and name.
pub fn full_name(relation: pg_sys::Oid) -> (CString, CString) {
    // SAFETY: the relation is locked, so it exists, and so does its schema; both names are palloc'd C strings.
    unsafe {
        let (schema, name) = (pg_sys::get_rel_namespace(relation), pg_sys::get_rel_name(relation));
        let schema = pg_sys::get_namespace_name(schema);
        assert!(!schema.is_null() && !name.is_null(), "a relation that is there");
        (CStr::from_ptr(schema).to_owned(), CStr::from_ptr(name).to_owned())
    }
}

/// `relkind` of a relation.
pub fn kind(relation: pg_sys::Oid) -> u8 {
    // SAFETY: a catalogue look-up, which returns 0 if there is none.
    unsafe { pg_sys::get_rel_relkind(relation) as u8 }
}

/// A relation's name, without schema.
pub fn name(relation: pg_sys::Oid) -> String {
    // SAFETY: null if there is none, else a palloc'd C string.
    unsafe {
        let name = pg_sys::get_rel_name(relation);
        if name.is_null() { relation.to_u32().to_string() } else { CStr::from_ptr(name).to_string_lossy().into_owned() }
    }
}

/// The number of a relation's file, as a snapshot shows it or as it is now: 0 if it has no file of its own, `None` if there
/// is no such relation. TRUNCATE and commands that rewrite a table give it a new file, in which older snapshots see no rows.
///
/// # Safety
/// The snapshot is active or registered; null means now.
pub(super) unsafe fn file(relation: pg_sys::Oid, snapshot: pg_sys::Snapshot) -> Option<pg_sys::Oid> {
    // SAFETY: the caller guarantees it, inside a transaction. Each tuple is one of pg_class, whose fixed part comes first.
    // It lives until the scan ends, after an error by the transaction's end.
    unsafe {
        let lock = pg_sys::AccessShareLock as i32;
        let table = pg_sys::table_open(pg_sys::RelationRelationId, lock);
        let mut key = pg_sys::ScanKeyData::default();
        let (column, equal) = (pg_sys::Anum_pg_class_oid as i16, pg_sys::BTEqualStrategyNumber as u16);
        pg_sys::ScanKeyInit(&mut key, column, equal, pg_sys::F_OIDEQ.into(), relation.into());
        let scan = pg_sys::systable_beginscan(table, pg_sys::ClassOidIndexId.into(), true, snapshot, 1, &mut key);
        let tuple = pg_sys::systable_getnext(scan);
        let found = (!tuple.is_null()).then(|| {
            let data = (*tuple).t_data;
            (*data.byte_add(usize::from((*data).t_hoff)).cast::<pg_sys::FormData_pg_class>()).relfilenode
        });
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(table, lock);
        found
    }
}

/// A column's number.
pub fn column(relation: pg_sys::Oid, name: &CStr) -> Option<i16> {
    // SAFETY: a C string; an unknown column is 0, system columns are negative.
    let number = unsafe { pg_sys::get_attnum(relation, name.as_ptr()) };
    (number > 0).then_some(number)
}

/// The type of a column.
pub fn type_of_column(relation: pg_sys::Oid, number: i16) -> pg_sys::Oid {
    // SAFETY: a catalogue look-up, which returns 0 if there is none.
    unsafe { pg_sys::get_atttype(relation, number) }
}

/// Makes this session see what other sessions have committed to the catalogue.
pub fn accept_changes() {
    // SAFETY: inside a transaction.
    unsafe { pg_sys::AcceptInvalidationMessages() }
}

/// A name as SQL must write it: quoted where needed.
pub fn quote_identifier(name: &CStr) -> String {
    // SAFETY: the result is the argument itself or a palloc'd copy.
    unsafe { CStr::from_ptr(pg_sys::quote_identifier(name.as_ptr())) }.to_string_lossy().into_owned()
}

/// Splits a name in SQL's syntax, qualified or not, into its parts: unquoted parts in lower case, quoted ones unchanged.
/// `None` if it is not a name.
pub fn split_name(name: &CStr) -> Option<Vec<String>> {
    let mut parts = std::ptr::null_mut();
    // SAFETY: the call cuts a palloc'd copy into parts; it returns a list of pointers to C strings, or null for none.
    unsafe {
        if !pg_sys::SplitIdentifierString(pg_sys::pstrdup(name.as_ptr()), b'.' as std::ffi::c_char, &mut parts) {
            return None;
        }
        let count = if parts.is_null() { 0 } else { (*parts).length as usize };
        let part = |at| CStr::from_ptr((*(*parts).elements.add(at)).ptr_value.cast()).to_string_lossy().into_owned();
        Some((0..count).map(part).collect())
    }
}

fn valid(oid: pg_sys::Oid) -> Option<pg_sys::Oid> {
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// A column of an open table.
pub struct Column {
    /// Its name.
    pub name: CString,
    /// Counted from 1.
    pub number: i16,
    /// Its type.
    pub type_oid: pg_sys::Oid,
    /// GENERATED ALWAYS AS … STORED.
    pub is_generated: bool,
}

/// An open table. Until the transaction ends, a lock keeps its definition from changing.
#[derive(Clone, Copy)]
pub struct Table(pg_sys::Relation);

impl Table {
    /// Opens a table for writing rows. [`Table::close`] ends the reference; the lock stays.
    pub fn open_for_insert(oid: pg_sys::Oid) -> Table {
        // SAFETY: raises if the table no longer exists.
        Table(unsafe { pg_sys::table_open(oid, pg_sys::RowExclusiveLock as i32) })
    }

    /// Ends the reference.
    pub fn close(self) {
        // SAFETY: opened above, closed once. The lock stays, as in COPY and INSERT.
        unsafe { pg_sys::table_close(self.0, pg_sys::NoLock as i32) }
    }

    /// PostgreSQL's own pointer, for this crate only.
    pub(super) fn raw(self) -> pg_sys::Relation {
        self.0
    }

    fn form(&self) -> &pg_sys::FormData_pg_class {
        // SAFETY: an open relation has its catalogue row.
        unsafe { &*(*self.0).rd_rel }
    }

    /// The table's OID.
    pub fn oid(&self) -> pg_sys::Oid {
        // SAFETY: open.
        unsafe { (*self.0).rd_id }
    }

    /// The name, without schema.
    pub fn name(&self) -> String {
        pgrx::name_data_to_str(&self.form().relname).to_owned()
    }

    /// `relkind`: `r` table, `p` partitioned, `f` foreign, `v` view, `m` materialized view.
    pub fn kind(&self) -> u8 {
        self.form().relkind as u8
    }

    /// Whether it is part of a partitioned table.
    pub fn is_partition(&self) -> bool {
        self.form().relispartition
    }

    /// Whether its rows are in PostgreSQL's own heap format.
    pub fn is_heap(&self) -> bool {
        self.form().relam == pg_sys::HEAP_TABLE_AM_OID
    }

    /// Whether it has any trigger, those of foreign keys included.
    pub fn has_triggers(&self) -> bool {
        // SAFETY: open.
        unsafe { !(*self.0).trigdesc.is_null() }
    }

    /// Whether it has rewrite rules.
    pub fn has_rules(&self) -> bool {
        // SAFETY: open.
        unsafe { !(*self.0).rd_rules.is_null() }
    }

    /// Whether row level security applies to the current role. Raises 42501 if it does and `row_security` is off.
    pub fn has_row_security_for_me(&self) -> bool {
        // SAFETY: InvalidOid asks for the current role.
        let enabled = unsafe { pg_sys::check_enable_rls(self.oid(), pg_sys::InvalidOid, false) };
        enabled == pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32
    }

    /// The columns that are not dropped.
    pub fn columns(&self) -> Vec<Column> {
        // SAFETY: an open relation's tuple descriptor has `natts` attributes behind its head.
        unsafe {
            let descriptor = (*self.0).rd_att;
            (0..(*descriptor).natts as usize)
                .map(|at| &*super::compat::attribute(descriptor, at))
                .filter(|attribute| !attribute.attisdropped)
                .map(|attribute| Column {
                    name: CStr::from_ptr(attribute.attname.data.as_ptr()).to_owned(),
                    number: attribute.attnum,
                    type_oid: attribute.atttypid,
                    is_generated: attribute.attgenerated != 0,
                })
                .collect()
        }
    }
}

/// Whether a type is a domain.
pub fn is_domain(type_oid: pg_sys::Oid) -> bool {
    // SAFETY: a catalogue look-up.
    unsafe { pg_sys::get_typtype(type_oid) as u8 == pg_sys::TYPTYPE_DOMAIN }
}

/// Whether a type is an enumeration.
pub fn is_enum(type_oid: pg_sys::Oid) -> bool {
    // SAFETY: a catalogue look-up.
    unsafe { pg_sys::get_typtype(type_oid) as u8 == pg_sys::TYPTYPE_ENUM }
}
