//! The secret that signs URLs: the extension's, which no role can read.

use crate::extension;
use crate::own_tables;

/// The secret of this database, made when the extension was.
pub fn secret() -> Vec<u8> {
    let query = "SELECT secret::pg_catalog.text FROM fhir_bulk_internal.bulk_secret";
    own_tables::texts(extension::this_extension().owner, query, Vec::new).concat().into_bytes()
}
