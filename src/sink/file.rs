//! `file:///folder`: writes files on the server, in `folder/<database>/<job>/`. A job first writes to a folder with another
//! name, and renames it when all files are complete.

use super::errors::gone;
use crate::file_url;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::session;
use nix::libc::O_NOFOLLOW;
use pgrx::PgSqlErrorCode;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Only the user that PostgreSQL runs as may read exports.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// The prefix of folders whose files are not complete yet.
const DRAFT: &str = ".draft-";
/// The folder of announcements, in a job's folder. Each is the name of an empty file.
const ANNOUNCED: &str = ".announced";

/// This database's folder in the location.
pub struct Folder(PathBuf);

/// The folder of a job while its files are written.
pub struct Draft {
    draft: PathBuf,
    published: PathBuf,
}

/// A file of a draft.
pub struct Output {
    file: File,
    path: PathBuf,
}

impl Folder {
    /// The folder of `owner` below `file://` + `rest`. Creates nothing yet.
    ///
    /// # Errors
    /// 22023 for a path that is not absolute.
    pub fn new(url: &str, rest: &str, owner: &str) -> Result<Folder> {
        let root = file_url::path(rest).ok_or_else(|| {
            Error::invalid_argument(format!("fhir_bulk.export_location \"{url}\" has no absolute path"))
                .hint("Write three slashes: file:///srv/exports")
        })?;
        Ok(Folder(root.join(owner)))
    }

    /// Creates the folders that do not exist, and an empty draft.
    pub fn begin(&self, job: &str) -> Result<Draft> {
        if let Some(root) = self.0.parent() {
            make_folder(root)?;
        }
        make_folder(&self.0)?;
        self.remove(job)?;
        let draft = self.draft(job);
        make_folder(&draft.draft)?;
        Ok(draft)
    }

    pub fn draft(&self, job: &str) -> Draft {
        Draft { draft: self.0.join(format!("{DRAFT}{job}")), published: self.0.join(job) }
    }

    pub fn remove(&self, job: &str) -> Result<()> {
        let Draft { draft, published } = self.draft(job);
        [draft, published].iter().try_for_each(|folder| remove_folder(folder))
    }

    pub fn announced(&self, job: &str) -> Result<Vec<String>> {
        let Draft { draft, published } = self.draft(job);
        // It may be published between the first two looks.
        for folder in [&draft, &published, &draft].map(|folder| folder.join(ANNOUNCED)) {
            match names(&folder) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(failed("read", &folder, &error)),
                Ok(names) => {
                    // What is told now is still announced after a crash: the announcement, the file, and the folder of both.
                    folder.ancestors().take(3).try_for_each(sync_folder)?;
                    return Ok(names);
                }
            }
        }
        Ok(Vec::new())
    }

    pub fn open(&self, job: &str, name: &str) -> Result<File> {
        let Draft { draft, published } = self.draft(job);
        // It may be published between the first two looks.
        for path in [&published, &draft, &published].map(|folder| folder.join(name)) {
            match OpenOptions::new().read(true).custom_flags(O_NOFOLLOW).open(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                opened => return opened.map_err(|error| failed("open", &path, &error)),
            }
        }
        Err(gone(job, name))
    }
}

impl Draft {
    pub fn create(&self, name: &str) -> Result<Output> {
        let path = self.draft.join(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&path);
        Ok(Output { file: file.map_err(|error| failed("create", &path, &error))?, path })
    }

    pub fn discard(&self, name: &str) -> Result<bool> {
        let path = self.draft.join(name);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed("remove", &path, &error)),
        }
    }

    pub fn announce(&self, text: &str) -> Result<()> {
        let folder = self.draft.join(ANNOUNCED);
        make_folder(&folder)?;
        let path = folder.join(text);
        let made = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&path);
        made.map(|_| ()).map_err(|error| failed("create", &path, &error))
    }

    pub fn remove_announcements(&self) -> Result<()> {
        remove_folder(&self.published.join(ANNOUNCED))
    }

    pub fn publish(&self) -> Result<()> {
        sync_folder(&self.draft)?;
        fs::rename(&self.draft, &self.published).map_err(|error| failed("rename", &self.draft, &error))?;
        self.published.parent().map_or(Ok(()), sync_folder)
    }
}

impl Output {
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        session::check_for_interrupts();
        self.file.write_all(bytes).map_err(|error| failed("write", &self.path, &error))
    }

    pub fn finish(self) -> Result<()> {
        if session::syncs_files() {
            self.file.sync_all().map_err(|error| failed("write", &self.path, &error))?;
        }
        Ok(())
    }
}

/// Creates one folder. Its parent must exist, so that a mistyped path does not create a tree of folders.
fn make_folder(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(FOLDER_MODE).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(failed("create", path, &error)),
        _ => Ok(()),
    }
}

/// Removes a folder with all that is in it, if it exists.
fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove", path, &error)),
        _ => Ok(()),
    }
}

/// The names in a folder that are text.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

fn sync_folder(path: &Path) -> Result<()> {
    if session::syncs_files() {
        let folder = File::open(path).and_then(|folder| folder.sync_all());
        folder.map_err(|error| failed("write", path, &error))?;
    }
    Ok(())
}

/// The error of a file operation, with the SQLSTATE that PostgreSQL uses for its own files.
fn failed(to: &str, path: &Path, error: &io::Error) -> Error {
    let code = match error.kind() {
        ErrorKind::NotFound => PgSqlErrorCode::ERRCODE_UNDEFINED_FILE,
        ErrorKind::PermissionDenied => PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => PgSqlErrorCode::ERRCODE_DISK_FULL,
        _ => PgSqlErrorCode::ERRCODE_IO_ERROR,
    };
    // The status of an export shows this reason, which has no path of the server.
    let error_of_path = Error::new(code, format!("could not {to} \"{}\": {error}", path.display()));
    error_of_path
        .with_reason(format!("could not {to} files of the export: {error}"))
        .hint("The user that PostgreSQL runs as writes exports to fhir_bulk.export_location on the server.")
}
