//! The secret that signs URLs: the extension's, which no role can read.

use super::table::sql;
use crate::pg::catalog::{self, quote_identifier};
use crate::pg::{session, spi};

/// The secret of this database, made when the extension was.
pub fn secret() -> Vec<u8> {
    let extension = catalog::this_extension();
    let query = sql(format!("SELECT secret::pg_catalog.text FROM {}.bulk_secret", quote_identifier(&extension.schema)));
    let found = session::as_role(extension.owner, || spi::texts(&query, &[]));
    found.concat().into_bytes()
}
