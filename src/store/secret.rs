//! The secret that signs URLs: the extension's, which no role can read.

use crate::extension;
use crate::own_tables;

/// The secret of this database, made when the extension was.
pub fn secret() -> Vec<u8> {
    let secret: Vec<String> = own_tables::rows(extension::this_extension().owner, "secret()", Vec::new);
    secret.concat().into_bytes()
}
