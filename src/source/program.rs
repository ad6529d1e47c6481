//! Reads the output of a program on the server.

use super::opened::{Arriving, Bytes, Piece, Progress, Source};
use crate::program::Program;
use fhir_bulk_pg::error::Result;
use std::os::fd::BorrowedFd;

/// How many bytes are read at a time: as many as a pipe holds.
const BLOCK_BYTES: usize = 64 << 10;

/// Starts a command with the server's shell. The caller has checked the rights.
///
/// # Errors
/// 58000 if it cannot be started.
pub fn open(command: &str) -> Result<Source> {
    let progress = Progress::default();
    let output = Output { program: Program::to_read(command)?, progress: progress.clone() };
    Ok(Source { name: format!("PROGRAM {command}"), bytes: Bytes::Here(Box::new(output)), progress })
}

struct Output {
    program: Program,
    progress: Progress,
}

impl Arriving for Output {
    fn next(&mut self) -> Result<Option<Piece>> {
        let mut block = vec![0; BLOCK_BYTES];
        let Some(count) = self.program.read(&mut block)? else { return Ok(None) };
        if count == 0 {
            self.program.end()?;
        }
        block.truncate(count);
        self.progress.advance(count);
        Ok(Some(Piece::Block(block)))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.program.fd()
    }
}
