//! `s3://bucket/prefix`: writes objects `prefix/<database>/<job>/<name>` of an S3 service with the server's key. An object
//! appears when it is complete. The status shows a job's objects only after the job has finished.

use super::tries::Tries;
use crate::settings;
use crate::settings::s3::Address;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::session::{self, Waiting};
use fhir_bulk_transfer::{Call, Client, Folder, Limits, ObjectName, Piece, Policy, Service, TransferError, Upload};
use pgrx::PgSqlErrorCode;
use std::time::Duration;

/// How many bytes the upload's thread gets at once.
const PIECE_BYTES: usize = 256 << 10;
/// The prefix of announcements below a job's. Each is the name of an empty object.
const ANNOUNCED: &str = ".announced";
/// How many times a request is retried after a temporary failure, with a longer wait each time.
const RETRIES: u32 = 5;

/// This database's part of the location.
pub struct Prefix {
    service: Service,
    /// Its URL.
    name: String,
}

/// The objects of a job.
pub struct Draft {
    folder: Folder,
    /// The part that their URLs share, without the last slash.
    name: String,
}

/// An object that is being uploaded.
pub struct Output {
    upload: Upload,
    piece: Vec<u8>,
    name: String,
}

impl Prefix {
    /// The part of `owner` below a URL. Sends no request yet.
    ///
    /// # Errors
    /// 22023 for a bad URL or address, 55000 without a key for the service.
    pub fn new(url: &str, owner: &str, address: &Address) -> Result<Prefix> {
        let prefix = Prefix { service: address.service()?, name: format!("{}/{owner}", url.trim_end_matches('/')) };
        let is_good = ObjectName::parse(&prefix.name).and_then(|name| prefix.service.folder(name));
        is_good.map_err(|error| {
            Error::invalid_argument(format!("fhir_bulk.export_location is \"{url}\": {error}"))
                .hint(super::errors::KNOWN)
        })?;
        Ok(prefix)
    }

    /// Begins the objects of a job, and removes those of an earlier attempt.
    pub fn begin(&self, job: &str) -> Result<Draft> {
        let draft = self.draft(job)?;
        let cleared = draft.clear(RETRIES)?;
        cleared.map_err(|error| failed("clear", &draft.name, &error))?;
        Ok(draft)
    }

    pub fn draft(&self, job: &str) -> Result<Draft> {
        let name = format!("{}/{job}", self.name);
        let folder = ObjectName::parse(&name).and_then(|name| self.service.folder(name));
        Ok(Draft { folder: folder.map_err(|error| failed("use", &name, &error))?, name })
    }

    /// Removes the objects of a job. It tries once: the caller does not wait, and tries again later.
    pub fn remove(&self, job: &str) -> Result<()> {
        let draft = self.draft(job)?;
        match draft.clear(0)? {
            Err(error) if error.is_of_s3("NoSuchBucket") => Ok(()),
            cleared => cleared.map_err(|error| failed("clear", &draft.name, &error)),
        }
    }

    pub fn announced(&self, job: &str, tries: Tries) -> Result<Vec<String>> {
        let draft = self.draft(job)?;
        let retries = if tries == Tries::One { 0 } else { RETRIES };
        let call = draft.folder.below(ANNOUNCED).names(draft.client(retries)?);
        draft.wait("list", call)?.map_err(|error| failed("list", &draft.name, &error))
    }

    /// A URL with which an object can be read for the time `valid`, without a key.
    pub fn url(&self, job: &str, name: &str, valid: Duration) -> Result<String> {
        Ok(self.draft(job)?.folder.object(name).presigned_get(valid))
    }

    /// Its name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Draft {
    pub fn create(&self, name: &str) -> Result<Output> {
        let upload = self.folder.upload(name, self.client(RETRIES)?);
        let name = format!("{}/{name}", self.name);
        let upload = upload.map_err(|error| no_thread("write", &name, &error))?;
        Ok(Output { upload, piece: Vec::with_capacity(PIECE_BYTES), name })
    }

    pub fn announce(&self, text: &str) -> Result<()> {
        self.create(&format!("{ANNOUNCED}/{text}"))?.finish()
    }

    pub fn remove_announcements(&self) -> Result<()> {
        let call = self.folder.below(ANNOUNCED).clear(self.client(RETRIES)?);
        self.wait("clear", call)?.map_err(|error| failed("clear", &self.name, &error))
    }

    /// Removes the objects and the parts of unfinished ones. Returns the service's answer.
    fn clear(&self, retries: u32) -> Result<std::result::Result<(), TransferError>> {
        let call = self.folder.clone().clear(self.client(retries)?);
        self.wait("clear", call)
    }

    /// Waits for the service's answer.
    fn wait<T: Send + 'static>(
        &self,
        to: &str,
        call: std::io::Result<Call<T>>,
    ) -> Result<std::result::Result<T, TransferError>> {
        let mut call = call.map_err(|error| no_thread(to, &self.name, &error))?;
        loop {
            if let Some(answer) = call.take() {
                return Ok(answer);
            }
            session::wait(&[Waiting::Readable(call.wake_fd())]);
            session::check_for_interrupts();
        }
    }

    /// A client that may send requests to this service only.
    fn client(&self, retries: u32) -> Result<Client> {
        let limits =
            Limits { connect: settings::connect_timeout(), idle: settings::idle_timeout(), redirects: 0, retries };
        let policy = Policy::default().and_below(self.folder.object("").bucket_url());
        Ok(Client::new(policy, limits, settings::authorities()?))
    }
}

impl Output {
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        session::check_for_interrupts();
        // A long line is split, too: pieces wait in memory.
        for chunk in bytes.chunks(PIECE_BYTES) {
            self.piece.extend_from_slice(chunk);
            if self.piece.len() >= PIECE_BYTES {
                let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES));
                self.give(Piece::Bytes(piece))?;
            }
        }
        Ok(())
    }

    pub fn finish(mut self) -> Result<()> {
        let last = std::mem::take(&mut self.piece);
        self.give(Piece::Bytes(last))?;
        self.give(Piece::End)?;
        loop {
            if let Some(outcome) = self.upload.take() {
                return outcome.map_err(|error| failed("write", &self.name, &error));
            }
            session::wait(&[Waiting::Readable(self.upload.wake_fd())]);
            session::check_for_interrupts();
        }
    }

    /// Gives a piece to the upload's thread, and waits until it has room.
    fn give(&mut self, piece: Piece) -> Result<()> {
        let mut piece = Some(piece);
        loop {
            if let Some(Err(error)) = self.upload.take() {
                return Err(failed("write", &self.name, &error));
            }
            piece = piece.and_then(|piece| self.upload.give(piece));
            if piece.is_none() {
                return Ok(());
            }
            session::wait(&[Waiting::Readable(self.upload.wake_fd())]);
            session::check_for_interrupts();
        }
    }
}

fn failed(to: &str, name: &str, error: &TransferError) -> Error {
    let code = match error {
        TransferError::BadUrl(_) => PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        TransferError::Refused(_) | TransferError::NoToken(_) | TransferError::Status { code: 401 | 403, .. } => {
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE
        }
        TransferError::Status { code: 404, .. } => PgSqlErrorCode::ERRCODE_UNDEFINED_FILE,
        TransferError::Status { code: 300..=499, .. } | TransferError::Changed => PgSqlErrorCode::ERRCODE_IO_ERROR,
        TransferError::Status { .. } | TransferError::UnknownAuthority | TransferError::Network(_) => {
            PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE
        }
    };
    let error_of_name = Error::new(code, format!("could not {to} {name}: {error}"));
    if let TransferError::UnknownAuthority = error {
        return error_of_name.hint(
            "If the authority is your own, a superuser can name a file with its certificate in fhir_bulk.ca_file.",
        );
    }
    error_of_name.hint(
        "Exports are written to fhir_bulk.export_location, at the service of fhir_bulk.s3_endpoint and \
         fhir_bulk.s3_region, with the key of fhir_bulk.s3_access_key_id.",
    )
}

fn no_thread(to: &str, name: &str, error: &std::io::Error) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES, format!("could not start to {to} {name}: {error}"))
}
