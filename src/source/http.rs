//! `http://`, `https://`: read by a thread that never calls PostgreSQL, while the backend waits on its latch.

use super::Source;
use crate::error::{Error, Result};
use crate::pg::session;
use crate::settings;
use fhir_bulk_fetch::{Download, Event, FetchError, Limits};
use pgrx::PgSqlErrorCode;
use std::io::{self, Read};

const REDIRECTS: usize = 5;

/// Opens a URL that `fhir_bulk.allowed_sources` allows.
///
/// # Errors
/// 42501 for one that it does not; 08006 when the server does not answer with the body; 22023 for a bad URL.
pub fn open(url: &str) -> Result<Source> {
    let limits = Limits { connect: settings::connect_timeout(), idle: settings::idle_timeout(), redirects: REDIRECTS };
    let name = super::shown(url);
    let download = Download::start(url, settings::allowed_sources()?, limits).map_err(|error| {
        Error::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES, format!("could not start to read {name}: {error}"))
    })?;
    Ok(Source { name, bytes: Box::new(Body { download, piece: io::Cursor::new(Vec::new()), at_end: false }) })
}

/// The error of a download, in PostgreSQL's terms.
pub fn failure(name: &str, error: &FetchError) -> Error {
    match error {
        FetchError::BadUrl(why) => Error::invalid_argument(format!("could not read {name}: {why}")),
        FetchError::Refused(why) => {
            Error::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, format!("permission denied to read {name}"))
                .detail(format!("{why}."))
                .hint("A superuser can allow it in fhir_bulk.allowed_sources.")
        }
        FetchError::Status { code, reason } => {
            Error::new(PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE, format!("could not read {name}: {code}: {reason}"))
                .detail(format!("The server answered with status {code}."))
        }
        FetchError::Network(why) => {
            Error::new(PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE, format!("could not read {name}: {why}"))
        }
    }
}

struct Body {
    download: Download,
    piece: io::Cursor<Vec<u8>>,
    at_end: bool,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            session::check_for_interrupts();
            let count = self.piece.read(buffer)?;
            if count > 0 || self.at_end || buffer.is_empty() {
                return Ok(count);
            }
            match self.download.take() {
                Some(Event::Bytes(piece)) => self.piece = io::Cursor::new(piece),
                Some(Event::End) => self.at_end = true,
                Some(Event::Failed(error)) => return Err(io::Error::other(error)),
                None => session::wait_readable(self.download.wake_fd()),
            }
        }
    }
}
