//! `s3://bucket/key`: reads and lists objects of the S3 service in the settings, with the server's credentials.

use super::http;
use super::opened::{Source, shown};
use super::pattern::{Pattern, is_ndjson};
use crate::settings;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::session::{self, Waiting};
use fhir_bulk_transfer::{ObjectName, Origin, Page, Policy, Prefix, TransferError};
use pgrx::PgSqlErrorCode;

/// Opens an object that `fhir_bulk.allowed_sources` allows by its bucket and key. The service itself needs no entry there: a
/// superuser has set it.
///
/// # Errors
/// The errors of [`http::open`].
pub fn open(url: &str, retries: u32) -> Result<Source> {
    let name = shown(url);
    let failed = |error| http::failure(&name, &error);
    let object = ObjectName::parse(url).map_err(failed)?;
    let policy = allowed(&name, object)?;
    let object = settings::s3::address().service()?.object(object).map_err(failed)?;
    let policy = policy.and_below(object.bucket_url());
    http::start(name, Origin::Object(object), policy, retries)
}

fn allowed(name: &str, object: ObjectName<'_>) -> Result<Policy> {
    let policy = settings::allowed_sources()?;
    if policy.allows_object(object) {
        return Ok(policy);
    }
    Err(http::failure(name, &TransferError::Refused(format!("{name} is not among the allowed sources"))))
}

/// The objects of a bucket that are not listed yet.
pub struct Objects {
    /// The URL, as messages may show it.
    name: String,
    /// `s3://bucket/`.
    bucket: String,
    /// The key of the folder that the pattern is below.
    folder: String,
    pattern: Pattern,
    prefix: Prefix,
    policy: Policy,
    retries: u32,
    next: Next,
    /// How many objects had other names.
    pub passed_over: u64,
}

enum Next {
    First,
    From(String),
    None,
}

impl Objects {
    /// Begins with the keys that start as those of `url` do, up to its first `*`. All of them must be allowed. Sends no
    /// request yet.
    ///
    /// # Errors
    /// 42501 if the setting does not allow all of the prefix; 22023 for a bad URL; the errors of the settings.
    pub fn start(url: &str, root: &str, pattern: Pattern, retries: u32) -> Result<Objects> {
        let name = shown(url);
        let failed = |error| http::failure(&name, &error);
        let listed = url.split('*').next().unwrap_or_default();
        let (listed, folder) = (ObjectName::parse_prefix(listed), ObjectName::parse_prefix(root));
        let (listed, folder) = (listed.map_err(failed)?, folder.map_err(failed)?);
        let policy = allowed(&name, listed)?;
        let prefix = settings::s3::address().service()?.prefix(listed).map_err(failed)?;
        let policy = policy.and_below(prefix.bucket_url());
        let (bucket, folder) = (format!("s3://{}/", folder.bucket), folder.key.to_owned());
        Ok(Objects { name, bucket, folder, pattern, prefix, policy, retries, next: Next::First, passed_over: 0 })
    }

    /// Appends the URLs of the next objects, a page of the service's at a time; none after the last one.
    ///
    /// # Errors
    /// 08006 if the service does not answer.
    pub fn next(&mut self, urls: &mut Vec<String>) -> Result<()> {
        while urls.is_empty() {
            let from = match std::mem::replace(&mut self.next, Next::None) {
                Next::First => None,
                Next::From(from) => Some(from),
                Next::None => return Ok(()),
            };
            let Page { keys, next } = self.page(from)?;
            self.next = next.map_or(Next::None, Next::From);
            for key in keys {
                let below = key.strip_prefix(&self.folder).filter(|below| self.pattern.takes_path(below));
                match below {
                    Some(below) if is_ndjson(below.rsplit('/').next().unwrap_or_default().as_bytes()) => {
                        urls.push(format!("{}{key}", self.bucket));
                    }
                    // An object whose key ends in a slash stands for a folder.
                    Some(below) if !below.is_empty() && !below.ends_with('/') => self.passed_over += 1,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Waits for a page. A cancel takes effect here.
    fn page(&self, from: Option<String>) -> Result<Page> {
        let call = self.prefix.page(from, http::client(self.policy.clone(), self.retries)?);
        let mut call = call.map_err(|error| {
            let message = format!("could not start to list {}: {error}", self.name);
            Error::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES, message)
        })?;
        loop {
            if let Some(page) = call.take() {
                return page.map_err(|error| http::failure(&self.name, &error));
            }
            session::wait(&[Waiting::Readable(call.wake_fd())]);
            session::check_for_interrupts();
        }
    }
}
