//! Reads the bytes that a client sends for COPY … FROM STDIN.

use super::opened::{Arriving, Bytes, Progress, Source};
use fhir_bulk_pg::client::{Arrived, CopyIn};
use fhir_bulk_pg::error::Result;
use std::os::fd::BorrowedFd;

/// Their name in messages and rejected lines.
const NAME: &str = "STDIN";
/// The size of a block.
const BLOCK_BYTES: usize = 128 << 10;

/// COPY's binary format without rows: signature, flags, length of the header's extension, and end. Drivers send it when a
/// program opens a binary COPY and writes nothing.
const NO_ROWS: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\xff\xff";

/// The client's data. The first read asks the client for it.
///
/// # Errors
/// 0A000 without a client.
pub fn open() -> Result<Source> {
    let progress = Progress::default();
    let client = Client { copy: CopyIn::new()?, at_start: true, progress: progress.clone() };
    Ok(Source { name: NAME.to_owned(), bytes: Bytes::Here(Box::new(client)), progress })
}

struct Client {
    copy: CopyIn,
    at_start: bool,
    progress: Progress,
}

impl Arriving for Client {
    fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        let arrived = self.copy.take(&mut block, BLOCK_BYTES)?;
        self.progress.advance(block.len());
        if arrived == Arrived::Nothing {
            return Ok(None);
        }
        if std::mem::take(&mut self.at_start) && block == NO_ROWS {
            block.clear();
            return Ok((self.copy.take(&mut block, BLOCK_BYTES)? != Arrived::Nothing).then_some(block));
        }
        Ok(Some(block))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.copy.fd()
    }
}
