//! `file:///path`: reads a file on the server, for roles that may read the server's files.

use super::opened::{Bytes, Counted, Progress, Source};
use crate::file_url;
use fhir_bulk_feed as feed;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::session;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use pgrx::{PgSqlErrorCode, pg_sys};
use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// In microseconds.
const FROM_1970_TO_2000: i64 = 946_684_800_000_000;

/// Opens `file://` + `rest`.
///
/// # Errors
/// 22023 for a URL without an absolute path; 42501 without the rights of `pg_read_server_files` or of the
/// server's user; 58P01 when there is no such file; 42809 when it is no regular file; 58030 otherwise.
pub fn open(url: &str, rest: &str) -> Result<Source> {
    of_path(url, &allowed_path(url, rest)?)
}

/// Opens a file of a listing, if it is in the listed folder: whoever may write there could have put a link in its place that
/// leads out of it.
///
/// # Errors
/// As for [`open`], and 42501 for a link that leads out of the folder.
pub fn open_within(url: &str, folder: &str) -> Result<Source> {
    let path = |url: &str| allowed_path(url, url.strip_prefix("file://").unwrap_or_default());
    let (root, path) = (path(folder)?, path(url)?);
    let below = path.strip_prefix(&root).map_err(|_| leads_out(url, folder))?;
    let failed = |error: Errno| match error {
        Errno::EXDEV | Errno::ELOOP => leads_out(url, folder),
        error => could_not_open(url, &error.into()),
    };
    let root = File::open(&root).map_err(|error| could_not_open(url, &error))?;
    // It does not wait for the writer of a pipe.
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    of_file(url, File::from(openat2(&root, below, how).map_err(failed)?))
}

fn leads_out(url: &str, folder: &str) -> Error {
    let message = format!("permission denied to read {url}: it is a link that leads out of {folder}");
    Error::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, message)
        .with_reason(format!("permission denied: a link that leads out of {folder}"))
        .detail("The files of a listing are read within the listed folder only.")
        .hint("Name the file itself, without a link, in an input of its own.")
}

/// The path of `file://` + `rest`, for roles that may read the server's files.
///
/// # Errors
/// 22023 for a URL without an absolute path; 42501 without the rights of `pg_read_server_files`.
pub fn allowed_path(url: &str, rest: &str) -> Result<PathBuf> {
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
    Ok(path)
}

/// When a file was last modified, in microseconds since 2000-01-01T00:00:00Z; `None` if it cannot be told. The caller has
/// checked the rights.
pub fn modified(url: &str) -> Option<i64> {
    let path = file_url::path(url.strip_prefix("file://")?)?;
    // A link counts as it is, as in the listing.
    let since_1970 = std::fs::symlink_metadata(path).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since_1970.as_micros()).ok().map(|micros| micros - FROM_1970_TO_2000)
}

/// Opens a file of the server. The caller has checked the rights.
///
/// # Errors
/// As for [`open`].
pub fn of_path(name: &str, path: &Path) -> Result<Source> {
    // Checked before it is opened: opening a pipe would wait for its writer.
    check_regular(name, &std::fs::metadata(path).map_err(|error| could_not_open(name, &error))?)?;
    of_file(name, File::open(path).map_err(|error| could_not_open(name, &error))?)
}

fn of_file(name: &str, file: File) -> Result<Source> {
    let metadata = file.metadata().map_err(|error| could_not_open(name, &error))?;
    check_regular(name, &metadata)?;
    let progress = Progress::default();
    progress.set_total(metadata.len());
    let bytes = Bytes::Anywhere(feed::Source::Reader(Box::new(Counted { bytes: file, progress: progress.clone() })));
    Ok(Source { name: name.to_owned(), bytes, progress })
}

fn check_regular(name: &str, metadata: &Metadata) -> Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let error = Error::new(PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE, format!("{name} is not a regular file"));
    Err(if metadata.is_dir() { error.hint("bulk_import() takes folders, with a slash at their end.") } else { error })
}

fn could_not_open(name: &str, error: &io::Error) -> Error {
    let code = match error.kind() {
        io::ErrorKind::NotFound => PgSqlErrorCode::ERRCODE_UNDEFINED_FILE,
        io::ErrorKind::PermissionDenied => PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        _ => PgSqlErrorCode::ERRCODE_IO_ERROR,
    };
    Error::new(code, format!("could not open {name}: {error}"))
        .hint("The file is opened on the server, by the user that PostgreSQL runs as.")
}
