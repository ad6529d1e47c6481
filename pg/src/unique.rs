//! Finds the index that keeps the values of a column unique, in PostgreSQL's caches: a load into a table that Citus has cut
//! into shards asks for hundreds of them.

use super::catalog::{self, Table};
use pgrx::pg_sys;
use std::ffi::CStr;

/// A unique index on one column alone, which is checked at once.
pub struct UniqueIndex {
    /// Its OID.
    pub oid: pg_sys::Oid,
    /// Whether values that are equal in it have the same bytes.
    pub is_exact: bool,
    /// If the column has a deferrable key, too.
    pub rival: Option<Rival>,
}

/// A deferrable key on the same column.
pub struct Rival {
    /// The name of the unique index's own constraint, quoted; `None` if it has none.
    pub constraint: Option<String>,
}

/// What the catalogue says of an index.
struct Described {
    oid: pg_sys::Oid,
    is_primary: bool,
    is_immediate: bool,
    /// Valid, and of all rows.
    is_whole: bool,
    collation: pg_sys::Oid,
}

impl UniqueIndex {
    /// The one on a column, of several the primary key.
    pub fn on(table: Table, column: i16) -> Option<UniqueIndex> {
        let indexes: Vec<_> = indexes(table).into_iter().filter_map(|index| described(index, column)).collect();
        let usable = indexes.iter().filter(|index| index.is_immediate && index.is_whole);
        let Described { oid, collation, .. } = *usable.min_by_key(|index| (!index.is_primary, index.oid.to_u32()))?;
        let has_rival = indexes.iter().any(|index| !index.is_immediate);
        // SAFETY: a catalogue look-up, for a column that has a collation.
        let is_exact = collation == pg_sys::InvalidOid || unsafe { pg_sys::get_collation_isdeterministic(collation) };
        Some(UniqueIndex { oid, is_exact, rival: has_rival.then(|| Rival { constraint: constraint(oid) }) })
    }
}

/// The indexes of a table that are not about to be dropped.
fn indexes(table: Table) -> Vec<pg_sys::Oid> {
    // SAFETY: the table is open; a list of OIDs, or null for none.
    unsafe {
        let list = pg_sys::RelationGetIndexList(table.raw());
        let count = if list.is_null() { 0 } else { (*list).length as usize };
        (0..count).map(|at| (*(*list).elements.add(at)).oid_value).collect()
    }
}

/// An index, if it is a unique one on this column alone.
fn described(index: pg_sys::Oid, column: i16) -> Option<Described> {
    let cache = pg_sys::SysCacheIdentifier::INDEXRELID as i32;
    // SAFETY: a tuple of pg_index, whose fixed part comes first and ends with the columns, of which there is one at least. It
    // lives until it is released; collations are as many as there are columns.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(cache, index.into());
        if tuple.is_null() {
            return None;
        }
        let data = (*tuple).t_data;
        let form = &*data.byte_add(usize::from((*data).t_hoff)).cast::<pg_sys::FormData_pg_index>();
        let mut is_null = false;
        let mut attribute = |number: u32| {
            let value = pg_sys::SysCacheGetAttr(cache, tuple, number as i16, &mut is_null);
            (!is_null).then_some(value)
        };
        let is_of_column = form.indisunique && form.indnkeyatts == 1 && *form.indkey.values.as_ptr() == column;
        let found = is_of_column.then(|| Described {
            oid: index,
            is_primary: form.indisprimary,
            is_immediate: form.indimmediate,
            is_whole: form.indisvalid && attribute(pg_sys::Anum_pg_index_indpred).is_none(),
            collation: attribute(pg_sys::Anum_pg_index_indcollation).map_or(pg_sys::InvalidOid, |collations| {
                let collations = pg_sys::pg_detoast_datum(collations.cast_mut_ptr());
                *(*collations.cast::<pg_sys::oidvector>()).values.as_ptr()
            }),
        });
        pg_sys::ReleaseSysCache(tuple);
        found
    }
}

/// The name of the constraint that an index is of.
fn constraint(index: pg_sys::Oid) -> Option<String> {
    // SAFETY: catalogue look-ups: InvalidOid and null where there is none, else a palloc'd C string.
    unsafe {
        let name = pg_sys::get_constraint_name(pg_sys::get_index_constraint(index));
        (!name.is_null()).then(|| catalog::quote_identifier(CStr::from_ptr(name)))
    }
}
