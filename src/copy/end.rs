//! The source or target of a COPY: the client, or a file or program of the server.

use fhir_bulk_pg::copy::End;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::progress::Through;
use fhir_bulk_pg::session;
use pgrx::{PgSqlErrorCode, pg_sys};
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// Checks, like COPY itself, that the current role may copy from or to a file or a program of the server.
///
/// # Errors
/// 42501, with the role that has the right.
pub fn check(end: End<'_>, is_from: bool) -> Result<()> {
    let (role, name, what) = match (end, is_from) {
        (End::Client, _) => return Ok(()),
        (End::File(_), true) => (pg_sys::ROLE_PG_READ_SERVER_FILES, "pg_read_server_files", "from a file"),
        (End::File(_), false) => (pg_sys::ROLE_PG_WRITE_SERVER_FILES, "pg_write_server_files", "to a file"),
        (End::Program(_), from) => (
            pg_sys::ROLE_PG_EXECUTE_SERVER_PROGRAM,
            "pg_execute_server_program",
            if from { "from a program" } else { "to a program" },
        ),
    };
    if session::has_role(pg_sys::Oid::from(role)) {
        return Ok(());
    }
    Err(Error::new(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        format!("permission denied to COPY {what} of the server"),
    )
    .detail(format!("Only roles with the privileges of {name} may do that."))
    .hint("Anyone can COPY from STDIN or to STDOUT. \\copy of psql does that with files of the client."))
}

/// The path of a file.
pub fn path(name: &CStr) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(name.to_bytes()))
}

/// The `type` in `pg_stat_progress_copy`.
pub fn through(end: End<'_>) -> Through {
    match end {
        End::Client => Through::Pipe,
        End::File(_) => Through::File,
        End::Program(_) => Through::Program,
    }
}
