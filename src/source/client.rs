//! Reads the bytes that a client sends for COPY … FROM STDIN.

use super::opened::{Arriving, Bytes, Progress, Source};
use fhir_bulk_pg::client::{Arrived, CopyIn};
use fhir_bulk_pg::error::Result;
use std::os::fd::BorrowedFd;

/// Their name in messages and rejected lines.
const NAME: &str = "STDIN";
/// The size of a block: less than the 128 kB from which malloc maps each anew.
const BLOCK_BYTES: usize = 64 << 10;

/// COPY's binary format without rows: signature, flags, length of the header's extension, and end. Drivers send it when a
/// program opens a binary COPY and writes nothing.
const NO_ROWS: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\xff\xff";

/// The client's data. The first read asks the client for it.
///
/// # Errors
/// 0A000 without a client.
pub fn open() -> Result<Source> {
    let progress = Progress::default();
    let client = Client { copy: CopyIn::new()?, at_start: true, held: Vec::new(), progress: progress.clone() };
    Ok(Source { name: NAME.to_owned(), bytes: Bytes::Here(Box::new(client)), progress })
}

struct Client {
    copy: CopyIn,
    /// Nothing has been handed over so far.
    at_start: bool,
    /// What has come and may still be [`NO_ROWS`].
    held: Vec<u8>,
    progress: Progress,
}

impl Arriving for Client {
    fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let mut block = std::mem::take(&mut self.held);
        block.reserve(BLOCK_BYTES);
        loop {
            let before = block.len();
            let arrived = self.copy.take(&mut block, BLOCK_BYTES)?;
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
                Arrived::Nothing => {
                    self.held = block;
                    return Ok(None);
                }
            }
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.copy.fd()
    }
}
