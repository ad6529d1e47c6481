//! Writes the files of exports to a folder of the server or to an S3 service. The files of a job get URLs when all of them
//! are complete.

mod budget;
mod errors;
mod file;
mod s3;
mod tries;

pub use budget::Budget;
pub use errors::gone;
pub use tries::Tries;

use crate::settings::s3::Address;
use fhir_bulk_pg::error::{Error, Result};
use pgrx::PgSqlErrorCode;
use std::fs::File;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// This database's part of `fhir_bulk.export_location`.
pub enum Location {
    /// A folder of the server.
    File(file::Folder),
    /// Objects of an S3 service.
    S3(s3::Prefix),
}

/// The files of a job that has not finished. They are removed if they are never published.
pub struct Draft<'a> {
    place: Rc<Place>,
    budget: Option<Budget<'a>>,
    /// How many announcements there are, if there are any.
    announced: Option<&'a AtomicU64>,
}

/// Where the files of a draft are.
enum Place {
    /// In a folder of the server.
    File(file::Draft),
    /// In an S3 service.
    S3(s3::Draft),
}

/// A file of a draft.
pub struct Output<'a> {
    to: To,
    budget: Option<Budget<'a>>,
}

/// Where a file's bytes go.
enum To {
    /// On the server.
    File(file::Output),
    /// In an S3 service.
    S3(Box<s3::Output>),
}

impl Location {
    /// Reads the URL of a location. `owner` identifies this database among those that share it; `service` is the service
    /// that `s3://` means.
    ///
    /// # Errors
    /// 55000 if it is empty, and for a service without a key; 22023 if it is not a URL with a known scheme.
    pub fn parse(url: &str, owner: &str, service: &Address) -> Result<Location> {
        if url.is_empty() {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "fhir_bulk.export_location is not set",
            )
            .hint(
                "A superuser can set it: ALTER DATABASE … SET fhir_bulk.export_location = 'file:///srv/exports'; \
                 or 's3://bucket/prefix'.",
            ));
        }
        match url.split_once("://") {
            Some(("file", rest)) => Ok(Location::File(file::Folder::new(url, rest, owner)?)),
            Some(("s3", _)) => Ok(Location::S3(s3::Prefix::new(url, owner, service)?)),
            _ => Err(Error::invalid_argument(format!("fhir_bulk.export_location is \"{url}\"")).hint(errors::KNOWN)),
        }
    }

    /// Begins the files of a job, and removes those of an earlier attempt.
    ///
    /// # Errors
    /// The errors of the file system: 42501, 53100, 58P01, 58030; those of the service: 42501, 58P01, 58030 and 08006.
    pub fn begin(&self, job: &str) -> Result<Draft<'static>> {
        Ok(Draft::new(match self {
            Location::File(folder) => Place::File(folder.begin(job)?),
            Location::S3(prefix) => Place::S3(prefix.begin(job)?),
        }))
    }

    /// Joins the files of a job that another process has begun.
    ///
    /// # Errors
    /// 22023 for a job whose id cannot be part of a key.
    pub fn join(&self, job: &str) -> Result<Draft<'static>> {
        Ok(Draft::new(match self {
            Location::File(folder) => Place::File(folder.draft(job)),
            Location::S3(prefix) => Place::S3(prefix.draft(job)?),
        }))
    }

    /// Removes the files of a job, published or not.
    ///
    /// # Errors
    /// As for [`Location::begin`].
    pub fn remove(&self, job: &str) -> Result<()> {
        match self {
            Location::File(folder) => folder.remove(job),
            Location::S3(prefix) => prefix.remove(job),
        }
    }

    /// A URL that gives access to a published file for the time `valid`; `None` for files of the server.
    ///
    /// # Errors
    /// 22023 for a job whose id cannot be part of a key.
    pub fn url(&self, job: &str, name: &str, valid: Duration) -> Result<Option<String>> {
        match self {
            Location::File(_) => Ok(None),
            Location::S3(prefix) => prefix.url(job, name, valid).map(Some),
        }
    }

    /// What a job has announced in its draft, or what is still with its published files; in no order. It survives a crash of
    /// the machine.
    ///
    /// # Errors
    /// As for [`Location::begin`].
    pub fn announced(&self, job: &str, tries: Tries) -> Result<Vec<String>> {
        match self {
            Location::File(folder) => folder.announced(job),
            Location::S3(prefix) => prefix.announced(job, tries),
        }
    }

    /// Opens a file of a job: a published one, or one that was announced.
    ///
    /// # Errors
    /// 58P01 if there is no such file, and if files are objects; the errors of the file system.
    pub fn open(&self, job: &str, name: &str) -> Result<File> {
        match self {
            Location::File(folder) => folder.open(job, name),
            Location::S3(prefix) => Err(Error::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_FILE,
                format!("could not open \"{job}/{name}\": exports go to {}", prefix.name()),
            )
            .hint("Download them from the service: bulk_export_status() returns their URLs.")),
        }
    }
}

impl Draft<'_> {
    fn new(place: Place) -> Draft<'static> {
        Draft { place: Rc::new(place), budget: None, announced: None }
    }

    /// The same files, within a budget; with announcements if there is a count of them, which several processes may share.
    pub fn within<'a>(&self, budget: Option<Budget<'a>>, announced: Option<&'a AtomicU64>) -> Draft<'a> {
        Draft { place: self.place.clone(), budget, announced }
    }

    /// The same files, within the same budget, without announcements.
    pub fn silent(&self) -> Draft<'_> {
        Draft { place: self.place.clone(), budget: self.budget, announced: None }
    }

    /// Creates a file.
    ///
    /// # Errors
    /// As for [`Location::begin`].
    pub fn create(&self, name: &str) -> Result<Output<'_>> {
        let to = match &*self.place {
            Place::File(folder) => To::File(folder.create(name)?),
            Place::S3(objects) => To::S3(Box::new(objects.create(name)?)),
        };
        Ok(Output { to, budget: self.budget })
    }

    /// Removes a file that an earlier try of the same files may have left, and returns whether there was one. Objects are
    /// replaced when they are written anew.
    ///
    /// # Errors
    /// As for [`Location::begin`].
    pub fn discard(&self, name: &str) -> Result<bool> {
        match &*self.place {
            Place::File(folder) => folder.discard(name),
            Place::S3(_) => Ok(false),
        }
    }

    /// Announces something to those who ask [`Location::announced`], if this draft has announcements. `text` makes it with
    /// its number, from 1. It becomes a name: letters, digits, full stops, hyphens, commas.
    ///
    /// # Errors
    /// As for [`Location::begin`].
    pub fn announce(&self, text: impl FnOnce(u64) -> String) -> Result<()> {
        let Some(announced) = self.announced else { return Ok(()) };
        self.tell(&text(announced.fetch_add(1, Ordering::Relaxed) + 1))
    }

    /// Announces something that has no number, as [`Draft::announce`].
    ///
    /// # Errors
    /// As for [`Location::begin`].
    pub fn announce_unnumbered(&self, text: impl FnOnce() -> String) -> Result<()> {
        if self.announced.is_some() { self.tell(&text()) } else { Ok(()) }
    }

    fn tell(&self, text: &str) -> Result<()> {
        match &*self.place {
            Place::File(folder) => folder.announce(text),
            Place::S3(objects) => objects.announce(text),
        }
    }

    /// Removes the announcements that are with published files.
    ///
    /// # Errors
    /// As for [`Location::begin`].
    pub fn remove_announcements(&self) -> Result<()> {
        match &*self.place {
            Place::File(folder) => folder.remove_announcements(),
            Place::S3(objects) => objects.remove_announcements(),
        }
    }

    /// Publishes all files at once under the job's name. Objects can be read as soon as each is complete.
    ///
    /// # Errors
    /// As for [`Location::begin`].
    pub fn publish(&self) -> Result<()> {
        match &*self.place {
            Place::File(folder) => folder.publish(),
            Place::S3(_) => Ok(()),
        }
    }
}

impl Output<'_> {
    /// Appends bytes.
    ///
    /// # Errors
    /// 53100 if all files together would exceed the budget; as for [`Location::begin`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if let Some(budget) = &self.budget {
            budget.spend(bytes.len() as u64)?;
        }
        match &mut self.to {
            To::File(file) => file.write(bytes),
            To::S3(object) => object.write(bytes),
        }
    }

    /// Ends the file. From now on it survives a crash of the machine.
    ///
    /// # Errors
    /// As for [`Location::begin`].
    pub fn finish(self) -> Result<()> {
        match self.to {
            To::File(file) => file.finish(),
            To::S3(object) => object.finish(),
        }
    }
}
