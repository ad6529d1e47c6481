//! Stores rejected lines in a table that belongs to the extension, not to the caller.

use crate::extension;
use crate::own_tables;
use fhir_bulk_pg::session;
use fhir_bulk_pg::spi::Parameter;

/// A rejected line.
#[derive(Debug)]
pub struct Reject {
    /// Counted from 1.
    pub line_number: u64,
    /// Where the line begins in the decompressed stream.
    pub byte_offset: u64,
    /// Five characters.
    pub sqlstate: String,
    /// The message that would have ended the load.
    pub error: String,
    /// The line's first bytes, which need not be UTF-8.
    pub line: Vec<u8>,
}

/// Stores rejected lines of a source for the current role, in the caller's transaction.
pub fn add_rejects(source: &str, rejects: &[Reject]) {
    let extension = extension::this_extension();
    let role = session::role();
    let parameters = || {
        vec![
            Parameter::oid(role),
            Parameter::string(source),
            Parameter::int8s(rejects.iter().map(|r| r.line_number as i64)),
            Parameter::int8s(rejects.iter().map(|r| r.byte_offset as i64)),
            Parameter::strings(rejects.iter().map(|r| r.sqlstate.as_bytes())),
            Parameter::strings(rejects.iter().map(|r| r.error.as_bytes())),
            Parameter::byteas(rejects.iter().map(|r| r.line.as_slice())),
        ]
    };
    own_tables::call(extension.owner, "add_rejects($1, $2, $3, $4, $5, $6, $7)", parameters);
}
