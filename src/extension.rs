//! Looks up this extension in the database's catalogue.

use fhir_bulk_pg::session;
use fhir_bulk_pg::spi::{self, Parameter};
use pgrx::pg_sys;
use std::ffi::CStr;

/// Its library, by its installed name.
pub const LIBRARY: &CStr = c"fhir_bulk";

/// The extension and its owner.
pub struct Extension {
    /// Its own OID.
    pub oid: pg_sys::Oid,
    /// The role that owns it.
    pub owner: pg_sys::Oid,
}

/// This extension in this database, for code that one of its functions runs.
pub fn this_extension() -> Extension {
    find_this_extension().expect("one of its functions runs")
}

/// The schema in which the extension's functions are, quoted where needed.
pub fn schema() -> String {
    let query = c"SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace \
        WHERE e.extname = 'fhir_bulk'";
    spi::catalog_texts(query, &[]).pop().expect("one of its functions runs")
}

/// Whether the current role may change what is for everybody: it is a superuser, or owns the extension.
pub fn is_administered() -> bool {
    session::is_superuser() || session::role() == this_extension().owner
}

/// This extension, or `None` if it has been dropped: for background workers, which no function calls.
pub fn find_this_extension() -> Option<Extension> {
    let query = c"SELECT concat_ws(' ', e.oid, e.extowner) FROM pg_extension e WHERE e.extname = 'fhir_bulk'";
    let found = spi::catalog_texts(query, &[]);
    let mut parts = found.first()?.split(' ');
    let mut oid = || parts.next().and_then(|number| number.parse::<u32>().ok()).expect("an OID").into();
    let (oid, owner) = (oid(), oid());
    Some(Extension { oid, owner })
}

/// Whether a relation is the extension's own with this name.
pub fn is_own_relation(relation: pg_sys::Oid, name: &CStr) -> bool {
    let query =
        c"SELECT 'yes' FROM pg_class c JOIN pg_depend d ON d.objid = c.oid AND d.classid = 'pg_class'::regclass \
        JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' \
        WHERE c.oid = $1 AND c.relname = $2::name AND e.extname = 'fhir_bulk'";
    let name = name.to_string_lossy();
    !spi::catalog_texts(query, &[Parameter::oid(relation), Parameter::string(&name)]).is_empty()
}
