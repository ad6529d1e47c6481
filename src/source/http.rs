//! `http://`, `https://`: a thread receives the body and passes it to the feed's thread. Neither calls PostgreSQL; the
//! backend waits on its latch.

use super::opened::{Bytes, Progress, Source, shown};
use crate::settings;
use fhir_bulk_feed as feed;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_transfer::{Client, Download, Event, Headers, Limits, Origin, Policy, Tokens, TransferError, check_name};
use pgrx::PgSqlErrorCode;
use std::io;
use std::time::Duration;

const REDIRECTS: usize = 5;

/// Opens a URL that `fhir_bulk.allowed_sources` allows.
///
/// # Errors
/// 42501 for a URL that the setting does not allow; 08006 when the server does not send the body, not even after `retries`
/// retries; 55000 when the body changes between two attempts; 22023 for a bad URL; the errors of the settings.
pub fn open(url: &str, retries: u32) -> Result<Source> {
    let name = shown(url);
    let origin = Origin::url(url).map_err(|error| failure(&name, &error))?;
    start(name, origin, settings::allowed_sources()?, retries)
}

/// What requests for a URL take with them, and how far they may go.
#[derive(Clone, Default)]
pub struct Terms {
    /// Sent to the URL's server.
    pub headers: Headers,
    /// Beginnings of the only URLs that are read, of those that `fhir_bulk.allowed_sources` allows; `None` for all of them.
    pub within: Option<Vec<String>>,
    /// Access tokens that its server wants.
    pub tokens: Option<Tokens>,
    /// How often temporary failures are retried.
    pub retries: u32,
}

impl Terms {
    fn policy(&self) -> Result<Policy> {
        let policy = settings::allowed_sources()?;
        let Some(prefixes) = &self.within else { return Ok(policy) };
        policy.within(prefixes).map_err(|error| Error::invalid_argument(format!("allowedSources: {error}")))
    }

    /// Checks by its name that a URL may be read. What its name stands for is checked when it is.
    ///
    /// # Errors
    /// 22023 if it is not an http or https URL; 42501 if it is not allowed; the errors of the settings.
    pub fn check(&self, url: &str) -> Result<()> {
        let name = shown(url);
        check_name(url, &self.policy()?).map_err(|error| failure(&name, &error))
    }
}

/// As [`open`], under terms.
///
/// # Errors
/// As for [`open`].
pub fn open_under(url: &str, terms: &Terms) -> Result<Source> {
    let name = shown(url);
    let origin = Origin::url(url).map_err(|error| failure(&name, &error))?;
    let client = client(terms.policy()?, terms.retries)?;
    start_with(name, origin, client.with_headers(terms.headers.clone()).with_tokens(terms.tokens.clone()))
}

/// As [`open_under`], for what only the URL itself may say: a redirect is an error.
///
/// # Errors
/// As for [`open`].
pub fn open_without_redirects(url: &str, terms: &Terms) -> Result<Source> {
    let name = shown(url);
    let origin = Origin::url(url).map_err(|error| failure(&name, &error))?;
    start_with(name, origin, client_with(terms.policy()?, terms.retries, 0)?.with_headers(terms.headers.clone()))
}

/// Starts to download `origin` if `policy` allows it.
pub fn start(name: String, origin: Origin, policy: Policy, retries: u32) -> Result<Source> {
    start_with(name, origin, client(policy, retries)?)
}

fn start_with(name: String, origin: Origin, client: Client) -> Result<Source> {
    let download = Download::start(origin, client).map_err(|error| {
        Error::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES, format!("could not start to read {name}: {error}"))
    })?;
    let progress = Progress::default();
    let body = Body { download, at_end: false, progress: progress.clone() };
    let bytes = Bytes::Anywhere(feed::Source::Blocks(Box::new(body)));
    Ok(Source { name, bytes, progress })
}

/// A client with the limits of the settings.
pub fn client(policy: Policy, retries: u32) -> Result<Client> {
    client_with(policy, retries, REDIRECTS)
}

fn client_with(policy: Policy, retries: u32, redirects: usize) -> Result<Client> {
    let limits = Limits { connect: settings::connect_timeout(), idle: settings::idle_timeout(), redirects, retries };
    Ok(Client::new(policy, limits, settings::authorities()?))
}

/// Makes a PostgreSQL error of a download's error.
pub fn failure(name: &str, error: &TransferError) -> Error {
    let new = |code| Error::new(code, format!("could not read {name}: {error}")).with_reason(error.to_string());
    match error {
        TransferError::BadUrl(_) => new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE),
        TransferError::Refused(why) => {
            Error::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, format!("permission denied to read {name}"))
                .with_reason(format!("permission denied: {why}"))
                .detail(format!("{why}."))
                .hint("A superuser can allow it in fhir_bulk.allowed_sources.")
        }
        TransferError::Status { code, .. } => {
            new(PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE).detail(format!("The server answered with status {code}."))
        }
        TransferError::UnknownAuthority => new(PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE).hint(
            "If the authority is your own, a superuser can name a file with its certificate in fhir_bulk.ca_file.",
        ),
        TransferError::NoToken(_) => new(PgSqlErrorCode::ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION).hint(
            "A superuser sets credentials with bulk_set_source_credential(), and sees them in bulk_source_credentials.",
        ),
        TransferError::Network(_) => new(PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE),
        TransferError::Changed => new(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE)
            .detail("The connection broke, and the source was a different one when it was read again.")
            .hint("Load it again when it no longer changes."),
    }
}

struct Body {
    download: Download,
    at_end: bool,
    progress: Progress,
}

impl feed::Blocks for Body {
    fn next(&mut self, wait: Duration) -> Option<io::Result<Vec<u8>>> {
        while !self.at_end {
            match self.download.wait(wait)? {
                Event::Length(bytes) => self.progress.set_total(bytes),
                Event::Bytes(piece) => {
                    self.progress.advance(piece.len());
                    return Some(Ok(piece));
                }
                Event::End => self.at_end = true,
                Event::Failed(error) => return Some(Err(io::Error::other(error))),
            }
        }
        Some(Ok(Vec::new()))
    }

    fn reuse(&mut self, block: Vec<u8>) {
        self.download.reuse(block);
    }
}
