//! The extension itself, as the database knows it.

use fhir_bulk_pg::spi;
use pgrx::pg_sys;

/// The extension, and whose it is.
pub struct Extension {
    /// Its own OID.
    pub oid: pg_sys::Oid,
    /// The role that made it.
    pub owner: pg_sys::Oid,
}

/// This extension in this database, whose functions are being called.
pub fn this_extension() -> Extension {
    find_this_extension().expect("its functions are being called")
}

/// This extension, unless this database has it no more: for those whom nobody calls.
pub fn find_this_extension() -> Option<Extension> {
    let query = c"SELECT concat_ws(' ', e.oid, e.extowner) FROM pg_extension e WHERE e.extname = 'fhir_bulk'";
    let found = spi::catalog_texts(query, &[]);
    let mut parts = found.first()?.split(' ');
    let mut oid = || parts.next().and_then(|number| number.parse::<u32>().ok()).expect("an OID").into();
    let (oid, owner) = (oid(), oid());
    Some(Extension { oid, owner })
}
