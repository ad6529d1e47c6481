//! `s3://bucket/key`: reads and lists objects of the S3 service in the settings, with the server's credentials, or of an
//! account that the caller names.

use super::found::Found;
use super::http;
use super::opened::{Source, shown};
use super::pattern::{Pattern, is_ndjson};
use super::reach::Reach;
use crate::settings;
use fhir_bulk_codec::instant;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::session::{self, Waiting};
use fhir_bulk_transfer::{Listed, ObjectName, Origin, Page, Policy, Prefix, Service, TransferError};
use pgrx::PgSqlErrorCode;

/// Opens an object. With the server's credentials `fhir_bulk.allowed_sources` must allow it by its bucket and key; the service
/// itself needs no entry there, because a superuser has set it. With the caller's, it must allow the service as any other
/// server.
///
/// # Errors
/// The errors of [`http::open`].
pub fn open(url: &str, reach: &Reach) -> Result<Source> {
    let name = shown(url);
    let failed = |error| http::failure(&name, &error);
    let object = ObjectName::parse(url).map_err(failed)?;
    let (service, policy) = allowed(&name, object, reach)?;
    let object = service.object(object).map_err(failed)?;
    http::start(name, Origin::Object(object), policy, reach.retries)
}

/// The URL of the service that `s3://` means.
pub fn service_of(reach: &Reach) -> String {
    reach.account.as_ref().map_or_else(settings::s3::address, |account| account.address.clone()).endpoint().to_owned()
}

/// The service of an object, or of a prefix, and where requests for it may go.
fn allowed(name: &str, object: ObjectName<'_>, reach: &Reach) -> Result<(Service, Policy)> {
    let policy = settings::allowed_sources()?;
    if let Some(account) = &reach.account {
        return Ok((account.service()?, policy));
    }
    if !policy.allows_object(object) {
        return Err(http::failure(name, &TransferError::Refused(format!("{name} is not among the allowed sources"))));
    }
    let service = settings::s3::address().service()?;
    let bucket = service.object(object).map_err(|error| http::failure(name, &error))?;
    Ok((service, policy.and_below(bucket.bucket_url())))
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
    pub fn start(url: &str, root: &str, pattern: Pattern, reach: &Reach) -> Result<Objects> {
        let name = shown(url);
        let failed = |error| http::failure(&name, &error);
        let listed = url.split('*').next().unwrap_or_default();
        let (listed, folder) = (ObjectName::parse_prefix(listed), ObjectName::parse_prefix(root));
        let (listed, folder) = (listed.map_err(failed)?, folder.map_err(failed)?);
        let (service, policy) = allowed(&name, listed, reach)?;
        let (prefix, retries) = (service.prefix(listed).map_err(failed)?, reach.retries);
        let (bucket, folder) = (format!("s3://{}/", folder.bucket), folder.key.to_owned());
        Ok(Objects { name, bucket, folder, pattern, prefix, policy, retries, next: Next::First, passed_over: 0 })
    }

    /// Appends the next objects, a page of the service's at a time; none after the last one.
    ///
    /// # Errors
    /// 08006 if the service does not answer.
    pub fn next(&mut self, found: &mut Vec<Found>) -> Result<()> {
        while found.is_empty() {
            let from = match std::mem::replace(&mut self.next, Next::None) {
                Next::First => None,
                Next::From(from) => Some(from),
                Next::None => return Ok(()),
            };
            let Page { objects, next } = self.page(from)?;
            self.next = next.map_or(Next::None, Next::From);
            for Listed { key, modified } in objects {
                let below = key.strip_prefix(&self.folder).filter(|below| self.pattern.takes_path(below));
                match below {
                    Some(below) if is_ndjson(below.rsplit('/').next().unwrap_or_default().as_bytes()) => {
                        let url = format!("{}{key}", self.bucket);
                        found.push(Found { url, modified: modified.as_deref().and_then(instant::parse) });
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
