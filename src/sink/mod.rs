//! Where the files of exports go: a folder for each job, which nobody can read from before all of its files are whole.

mod file;

use crate::error::{Error, Result};
use file::Folder;
use pgrx::PgSqlErrorCode;
use std::fs::File;

/// The place that `fhir_bulk.export_location` names, as far as it is this database's.
pub struct Location {
    folder: Folder,
}

/// The files of a job that is not done. They are gone if it is not published.
pub struct Draft {
    folder: file::Draft,
}

/// A file of a draft.
pub struct Output {
    file: file::Output,
}

impl Location {
    /// A location by its URL. `owner` tells the databases apart that share it.
    ///
    /// # Errors
    /// 55000 for none; 22023 for what is no URL of a known scheme.
    pub fn parse(url: &str, owner: &str) -> Result<Location> {
        if url.is_empty() {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "there is no place for exports",
            )
            .hint(
                "A superuser can name one: ALTER DATABASE … SET fhir_bulk.export_location = 'file:///srv/exports';",
            ));
        }
        match url.split_once("://") {
            Some(("file", rest)) => Ok(Location { folder: Folder::new(url, rest, owner)? }),
            _ => Err(Error::invalid_argument(format!("fhir_bulk.export_location is \"{url}\""))
                .hint("It is file:///folder/on/the/server.")),
        }
    }

    /// Begins the files of a job; what an earlier attempt left of them is removed.
    ///
    /// # Errors
    /// Those of the file system: 42501, 53100, 58P01, 58030.
    pub fn begin(&self, job: &str) -> Result<Draft> {
        Ok(Draft { folder: self.folder.begin(job)? })
    }

    /// The files of a job that another process has begun.
    pub fn join(&self, job: &str) -> Draft {
        Draft { folder: self.folder.draft(job) }
    }

    /// Removes the files of a job, published or not.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn remove(&self, job: &str) -> Result<()> {
        self.folder.remove(job)
    }

    /// Opens a published file of a job.
    ///
    /// # Errors
    /// 58P01 when there is none; those of the file system.
    pub fn open(&self, job: &str, name: &str) -> Result<File> {
        self.folder.open(job, name)
    }
}

impl Draft {
    /// Makes a file.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn create(&self, name: &str) -> Result<Output> {
        Ok(Output { file: self.folder.create(name)? })
    }

    /// Makes all files readable at once, under the job's name.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn publish(&self) -> Result<()> {
        self.folder.publish()
    }
}

impl Output {
    /// Appends bytes.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write(bytes)
    }

    /// Ends the file; it survives a crash of the machine from now on.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn finish(self) -> Result<()> {
        self.file.finish()
    }
}
