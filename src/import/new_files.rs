//! What is kept of files that imports with `onlyNew` have taken. What is said to its table stands in `sql/files.sql`.

use crate::{extension, own_tables};
use fhir_bulk_pg::spi::Parameter;

/// Forgets the files of roles that were dropped: nobody sees them, and a new role may get the same OID. Does nothing without
/// the extension.
pub fn forget_dropped_roles() {
    let Some(extension) = extension::find_this_extension() else { return };
    let dropped: Vec<u32> = own_tables::rows(extension.owner, "dropped_roles_of_files()", Vec::new);
    for role in dropped {
        own_tables::call(extension.owner, "forget_files_of_role($1)", || vec![Parameter::oid(role.into())]);
    }
}
