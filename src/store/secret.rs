//! Reads the secret that signs URLs. It belongs to the extension; no role can read it.

use crate::extension;
use crate::own_tables;

/// The secret of this database, which was created with the extension.
pub fn secret() -> Vec<u8> {
    let secret: Vec<String> = own_tables::rows(extension::this_extension().owner, "secret()", Vec::new);
    secret.concat().into_bytes()
}
