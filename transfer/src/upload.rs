//! Uploads an object on a thread of its own, from pieces that the caller gives.
//!
//! A small object is one request. A larger one is sent in parts (S3's multipart upload) while its pieces come. It becomes
//! visible when all parts are there.

use crate::call::{Asker, Stop};
use crate::error::TransferError;
use crate::folder::Folder;
use crate::request::Client;
use crate::s3::{self, Object, SIGNED_FOR};
use fhir_bulk_thread::{Hand, Thread};
use rusty_s3::actions::{
    AbortMultipartUpload, CompleteMultipartUpload, CompleteMultipartUploadResponse, CreateMultipartUpload, HeadObject,
    PutObject, S3Action, UploadPart,
};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;
use ureq::http::Method;
use ureq::http::header::ETAG;

/// The size of the first parts. All but the last must have 5 MB.
const PART_BYTES: usize = 8 << 20;
/// The most parts that S3 allows. Parts become twice as large after each [`PARTS_OF_A_SIZE`], so that an object may have 2.4
/// TB. The largest parts still fit in memory.
const MAX_PARTS: usize = 10_000;
const PARTS_OF_A_SIZE: usize = 1000;
const DOUBLINGS: usize = 6;
/// How many pieces may wait: with pieces of 256 kB, a whole part, so that the next part is ready when the last one is
/// stored.
const PIECES: usize = 32;
/// How long the Drop of an upload waits until its parts are removed.
const GIVE_UP: Duration = Duration::from_secs(1);

/// The next thing to write.
#[derive(Debug)]
pub enum Piece {
    /// The next bytes.
    Bytes(Vec<u8>),
    /// The end of the object.
    End,
}

/// The result of an upload; see [`Upload::take`].
type Outcome = Result<(), TransferError>;

/// A running upload. If it is dropped before its end, it removes its parts.
pub struct Upload {
    /// `None` when the thread must stop.
    pieces: Option<SyncSender<Piece>>,
    thread: Thread<Outcome>,
    client: Client,
}

impl Folder {
    /// Starts to write an object, with its own client.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn upload(&self, name: &str, client: Client) -> io::Result<Upload> {
        let (pieces, taken) = sync_channel(PIECES);
        let (of_parts, of_giving_up) = (client.clone(), client.renewed());
        let (folder, name) = (self.clone(), name.to_owned());
        let thread = Thread::start("fhir_bulk write", 1, move |hand: Hand<Outcome>| {
            let asker = Asker { client: of_parts, hand: &hand };
            let object = folder.object(&name);
            let mut writer = Writer { asker, folder, name, object, parts: None, part: Vec::new() };
            let outcome = writer.run(&taken);
            if outcome.is_err() {
                writer.give_up(&Asker { client: of_giving_up, hand: &hand });
            }
            // No more pieces are taken.
            drop(taken);
            match outcome {
                Ok(()) => hand.over(Ok(())),
                Err(Stop::Unwanted) => false,
                Err(Stop::Failed(error)) => hand.over(Err(error)),
            };
        })?;
        Ok(Upload { pieces: Some(pieces), thread, client })
    }
}

impl Upload {
    /// Gives the next piece. Returns the piece if there is no room for it. After the upload has ended, the piece is dropped,
    /// and [`Upload::take`] has the reason.
    pub fn give(&mut self, piece: Piece) -> Option<Piece> {
        match self.pieces.as_ref()?.try_send(piece) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => None,
            Err(TrySendError::Full(piece)) => Some(piece),
        }
    }

    /// Becomes readable when there may be room, or a result to take.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.thread.wake_fd()
    }

    /// Returns the result once the upload has ended, without waiting. `Ok` means that the complete object is there.
    ///
    /// # Errors
    /// Why there is no object. Its parts are removed, too; if that fails, [`Folder::clear`] finds them. If only the answer
    /// to the last request was lost, the complete object may exist nevertheless.
    pub fn take(&mut self) -> Option<Result<(), TransferError>> {
        let gone = || Err(TransferError::Network("the upload's thread ended unexpectedly".into()));
        self.thread.take().unwrap_or_else(|_| Some(gone()))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.client.shut_down();
        self.pieces = None;
        self.thread.dismiss(GIVE_UP);
    }
}

/// The thread's side.
struct Writer<'a> {
    asker: Asker<'a, Outcome>,
    folder: Folder,
    name: String,
    object: Object,
    parts: Option<Parts>,
    /// The next part.
    part: Vec<u8>,
}

/// The parts that are stored.
struct Parts {
    upload: String,
    note: Object,
    etags: Vec<String>,
    bytes: u64,
}

impl Writer<'_> {
    fn run(&mut self, pieces: &Receiver<Piece>) -> Result<(), Stop> {
        loop {
            let piece = pieces.recv();
            self.asker.hand.wake();
            match piece {
                Ok(Piece::Bytes(bytes)) => self.add(&bytes)?,
                Ok(Piece::End) => return self.end(),
                Err(_) => return Err(Stop::Unwanted),
            }
        }
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let size = part_bytes(self.parts.as_ref().map_or(0, |parts| parts.etags.len()));
        let missing = size.saturating_sub(self.part.len()).max(bytes.len());
        if self.part.try_reserve_exact(missing).is_err() {
            return Err(TransferError::Network(format!("out of memory for a part of {size} bytes")).into());
        }
        self.part.extend_from_slice(bytes);
        if self.part.len() < size { Ok(()) } else { self.store_part() }
    }

    fn end(&mut self) -> Result<(), Stop> {
        if self.parts.is_none() {
            return self.put(&self.object, &self.part);
        }
        if !self.part.is_empty() {
            self.store_part()?;
        }
        self.complete()
    }

    fn put(&self, object: &Object, body: &[u8]) -> Result<(), Stop> {
        let action = PutObject::new(&object.bucket, Some(&object.credentials), &object.key);
        self.asker.send(Method::PUT, || action.sign(SIGNED_FOR), body).map(|_| ())
    }

    fn store_part(&mut self) -> Result<(), Stop> {
        if self.parts.is_none() {
            self.begin_parts()?;
        }
        let Object { bucket, credentials, key } = &self.object;
        let Some(parts) = &mut self.parts else { return Ok(()) };
        if parts.etags.len() == MAX_PARTS {
            let why = format!("an object cannot have more than {MAX_PARTS} parts");
            return Err(TransferError::Network(why).into());
        }
        let number = u16::try_from(parts.etags.len() + 1).unwrap_or(u16::MAX);
        let action = UploadPart::new(bucket, Some(credentials), key, number, &parts.upload);
        let answer = self.asker.send(Method::PUT, || action.sign(SIGNED_FOR), &self.part)?;
        let etag = answer.headers.get(ETAG).and_then(|etag| etag.to_str().ok());
        let etag = etag.ok_or_else(|| TransferError::Network("the service stored a part without an ETag".into()))?;
        parts.etags.push(etag.to_owned());
        parts.bytes += self.part.len() as u64;
        self.part.clear();
        Ok(())
    }

    /// Begins the multipart upload, and writes the note by which its parts are found if this process dies.
    fn begin_parts(&mut self) -> Result<(), Stop> {
        let Object { bucket, credentials, key } = &self.object;
        let action = CreateMultipartUpload::new(bucket, Some(credentials), key);
        let answer = self.asker.send(Method::POST, || action.sign(SIGNED_FOR), &[])?;
        let created = CreateMultipartUpload::parse_response(&answer.document)
            .map_err(|error| TransferError::Network(format!("the service's answer cannot be read as S3's: {error}")))?;
        let upload = created.upload_id().to_owned();
        let (note, text) = (self.folder.note(&upload), format!("{upload}\n{}", self.name));
        self.parts = Some(Parts { upload, note: note.clone(), etags: Vec::new(), bytes: 0 });
        self.put(&note, text.as_bytes())
    }

    fn complete(&mut self) -> Result<(), Stop> {
        let Some(parts) = &self.parts else { return Ok(()) };
        let Object { bucket, credentials, key } = &self.object;
        let etags = || parts.etags.iter().map(String::as_str);
        let action = || CompleteMultipartUpload::new(bucket, Some(credentials), key, &parts.upload, etags());
        let body = action().body();
        match self.asker.send(Method::POST, || action().sign(SIGNED_FOR), body.as_bytes()) {
            // S3 may send status 200 first, and the error later in the document.
            Ok(answer) if CompleteMultipartUploadResponse::parse(&answer.document).is_err() => {
                let code = s3::code(&answer.document).unwrap_or("no reason given");
                let why = format!("the service could not join the parts: {code}");
                return Err(TransferError::Network(why).into());
            }
            Ok(_) => {}
            // The service no longer knows the upload if an earlier attempt has joined the parts and its answer was lost.
            Err(Stop::Failed(TransferError::Status { code: 400..=499, .. })) if self.is_there(parts.bytes) => {}
            Err(stop) => return Err(stop),
        }
        // A note without an upload does no harm, and is removed with the folder.
        let _ = parts.note.delete(&self.asker);
        self.parts = None;
        Ok(())
    }

    /// Whether there is an object of this length.
    fn is_there(&self, bytes: u64) -> bool {
        let Object { bucket, credentials, key } = &self.object;
        let action = HeadObject::new(bucket, Some(credentials), key);
        matches!(self.asker.length(|| action.sign(SIGNED_FOR)), Ok(Some(length)) if length == bytes)
    }

    /// Removes the parts at the service. If that fails, the note stays.
    fn give_up(&self, asker: &Asker<'_, Outcome>) {
        if let Some(Parts { upload, note, .. }) = &self.parts
            && self.object.forget_parts(asker, upload).is_ok()
        {
            let _ = note.delete(asker);
        }
    }
}

/// The size of the next part, after `before` others.
fn part_bytes(stored: usize) -> usize {
    PART_BYTES << (stored / PARTS_OF_A_SIZE).min(DOUBLINGS)
}

impl Object {
    /// Removes the parts of an upload at the service. It is not an error if there are none.
    pub(crate) fn forget_parts<E: Send + 'static>(&self, asker: &Asker<'_, E>, upload: &str) -> Result<(), Stop> {
        let action = AbortMultipartUpload::new(&self.bucket, Some(&self.credentials), &self.key, upload);
        asker.delete(|| action.sign(SIGNED_FOR))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stay_small_for_small_objects_and_suffice_for_huge_ones() {
        const GB: usize = 1 << 30;
        assert_eq!((0..128).map(part_bytes).sum::<usize>(), GB);
        assert!((0..MAX_PARTS).map(part_bytes).sum::<usize>() > 2400 * GB);
        assert_eq!((0..MAX_PARTS).map(part_bytes).max(), Some(GB / 2));
    }
}
