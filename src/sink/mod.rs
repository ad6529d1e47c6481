//! Where the files of exports go: a place for each job. Its files get URLs when all of them are whole.

mod errors;
mod file;
mod s3;

pub use errors::gone;

use crate::settings::s3::Address;
use fhir_bulk_pg::error::{Error, Result};
use pgrx::PgSqlErrorCode;
use std::fs::File;
use std::time::Duration;

/// The place that `fhir_bulk.export_location` names, as far as it is this database's.
pub enum Location {
    /// A folder of the server.
    File(file::Folder),
    /// Objects of an S3 service.
    S3(s3::Prefix),
}

/// The files of a job that is not done. They are gone if it is not published.
pub enum Draft {
    /// In a folder of the server.
    File(file::Draft),
    /// In an S3 service.
    S3(s3::Draft),
}

/// A file of a draft.
pub enum Output {
    /// On the server.
    File(file::Output),
    /// In an S3 service.
    S3(Box<s3::Output>),
}

impl Location {
    /// A location by its URL. `owner` tells the databases apart that share it; `service` is the one that `s3://` means.
    ///
    /// # Errors
    /// 55000 for none, and for a service without a key; 22023 for what is no URL of a known scheme.
    pub fn parse(url: &str, owner: &str, service: &Address) -> Result<Location> {
        if url.is_empty() {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "there is no place for exports",
            )
            .hint(
                "A superuser can name one: ALTER DATABASE … SET fhir_bulk.export_location = 'file:///srv/exports'; \
                 or 's3://bucket/prefix'.",
            ));
        }
        match url.split_once("://") {
            Some(("file", rest)) => Ok(Location::File(file::Folder::new(url, rest, owner)?)),
            Some(("s3", _)) => Ok(Location::S3(s3::Prefix::new(url, owner, service)?)),
            _ => Err(Error::invalid_argument(format!("fhir_bulk.export_location is \"{url}\"")).hint(errors::KNOWN)),
        }
    }

    /// Begins the files of a job; what an earlier attempt left of them is removed.
    ///
    /// # Errors
    /// Those of the file system: 42501, 53100, 58P01, 58030. Those of the service: 42501, 58P01 and 08006.
    pub fn begin(&self, job: &str) -> Result<Draft> {
        Ok(match self {
            Location::File(folder) => Draft::File(folder.begin(job)?),
            Location::S3(prefix) => Draft::S3(prefix.begin(job)?),
        })
    }

    /// The files of a job that another process has begun.
    ///
    /// # Errors
    /// 22023 for a job that cannot be part of a key.
    pub fn join(&self, job: &str) -> Result<Draft> {
        Ok(match self {
            Location::File(folder) => Draft::File(folder.draft(job)),
            Location::S3(prefix) => Draft::S3(prefix.draft(job)?),
        })
    }

    /// Removes the files of a job, published or not.
    ///
    /// # Errors
    /// As of [`Location::begin`].
    pub fn remove(&self, job: &str) -> Result<()> {
        match self {
            Location::File(folder) => folder.remove(job),
            Location::S3(prefix) => prefix.remove(job),
        }
    }

    /// The URL that leads to a published file by itself, for as long as `valid`; `None` for files of the server.
    ///
    /// # Errors
    /// 22023 for a job that cannot be part of a key.
    pub fn url(&self, job: &str, name: &str, valid: Duration) -> Result<Option<String>> {
        match self {
            Location::File(_) => Ok(None),
            Location::S3(prefix) => prefix.url(job, name, valid).map(Some),
        }
    }

    /// Opens a published file of a job.
    ///
    /// # Errors
    /// 58P01 when there is none, and where files are objects; those of the file system.
    pub fn open(&self, job: &str, name: &str) -> Result<File> {
        match self {
            Location::File(folder) => folder.open(job, name),
            Location::S3(prefix) => Err(Error::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_FILE,
                format!("could not open \"{job}/{name}\": exports go to {}", prefix.name()),
            )
            .hint("The URLs of such exports lead to the service itself; bulk_export_status() has them.")),
        }
    }
}

impl Draft {
    /// Makes a file.
    ///
    /// # Errors
    /// As of [`Location::begin`].
    pub fn create(&self, name: &str) -> Result<Output> {
        Ok(match self {
            Draft::File(folder) => Output::File(folder.create(name)?),
            Draft::S3(objects) => Output::S3(Box::new(objects.create(name)?)),
        })
    }

    /// Makes all files readable at once, under the job's name. Objects are, each for itself.
    ///
    /// # Errors
    /// As of [`Location::begin`].
    pub fn publish(&self) -> Result<()> {
        match self {
            Draft::File(folder) => folder.publish(),
            Draft::S3(_) => Ok(()),
        }
    }
}

impl Output {
    /// Appends bytes.
    ///
    /// # Errors
    /// As of [`Location::begin`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Output::File(file) => file.write(bytes),
            Output::S3(object) => object.write(bytes),
        }
    }

    /// Ends the file; it survives a crash of the machine from now on.
    ///
    /// # Errors
    /// As of [`Location::begin`].
    pub fn finish(self) -> Result<()> {
        match self {
            Output::File(file) => file.finish(),
            Output::S3(object) => object.finish(),
        }
    }
}
