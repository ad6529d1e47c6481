//! `file:///path`: reads a file on the server, for roles that may read the server's files.

use super::opened::{Bytes, Counted, Progress, Source};
use crate::file_url;
use fhir_bulk_feed as feed;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::session;
use pgrx::{PgSqlErrorCode, pg_sys};
use std::fs::File;
use std::io;
use std::path::Path;

/// Opens `file://` + `rest`.
///
/// # Errors
/// 22023 for a URL without an absolute path; 42501 without the rights of `pg_read_server_files` or of the
/// server's user; 58P01 when there is no such file; 42809 when it is no regular file; 58030 otherwise.
pub fn open(url: &str, rest: &str) -> Result<Source> {
    let path = file_url::path(rest).ok_or_else(|| {
        Error::invalid_argument(format!("source \"{url}\" has no absolute path"))
            .hint("Write three slashes: file:///path/to/Patient.ndjson.gz")
    })?;
    if !session::has_role(pg_sys::Oid::from(pg_sys::ROLE_PG_READ_SERVER_FILES)) {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("permission denied to read {url} from the server"),
        )
        .detail("Only roles with the privileges of pg_read_server_files may read files of the server.")
        .hint("GRANT pg_read_server_files TO ...;"));
    }
    of_path(url, &path)
}

/// Opens a file of the server. The caller has checked the rights.
///
/// # Errors
/// As for [`open`].
pub fn of_path(name: &str, path: &Path) -> Result<Source> {
    let failed = |error: &io::Error| {
        let code = match error.kind() {
            io::ErrorKind::NotFound => PgSqlErrorCode::ERRCODE_UNDEFINED_FILE,
            io::ErrorKind::PermissionDenied => PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            _ => PgSqlErrorCode::ERRCODE_IO_ERROR,
        };
        Error::new(code, format!("could not open {name}: {error}"))
            .hint("The file is opened on the server, by the user that PostgreSQL runs as.")
    };
    // Checked before it is opened: opening a pipe would wait for its writer.
    let metadata = std::fs::metadata(path).map_err(|error| failed(&error))?;
    if !metadata.is_file() {
        return Err(Error::new(PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE, format!("{name} is not a regular file")));
    }
    let file = File::open(path).map_err(|error| failed(&error))?;
    let progress = Progress::default();
    progress.set_total(metadata.len());
    let bytes = Bytes::Anywhere(feed::Source::Reader(Box::new(Counted { bytes: file, progress: progress.clone() })));
    Ok(Source { name: name.to_owned(), bytes, progress })
}
