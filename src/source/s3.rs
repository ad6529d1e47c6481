//! `s3://bucket/key`: reads an object of the S3 service in the settings, with the server's credentials.

use super::http;
use super::opened::{Source, shown};
use crate::settings;
use fhir_bulk_pg::error::Result;
use fhir_bulk_transfer::{ObjectName, Origin, TransferError};

/// Opens an object that `fhir_bulk.allowed_sources` allows by its bucket and key. The service itself needs no entry there: a
/// superuser has set it.
///
/// # Errors
/// The errors of [`http::open`].
pub fn open(url: &str, retries: u32) -> Result<Source> {
    let name = shown(url);
    let failed = |error| http::failure(&name, &error);
    let policy = settings::allowed_sources()?;
    let object = ObjectName::parse(url).map_err(failed)?;
    if !policy.allows_object(object) {
        return Err(failed(TransferError::Refused(format!("{name} is not among the allowed sources"))));
    }
    let object = settings::s3::address().service()?.object(object).map_err(failed)?;
    let policy = policy.and_below(object.bucket_url());
    http::start(name, Origin::Object(object), policy, retries)
}
