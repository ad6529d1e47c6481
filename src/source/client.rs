//! Reads the bytes that a client sends for COPY … FROM STDIN: on the feed's thread as soon as it can, else on the backend's.

use super::opened::{Arriving, Bytes, Piece, Progress, Source};
use fhir_bulk_feed::Blocks;
use fhir_bulk_pg::client::{Arrived, Broken, CopyIn, Stream};
use fhir_bulk_pg::error::{self, Error};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::mem::take;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Their name in messages and rejected lines.
const NAME: &str = "STDIN";
/// The size of a block: less than the 128 kB from which malloc maps each anew.
const BLOCK_BYTES: usize = 64 << 10;

/// COPY's binary format without rows: signature, flags, length of the header's extension, and end. Drivers send it when a
/// program opens a binary COPY and writes nothing.
const NO_ROWS: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\xff\xff";

/// The client's data. The first read asks the client for it.
pub fn source(copy: CopyIn) -> Source {
    let progress = Progress::default();
    let data = Data { from: copy, at_start: true, held: Vec::new(), spare: Vec::new(), progress: progress.clone() };
    Source { name: NAME.to_owned(), bytes: Bytes::Here(Box::new(data)), progress }
}

/// What the data is read from.
trait Take {
    type Error;

    /// See [`CopyIn::take`] and [`Stream::take`].
    fn take(&mut self, out: &mut Vec<u8>, enough: usize) -> Result<Arrived, Self::Error>;
}

impl Take for CopyIn {
    type Error = Error;

    fn take(&mut self, out: &mut Vec<u8>, enough: usize) -> Result<Arrived, Error> {
        CopyIn::take(self, out, enough)
    }
}

impl Take for Stream {
    type Error = Broken;

    fn take(&mut self, out: &mut Vec<u8>, enough: usize) -> Result<Arrived, Broken> {
        Stream::take(self, out, enough)
    }
}

struct Data<T> {
    from: T,
    /// Nothing has been handed over so far.
    at_start: bool,
    /// What has come and may still be [`NO_ROWS`].
    held: Vec<u8>,
    /// The memory of a block that has been read.
    spare: Vec<u8>,
    progress: Progress,
}

impl<T: Take> Data<T> {
    /// The next block, without waiting. An empty block is the end; `None` means that none has come yet.
    fn block(&mut self) -> Result<Option<Vec<u8>>, T::Error> {
        let mut block = if self.held.is_empty() { take(&mut self.spare) } else { take(&mut self.held) };
        block.reserve(BLOCK_BYTES);
        loop {
            let before = block.len();
            let arrived = self.from.take(&mut block, BLOCK_BYTES)?;
            self.progress.advance(block.len() - before);
            let may_be_no_rows = self.at_start && NO_ROWS.starts_with(&block);
            match arrived {
                Arrived::End if may_be_no_rows && block == NO_ROWS => return Ok(Some(Vec::new())),
                Arrived::End => return Ok(Some(block)),
                // The end may have come as well.
                Arrived::Bytes if may_be_no_rows => {}
                Arrived::Bytes => {
                    self.at_start = false;
                    return Ok(Some(block));
                }
                Arrived::Nothing if block.is_empty() => {
                    self.spare = block;
                    return Ok(None);
                }
                Arrived::Nothing => {
                    self.held = block;
                    return Ok(None);
                }
            }
        }
    }
}

impl Arriving for Data<CopyIn> {
    fn next(&mut self) -> error::Result<Option<Piece>> {
        if let Some(block) = self.block()? {
            return Ok(Some(Piece::Block(block)));
        }
        Ok(self.from.rest().map(|from| {
            let (at_start, held, progress) = (self.at_start, take(&mut self.held), self.progress.clone());
            Piece::Rest(Box::new(Data { from, at_start, held, spare: Vec::new(), progress }))
        }))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.from.fd()
    }
}

impl Blocks for Data<Stream> {
    fn next(&mut self, wait: Duration) -> Option<io::Result<Vec<u8>>> {
        let mut next = self.block();
        if matches!(next, Ok(None)) && !wait.is_zero() {
            let time = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
            // An error of the connection is found by the next read.
            let _ = poll(&mut [PollFd::new(self.from.fd(), PollFlags::POLLIN)], time);
            next = self.block();
        }
        next.map_err(io::Error::other).transpose()
    }

    fn reuse(&mut self, mut block: Vec<u8>) {
        block.clear();
        self.spare = block;
    }
}
