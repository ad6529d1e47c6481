//! Lists the sources that a URL means which ends in `/` or holds `*`: files of a folder, objects with a prefix.

use super::file;
use super::found::Found;
use super::opened::shown;
use super::pattern::Pattern;
use super::reach::Reach;
use super::s3::Objects;
use super::scheme::{Scheme, scheme};
use super::walk::Walk;
use fhir_bulk_pg::error::{Error, Result};
use pgrx::PgSqlErrorCode;

/// How many URLs a page has at most, but for what the last page of a service is over it.
const PAGE: usize = 1000;

/// The sources that are not listed yet.
pub struct Listing {
    /// The URL, as messages may show it.
    name: String,
    /// The URL of the folder that is listed.
    root: String,
    of: Of,
}

enum Of {
    Files(Walk),
    Objects(Box<Objects>),
}

impl Listing {
    /// Starts to list, with the rights of the current role; requests are retried as those of a source are. `None` if it is
    /// the URL of one source.
    ///
    /// # Errors
    /// 22023 for a URL that is none, or of a scheme without listings; 42501 if the role may not read the files, or the
    /// objects are not allowed; 58P01 if there is no such folder; the errors of the settings.
    pub fn start(url: &str, reach: &Reach) -> Result<Option<Listing>> {
        let scheme = scheme(url)?;
        if let Scheme::Http = scheme {
            return refuse_http(url).map(|()| None);
        }
        let Some((root, pattern)) = Pattern::of(url) else { return Ok(None) };
        let of = match scheme {
            Scheme::File(_) => Of::Files(Walk::start(root, pattern)?),
            _ => Of::Objects(Box::new(Objects::start(url, root, pattern, reach)?)),
        };
        Ok(Some(Listing { name: shown(url), root: root.to_owned(), of }))
    }

    /// The next sources, in the order of their paths; none after the last one.
    ///
    /// # Errors
    /// 08006 if the service does not answer; 42501 and 58030 for folders that cannot be read.
    pub fn next(&mut self) -> Result<Vec<Found>> {
        match &mut self.of {
            Of::Files(files) => {
                let mut urls = Vec::new();
                files.next(PAGE, &mut urls)?;
                Ok(urls.into_iter().map(|url| Found { url, modified: None }).collect())
            }
            Of::Objects(objects) => {
                let mut found = Vec::new();
                objects.next(&mut found)?;
                Ok(found)
            }
        }
    }

    /// When a source of it was last modified; `None` for a file that is gone.
    pub fn modified(&self, found: &Found) -> Option<i64> {
        match &self.of {
            Of::Files(_) => file::modified(&found.url),
            Of::Objects(_) => found.modified,
        }
    }

    /// The folder that its files must be in when they are opened, if they are files.
    pub fn within(&self) -> Option<&str> {
        matches!(self.of, Of::Files(_)).then_some(self.root.as_str())
    }

    /// The error for a listing without a source.
    pub fn nothing(&self) -> Error {
        let others = match &self.of {
            Of::Files(files) => files.passed_over,
            Of::Objects(objects) => objects.passed_over,
        };
        let message = format!("there is nothing to import at {}", self.name);
        let error = Error::new(PgSqlErrorCode::ERRCODE_UNDEFINED_FILE, message);
        let known = "Sources end in .ndjson or .ndjson.gz, and do not begin with a dot.";
        match others {
            0 => error.hint(known),
            1 => error.detail("There is 1 file with another name.").hint(known),
            _ => error.detail(format!("There are {others} files with other names.")).hint(known),
        }
    }
}

/// HTTP has no listings. A URL with a query may end in anything, and a server may be a source as a whole.
fn refuse_http(url: &str) -> Result<()> {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let below_host = path.splitn(4, '/').nth(3).unwrap_or_default();
    let is_folder = path.len() == url.len() && below_host.ends_with('/');
    if !is_folder && !below_host.contains('*') {
        return Ok(());
    }
    Err(Error::invalid_argument(format!("source \"{}\" cannot be listed", shown(url)))
        .detail("HTTP has no folders: files are listed on the server (file://) and in buckets (s3://).")
        .hint("Name each file. A * in the name of a file is %2A in its URL."))
}
