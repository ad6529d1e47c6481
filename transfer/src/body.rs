//! Reads the body of a response, and continues it where the connection broke.
//!
//! If the response had a strong validator (RFC 9110, 8.8), the client requests only the rest, on condition that the body has
//! not changed. Otherwise it reads the whole body again, compares the part that was passed on before by its digest, and
//! skips it.

use crate::error::TransferError;
use crate::failure::Failure;
use crate::origin::{Event, Origin};
use crate::request::{Client, Response, Status};
use fhir_bulk_thread::Hand;
use sha2::{Digest, Sha256};
use std::io::{self, Read as _};
use std::sync::mpsc::Receiver;
use std::time::Duration;
use ureq::http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_RANGE,
    LAST_MODIFIED, RANGE,
};

/// A body is passed on in pieces of at most this many bytes, about as many as a connection has at once.
const PIECE_BYTES: usize = 64 << 10;

/// A body, and how much of it has been passed on.
pub(crate) struct Body {
    origin: Origin,
    handed_over: u64,
    /// The digest of the bytes that were passed on.
    digest: Sha256,
    /// The length of the whole body, if the server told it.
    length: Option<u64>,
    /// The validator for requesting the rest.
    validator: Option<HeaderValue>,
    /// Memory of pieces that are no longer used.
    spare: Receiver<Vec<u8>>,
}

impl Body {
    pub fn new(origin: Origin, spare: Receiver<Vec<u8>>) -> Body {
        Body { origin, handed_over: 0, digest: Sha256::new(), length: None, validator: None, spare }
    }

    /// Requests the rest of the body and passes it on. `Ok` when it is complete, or the receiver wants no more.
    pub fn attempt(&mut self, client: &Client, hand: &Hand<Event>) -> Result<(), Failure> {
        let rest = self.range();
        let response = client.get(&self.origin.request(), &rest)?;
        let asked_for_rest = !rest.is_empty();
        match response.status() {
            Status::OK if self.handed_over == 0 => {
                self.learn(response.headers());
                if let Some(length) = self.length
                    && !hand.over(Event::Length(length))
                {
                    return Ok(());
                }
                self.hand_over(response, 0, client, hand)
            }
            Status::OK if content_length(response.headers()) != self.length => Err(TransferError::Changed.into()),
            Status::OK => self.hand_over(response, self.handed_over, client, hand),
            Status::PARTIAL_CONTENT if asked_for_rest && self.is_rest(response.headers()) => {
                self.hand_over(response, 0, client, hand)
            }
            Status::PARTIAL_CONTENT | Status::RANGE_NOT_SATISFIABLE if asked_for_rest => {
                self.validator = None;
                Err(Failure::passing("the connection broke, and the server did not continue the body"))
            }
            _ => Err(self.origin.failure(response)),
        }
    }

    /// The headers that request the rest.
    fn range(&self) -> Vec<(HeaderName, HeaderValue)> {
        let from = HeaderValue::try_from(format!("bytes={}-", self.handed_over)).ok();
        match (&self.validator, from) {
            (Some(validator), Some(from)) if self.handed_over > 0 => {
                vec![(RANGE, from), (IF_RANGE, validator.clone())]
            }
            _ => Vec::new(),
        }
    }

    fn learn(&mut self, headers: &HeaderMap) {
        self.length = content_length(headers);
        let refuses_ranges = text(headers, ACCEPT_RANGES).is_some_and(|unit| unit.trim() == "none");
        // Without the length, the client could not check that a range is the whole rest.
        self.validator = (!refuses_ranges && self.length.is_some()).then(|| strong_validator(headers)).flatten();
    }

    /// Whether a partial response is exactly the rest: `bytes 100-199/200`.
    fn is_rest(&self, headers: &HeaderMap) -> bool {
        let Some(length) = self.length.filter(|length| *length > self.handed_over) else { return false };
        let expected = format!("bytes {}-{}/{length}", self.handed_over, length - 1);
        text(headers, CONTENT_RANGE).is_some_and(|range| range.trim() == expected)
    }

    /// Passes on the bytes after the first `known` ones, which must be the same as before.
    fn hand_over(
        &mut self,
        response: Response,
        known: u64,
        client: &Client,
        hand: &Hand<Event>,
    ) -> Result<(), Failure> {
        let mut body = response.into_body().into_reader();
        let mut known = Known { left: known, digest: Sha256::new() };
        loop {
            let mut piece = next_piece(&mut body, self.spare.try_recv().unwrap_or_default())?;
            let at_end = piece.is_empty();
            if known.left > 0 {
                if at_end {
                    return Err(TransferError::Changed.into());
                }
                known.strip(&mut piece, &self.digest)?;
                if piece.is_empty() && hand.is_wanted() {
                    continue;
                }
            }
            if at_end || piece.is_empty() {
                return Ok(());
            }
            if client.limits.retries > 0 {
                self.digest.update(&piece);
            }
            self.handed_over += piece.len() as u64;
            if !hand.over(Event::Bytes(piece)) {
                return Ok(());
            }
        }
    }
}

/// The part of a body that is read a second time.
struct Known {
    left: u64,
    digest: Sha256,
}

impl Known {
    /// Removes it from the beginning of a piece. When it is complete, its digest must be `before`.
    fn strip(&mut self, piece: &mut Vec<u8>, before: &Sha256) -> Result<(), TransferError> {
        let count = piece.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.digest.update(&piece[..count]);
        piece.drain(..count);
        self.left -= count as u64;
        if self.left == 0 && self.digest.clone().finalize() != before.clone().finalize() {
            return Err(TransferError::Changed);
        }
        Ok(())
    }
}

/// Reads a piece; empty at the end of the body.
fn next_piece(body: &mut ureq::BodyReader<'_>, mut piece: Vec<u8>) -> Result<Vec<u8>, Failure> {
    piece.resize(PIECE_BYTES, 0);
    loop {
        match body.read(&mut piece) {
            Ok(count) => {
                piece.truncate(count);
                return Ok(piece);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::of_transport("the connection broke: ", &error.into())),
        }
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    text(headers, CONTENT_LENGTH)?.trim().parse().ok()
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// The validator for a condition on a range (RFC 9110, 13.1.5): a strong entity tag or, if there is no entity tag, the time
/// of the last change, if it was at least one second before the response.
fn strong_validator(headers: &HeaderMap) -> Option<HeaderValue> {
    if let Some(tag) = headers.get(ETAG) {
        return tag.as_bytes().starts_with(b"\"").then(|| tag.clone());
    }
    let date = |name| text(headers, name).and_then(|text| httpdate::parse_http_date(text).ok());
    let age = date(DATE)?.duration_since(date(LAST_MODIFIED)?).ok()?;
    (age >= Duration::from_secs(1)).then(|| headers.get(LAST_MODIFIED).cloned()).flatten()
}
