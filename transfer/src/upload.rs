//! One upload: a thread that makes an object of the pieces it is given.
//!
//! A small object is one request. A larger one goes in parts (S3's multipart upload) as its pieces come, and appears
//! when the last part is there; until then nobody sees it.

use crate::error::{Failure, TransferError};
use crate::request::{Client, Response, Status};
use crate::s3::{self, Object, SIGNED_FOR};
use crate::thread::{Hand, Thread};
use rusty_s3::actions::{
    AbortMultipartUpload, CompleteMultipartUpload, CompleteMultipartUploadResponse, CreateMultipartUpload, PutObject,
    S3Action, UploadPart,
};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;
use ureq::http::Method;
use ureq::http::header::{ETAG, HeaderMap};
use url::Url;

/// The size of a part; all but the last must have 5 MB. S3 takes 10,000 parts.
const PART_BYTES: usize = 8 << 20;
const MAX_PARTS: usize = 10_000;
/// How many pieces wait to be written.
const PIECES: usize = 8;
/// How long dropping an upload waits for its parts to be given up.
const GIVE_UP: Duration = Duration::from_secs(1);

/// What to write next.
#[derive(Debug)]
pub enum Piece {
    /// The next bytes.
    Bytes(Vec<u8>),
    /// That was all.
    End,
}

/// What there is to know of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Parts will be stored under this id. Where neither end nor drop can give them up, as after a crash,
    /// [`Object::give_up`] does.
    Parts(String),
    /// The object is there, whole.
    Done,
    /// There is no object, and no parts. Only when the answer to the last request was lost, there may be one, whole.
    Failed(TransferError),
}

/// An upload on its way. Dropped before it is done, it gives up what it stored.
pub struct Upload {
    /// Gone when the thread is to give up.
    pieces: Option<SyncSender<Piece>>,
    thread: Thread<Stored>,
    client: Client,
}

impl Upload {
    /// Starts to write `object`, with a client of its own.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn start(object: Object, client: Client) -> io::Result<Upload> {
        let (pieces, taken) = sync_channel(PIECES);
        let (of_parts, of_giving_up) = (client.clone(), client.renewed());
        let thread = Thread::start("fhir_bulk write", move |hand: &Hand<Stored>| {
            let mut writer = Writer { object, client: of_parts, upload: None, etags: Vec::new(), part: Vec::new() };
            let last = match writer.run(&taken, hand) {
                Ok(true) => Stored::Done,
                Ok(false) => return writer.give_up(&of_giving_up),
                Err(error) => {
                    writer.give_up(&of_giving_up);
                    Stored::Failed(error)
                }
            };
            // Nobody's pieces are taken any more.
            drop(taken);
            hand.over(last);
        })?;
        Ok(Upload { pieces: Some(pieces), thread, client })
    }

    /// Gives the next piece, which comes back while there is no room for it; once the upload is over, it is dropped
    /// and [`Upload::take`] says why.
    pub fn give(&mut self, piece: Piece) -> Option<Piece> {
        match self.pieces.as_ref()?.try_send(piece) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => None,
            Err(TrySendError::Full(piece)) => Some(piece),
        }
    }

    /// Readable when there may be room, or something to take.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.thread.wake_fd()
    }

    /// What there is to know, without waiting.
    pub fn take(&mut self) -> Option<Stored> {
        let gone = || Stored::Failed(TransferError::Network("the upload ended without a word".into()));
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
struct Writer {
    object: Object,
    client: Client,
    /// The id of the parts' upload, once there is one.
    upload: Option<String>,
    /// Of the parts that are stored.
    etags: Vec<String>,
    part: Vec<u8>,
}

impl Writer {
    /// Whether the object is whole; false when nobody wants it any more.
    fn run(&mut self, pieces: &Receiver<Piece>, hand: &Hand<Stored>) -> Result<bool, TransferError> {
        loop {
            let piece = pieces.recv();
            hand.wake();
            match piece {
                Ok(Piece::Bytes(bytes)) => {
                    self.part.extend_from_slice(&bytes);
                    if self.part.len() >= PART_BYTES && !self.store_part(hand)? {
                        return Ok(false);
                    }
                }
                Ok(Piece::End) if self.upload.is_none() => {
                    let url = PutObject::new(&self.object.bucket, Some(&self.object.credentials), &self.object.key);
                    let sent = self.send(hand, Method::PUT, || url.sign(SIGNED_FOR), &self.part)?;
                    return Ok(sent.is_some());
                }
                Ok(Piece::End) => {
                    return Ok((self.part.is_empty() || self.store_part(hand)?) && self.complete(hand)?);
                }
                Err(_) => return Ok(false),
            }
        }
    }

    fn store_part(&mut self, hand: &Hand<Stored>) -> Result<bool, TransferError> {
        if self.etags.len() == MAX_PARTS {
            return Err(TransferError::Network(format!("an object cannot have more than {MAX_PARTS} parts")));
        }
        let Some(upload) = self.begun(hand)? else { return Ok(false) };
        let Object { bucket, credentials, key } = &self.object;
        let number = u16::try_from(self.etags.len() + 1).unwrap_or(u16::MAX);
        let action = UploadPart::new(bucket, Some(credentials), key, number, &upload);
        let Some((headers, _)) = self.send(hand, Method::PUT, || action.sign(SIGNED_FOR), &self.part)? else {
            return Ok(false);
        };
        let etag = headers.get(ETAG).and_then(|etag| etag.to_str().ok());
        let etag = etag.ok_or_else(|| TransferError::Network("the service stored a part without an ETag".into()))?;
        self.etags.push(etag.to_owned());
        self.part.clear();
        Ok(true)
    }

    /// The id of the parts' upload, which begins with the first of them.
    fn begun(&mut self, hand: &Hand<Stored>) -> Result<Option<String>, TransferError> {
        if self.upload.is_none() {
            let Object { bucket, credentials, key } = &self.object;
            let action = CreateMultipartUpload::new(bucket, Some(credentials), key);
            let Some((_, document)) = self.send(hand, Method::POST, || action.sign(SIGNED_FOR), &[])? else {
                return Ok(None);
            };
            let created = CreateMultipartUpload::parse_response(&document)
                .map_err(|error| TransferError::Network(format!("the service's answer is not S3's: {error}")))?;
            let id = created.upload_id().to_owned();
            self.upload = Some(id.clone());
            if !hand.over(Stored::Parts(id)) {
                return Ok(None);
            }
        }
        Ok(self.upload.clone())
    }

    fn complete(&mut self, hand: &Hand<Stored>) -> Result<bool, TransferError> {
        let Object { bucket, credentials, key } = &self.object;
        let upload = self.upload.as_deref().unwrap_or_default();
        let etags = || self.etags.iter().map(String::as_str);
        let action = || CompleteMultipartUpload::new(bucket, Some(credentials), key, upload, etags());
        let body = action().body();
        let sent = self.send(hand, Method::POST, || action().sign(SIGNED_FOR), body.as_bytes())?;
        let Some((_, document)) = sent else { return Ok(false) };
        // It may say 200 before it knows, and the error then.
        if CompleteMultipartUploadResponse::parse(&document).is_err() {
            let code = s3::code(&document).unwrap_or("no reason given");
            return Err(TransferError::Network(format!("the service did not put the parts together: {code}")));
        }
        self.upload = None;
        Ok(true)
    }

    /// Has the service forget the parts. If that fails nobody is left to tell; its own rules then clean up.
    fn give_up(&self, client: &Client) {
        if let Some(upload) = &self.upload {
            let _ = self.object.forget_parts(client, upload);
        }
    }

    /// What a request is answered with, which is tried again where that may help; `None` when nobody wants it any more.
    fn send(
        &self,
        hand: &Hand<Stored>,
        method: Method,
        url: impl Fn() -> Url,
        body: &[u8],
    ) -> Result<Option<(HeaderMap, String)>, TransferError> {
        self.client.again(
            |time| hand.wait(time),
            || {
                let response = self.client.send(method.clone(), &url(), &[], Some(body))?;
                if response.status() != Status::OK {
                    return Err(s3::failure(response));
                }
                Ok((response.headers().clone(), document(response)?))
            },
        )
    }
}

impl Object {
    /// Has the service forget the parts of an upload; it is well if they are not there.
    pub(crate) fn forget_parts(&self, client: &Client, upload: &str) -> Result<(), Failure> {
        let action = AbortMultipartUpload::new(&self.bucket, Some(&self.credentials), &self.key, upload);
        self.remove(client, &action.sign(SIGNED_FOR))
    }

    pub(crate) fn remove(&self, client: &Client, url: &Url) -> Result<(), Failure> {
        let response = client.send(Method::DELETE, url, &[], None)?;
        match response.status() {
            Status::OK | Status::NO_CONTENT | Status::NOT_FOUND => Ok(()),
            _ => Err(s3::failure(response)),
        }
    }
}

/// A document of the service.
pub(crate) fn document(mut response: Response) -> Result<String, Failure> {
    let read = response.body_mut().read_to_string();
    read.map_err(|error| Failure::of_transport("the connection broke: ", &error))
}
