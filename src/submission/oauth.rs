//! Where a source's access tokens are got: by the metadata of its authorization server (SMART's, or RFC 8414's), or by its own,
//! which leads there (RFC 9728).

use super::credentials;
use super::key::Submitter;
use crate::source::{self, Terms, here, shown};
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::session;
use fhir_bulk_transfer::{Tokens, join};
use pgrx::PgSqlErrorCode;
use serde::Deserialize;
use std::time::{Duration, Instant};

/// The largest document of metadata.
const MOST_BYTES: u64 = 64 << 10;
/// How long all documents of a request may take: its caller waits.
const MOST_TIME: Duration = Duration::from_secs(10);
/// The most documents that are read for a request.
const MOST_DOCUMENTS: usize = 8;
/// Where an authorization server has its metadata (RFC 8414, 3).
const WELL_KNOWN: &str = "/.well-known/oauth-authorization-server";
const NAME: &str = "oauthMetadataUrl";

/// The members of metadata that count.
#[derive(Deserialize)]
struct Metadata {
    token_endpoint: Option<String>,
    #[serde(default)]
    authorization_servers: Vec<String>,
}

/// Finds the first token endpoint that submissions of the current role have credentials for. Reads metadata only if they have
/// any.
///
/// # Errors
/// 42704 if there are none for the endpoints that the metadata names; 42501 for a URL that may not be read; 22023 for one that
/// cannot be read, or is no metadata; 54000 for too many.
pub fn endpoint(submitter: &Submitter, urls: &[String], terms: &Terms) -> Result<String> {
    urls.iter().try_for_each(|url| terms.check(url))?;
    if !credentials::has_any(submitter) {
        return Err(none(format!("\"{NAME}\" of the request cannot be used: this submitter has no credentials")));
    }
    let end = Instant::now() + MOST_TIME;
    let mut left: Vec<String> = urls.iter().rev().cloned().collect();
    let (mut read, mut named) = (0, Vec::new());
    while let Some(url) = left.pop() {
        read += 1;
        if read > MOST_DOCUMENTS {
            return Err(about(Error::new(
                PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!("it leads to more than {MOST_DOCUMENTS} documents"),
            )));
        }
        let metadata = document(&url, terms, end).map_err(about)?;
        if let Some(endpoint) = metadata.token_endpoint {
            join(&endpoint, "").map_err(|_| about(invalid(&url, "its token_endpoint is not an http or https URL")))?;
            if credentials::tokens(submitter, &endpoint)?.is_some() {
                return Ok(endpoint);
            }
            named.push(endpoint);
        } else {
            let servers = metadata.authorization_servers.iter().rev();
            let servers: Result<Vec<String>> = servers.map(|issuer| well_known(&url, issuer)).collect();
            left.extend(servers.map_err(about)?);
        }
    }
    let named: Vec<String> = named.iter().map(|endpoint| shown(endpoint).chars().take(200).collect()).collect();
    Err(match named.is_empty() {
        true => about(invalid(&urls.join(", "), "it leads to no token_endpoint")),
        false => none(format!(
            "\"{NAME}\" of the request leads to the token endpoint {}, for which this submitter has no credentials",
            named.join(" and ")
        )),
    })
}

/// Tokens of an endpoint that was found so.
///
/// # Errors
/// 42704 if its credentials were removed meanwhile.
pub fn tokens(submitter: &Submitter, endpoint: &str) -> Result<Tokens> {
    let gone = || none(format!("there are no credentials for the token endpoint {} any more", shown(endpoint)));
    credentials::tokens(submitter, endpoint)?.ok_or_else(gone)
}

fn document(url: &str, terms: &Terms, end: Instant) -> Result<Metadata> {
    session::check_for_interrupts();
    let source = source::open_without_redirects(url, terms)?;
    let name = source.name.clone();
    let bytes = here::read_whole(source, MOST_BYTES, end.saturating_duration_since(Instant::now()));
    let bytes = bytes.map_err(|error| {
        source::failure(&name, &error).unwrap_or_else(|| {
            Error::new(PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE, format!("could not read {name}: {error}"))
        })
    })?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(invalid(url, &format!("it has more than {MOST_BYTES} bytes")));
    }
    serde_json::from_slice(&bytes).map_err(|_| invalid(url, "it is not metadata of OAuth"))
}

/// The URL of the metadata of an authorization server that `url` names: its path comes after the well-known one.
fn well_known(url: &str, issuer: &str) -> Result<String> {
    let server = || {
        let issuer = join(issuer, "").ok()?;
        let (scheme, rest) = issuer.split_once("://")?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.trim_end_matches('/');
        let plain = !path.contains(['?', '#']);
        let slash = if path.is_empty() { "" } else { "/" };
        plain.then(|| format!("{scheme}://{host}{WELL_KNOWN}{slash}{path}"))
    };
    server().ok_or_else(|| invalid(url, "one of its authorization_servers is not an http or https URL"))
}

fn invalid(url: &str, why: &str) -> Error {
    Error::invalid_argument(format!("{}: {why}", shown(url)))
}

/// A URL that leads nowhere is a wrong argument: whoever has sent it hears why.
fn about(error: Error) -> Error {
    let error = error.about(&format!("\"{NAME}\" of the request"));
    match error.code() {
        PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE => Error::invalid_argument(error.message()),
        _ => error,
    }
}

fn none(message: String) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, message)
        .detail("They are for a role, a submitter and exactly one token endpoint.")
        .hint("A superuser sets them with bulk_set_source_credential().")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_an_authorization_server_comes_after_the_well_known_one() {
        for (issuer, url) in [
            ("https://as.example", "https://as.example/.well-known/oauth-authorization-server"),
            ("https://as.example/", "https://as.example/.well-known/oauth-authorization-server"),
            ("https://as.example:8443/t/1", "https://as.example:8443/.well-known/oauth-authorization-server/t/1"),
        ] {
            assert_eq!(well_known("https://h/m", issuer).unwrap(), url);
        }
        for other in ["as.example", "ftp://as.example", "https://a:b@as.example", "https://as.example/?x", ""] {
            assert!(well_known("https://h/m", other).is_err(), "{other}");
        }
    }
}
