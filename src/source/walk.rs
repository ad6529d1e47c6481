//! Lists the files of a folder of the server and of the folders in it, in the order of their paths, which is that of S3.

use super::file;
use super::pattern::{Pattern, is_ndjson};
use crate::file_url;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::session;
use pgrx::PgSqlErrorCode;
use std::collections::{BinaryHeap, VecDeque};
use std::fs::{self, DirEntry};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How many names of a folder are kept at once. A folder with more is read again for the next ones.
const KEPT: usize = 20_000;
/// How many entries are read between two looks for an interrupt.
const ENTRIES_PER_LOOK: usize = 1000;

/// The files that are not listed yet.
pub struct Walk {
    /// The folder as the URL names it, with `/` at its end.
    root: String,
    pattern: Pattern,
    /// From the root to the folder that is read now.
    folders: Vec<Folder>,
    /// How many files had other names.
    pub passed_over: u64,
}

/// A folder, and what is in it.
struct Folder {
    path: PathBuf,
    /// Its path below the root, as a part of a URL: empty, or with `/` at its end.
    below: String,
    /// The next of its entries, in order.
    page: VecDeque<Entry>,
    /// Where the next page begins; `None` before the first one.
    from: Option<Entry>,
    /// There is no next page.
    at_end: bool,
}

/// The name of a file, or that of a folder with `/` at its end.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Entry(Vec<u8>);

impl Walk {
    /// Begins with the folder `root`, a URL with `/` at its end.
    ///
    /// # Errors
    /// 22023 for a URL without an absolute path; 42501 without the rights of `pg_read_server_files` or of the server's user;
    /// 58P01 if there is no such folder; 42809 if it is no folder; 58030 otherwise.
    pub fn start(root: &str, pattern: Pattern) -> Result<Walk> {
        let path = file::allowed_path(root, root.strip_prefix("file://").unwrap_or_default())?;
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {}
            Err(error) if error.kind() != io::ErrorKind::NotADirectory => return Err(failed(&path, &error)),
            _ => {
                return Err(Error::new(PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE, format!("{root} is not a folder"))
                    .hint("Leave out the slash at its end if it is a file."));
            }
        }
        let folders = vec![Folder::new(path, String::new())];
        Ok(Walk { root: root.to_owned(), pattern, folders, passed_over: 0 })
    }

    /// Appends the URLs of the next files, up to so many; none after the last one.
    ///
    /// # Errors
    /// 42501 for a folder that the server's user may not read; 58030 otherwise.
    pub fn next(&mut self, most: usize, urls: &mut Vec<String>) -> Result<()> {
        while let Some(depth) = self.folders.len().checked_sub(1)
            && urls.len() < most
        {
            let Walk { root, pattern, folders, passed_over } = self;
            let folder = &mut folders[depth];
            let Some(Entry(name)) = folder.page.pop_front() else {
                if folder.at_end {
                    folders.pop();
                } else {
                    folder.read(depth, pattern, passed_over)?;
                }
                continue;
            };
            let below = format!("{}{}", folder.below, file_url::encoded(&name));
            match name.strip_suffix(b"/") {
                None => urls.push(format!("{root}{below}")),
                Some(name) => {
                    let path = folder.path.join(std::ffi::OsStr::from_bytes(name));
                    folders.push(Folder::new(path, below));
                }
            }
        }
        Ok(())
    }
}

impl Folder {
    fn new(path: PathBuf, below: String) -> Folder {
        Folder { path, below, page: VecDeque::new(), from: None, at_end: false }
    }

    /// Reads the folder, and keeps the first entries after those of the pages before.
    fn read(&mut self, depth: usize, pattern: &Pattern, passed_over: &mut u64) -> Result<()> {
        let of_folder = |error: io::Error| failed(&self.path, &error);
        let mut first = BinaryHeap::new();
        for (at, entry) in fs::read_dir(&self.path).map_err(of_folder)?.enumerate() {
            if at % ENTRIES_PER_LOOK == 0 {
                session::check_for_interrupts();
            }
            match meant(&entry.map_err(of_folder)?, depth, pattern).map_err(of_folder)? {
                Meant::No => {}
                Meant::Other => *passed_over += u64::from(self.from.is_none()),
                Meant::Yes(entry) if self.from.as_ref().is_some_and(|from| entry <= *from) => {}
                Meant::Yes(entry) => {
                    first.push(entry);
                    if first.len() > KEPT {
                        first.pop();
                    }
                }
            }
        }
        self.at_end = first.len() < KEPT;
        self.page = first.into_sorted_vec().into();
        self.from = self.page.back().cloned();
        Ok(())
    }
}

/// Whether an entry of a folder is listed.
enum Meant {
    Yes(Entry),
    No,
    /// A file whose name is not that of NDJSON.
    Other,
}

/// Links to files count as files, so that one that must not be followed is told when it is opened. Links to folders are not
/// entered.
fn meant(entry: &DirEntry, depth: usize, pattern: &Pattern) -> io::Result<Meant> {
    let kind = match entry.file_type() {
        // It was removed meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Meant::No),
        kind => kind?,
    };
    let mut name = entry.file_name().as_bytes().to_vec();
    Ok(if kind.is_dir() {
        let enters = pattern.enters(depth, &name);
        name.push(b'/');
        if enters { Meant::Yes(Entry(name)) } else { Meant::No }
    } else if !pattern.takes(depth, &name) {
        Meant::No
    } else if is_ndjson(&name) {
        Meant::Yes(Entry(name))
    } else {
        Meant::Other
    })
}

fn failed(path: &Path, error: &io::Error) -> Error {
    let code = match error.kind() {
        io::ErrorKind::NotFound => PgSqlErrorCode::ERRCODE_UNDEFINED_FILE,
        io::ErrorKind::PermissionDenied => PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        _ => PgSqlErrorCode::ERRCODE_IO_ERROR,
    };
    Error::new(code, format!("could not list folder {}: {error}", path.display()))
        .hint("The folder is read on the server, by the user that PostgreSQL runs as.")
}
