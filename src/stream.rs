//! Returns a body from a set-returning function: one line per row, or one chunk of bytes per row.

use crate::arguments::required;
use crate::settings;
use fhir_bulk_codec::gzip::Compressor;
use fhir_bulk_pg::datum::{Bytea, Text};
use fhir_bulk_pg::error::{Error, Result, or_raise};
use fhir_bulk_pg::whole::reporting;
use pgrx::PgSqlErrorCode;
use pgrx::iter::SetOfIterator;

/// The stream reads up to this many bytes of lines ahead of the rows that return them.
const AHEAD_BYTES: usize = 64 << 10;
/// A buffer that a huge line made larger than this is shrunk to this size.
const KEEP_BYTES: usize = 4 << 20;
const CHUNK_BYTES: std::ops::RangeInclusive<i32> = 1024..=16 << 20;

/// Whether there is more to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// The reader paused.
    Yes,
    /// Everything has been read.
    No,
}

/// A reader that makes the lines of a body.
pub trait Lines {
    /// Appends lines, without newlines, to `out`. Calls `pause` after each line, and stops when it returns true.
    ///
    /// # Errors
    /// The errors of the query that is read.
    fn read(&mut self, out: &mut Vec<u8>, pause: impl FnMut(&mut Vec<u8>) -> bool) -> Result<More>;

    /// Whether it makes lines, which end with a newline in the body. Otherwise it makes the parts of a binary body.
    fn has_lines(&self) -> bool {
        true
    }
}

/// A reader whose rows may be divided among several bodies. Each is whole: with a header and an end of its own.
pub trait Divisible: Lines {
    /// Where its body is divided.
    fn division(&mut self) -> &mut Division;
}

/// Where a body is divided.
#[derive(Default)]
pub struct Division {
    /// How many rows have been read.
    pub rows: u64,
    /// Whether the body ends before the next row.
    is_due: bool,
    /// Where in what was read last another body begins.
    at: Option<usize>,
}

impl Division {
    /// Has the body end before its next row, if there is one, and another begin.
    pub fn ask(&mut self) {
        self.is_due = true;
    }

    /// Where in what was read last another body begins, if one does.
    pub fn take(&mut self) -> Option<usize> {
        self.at.take()
    }

    /// Counts a row that comes now. Returns whether another body begins before it: then the reader writes the end of the last
    /// one, and says by [`Division::begin`] where that is.
    pub fn count(&mut self) -> bool {
        self.rows += 1;
        std::mem::take(&mut self.is_due)
    }

    /// Another body begins here.
    pub fn begin(&mut self, at: usize) {
        self.at = Some(at);
    }
}

fn rows<T: 'static>(mut next: impl FnMut() -> Result<Option<T>> + 'static) -> SetOfIterator<'static, T> {
    SetOfIterator::new(std::iter::from_fn(move || reporting(|| or_raise(next()))))
}

/// Checks the argument `chunk_bytes`.
///
/// # Errors
/// 22023 outside of its bounds, 22004 for NULL.
pub fn chunk_size(bytes: Option<i32>) -> Result<usize> {
    let bytes = required(bytes, "chunk_bytes")?;
    if !CHUNK_BYTES.contains(&bytes) {
        return Err(Error::invalid_argument(format!("chunk_bytes is {bytes}")).hint(format!(
            "It may be {} to {}.",
            CHUNK_BYTES.start(),
            CHUNK_BYTES.end()
        )));
    }
    Ok(bytes.unsigned_abs() as usize)
}

/// A body as rows of one line each. It reads some lines ahead of their rows.
pub struct LineStream<R> {
    reader: R,
    buffer: Vec<u8>,
    /// Where each line ends.
    ends: Vec<usize>,
    next: usize,
    at_end: bool,
}

impl<R: Lines> LineStream<R> {
    /// The lines of `reader`.
    pub fn new(reader: R) -> LineStream<R> {
        LineStream { reader, buffer: Vec::new(), ends: Vec::new(), next: 0, at_end: false }
    }

    /// Returns one line per row.
    pub fn rows(mut self) -> SetOfIterator<'static, Text>
    where
        R: 'static,
    {
        rows(move || Ok(self.line()?.map(Text::new)))
    }

    fn line(&mut self) -> Result<Option<&[u8]>> {
        if self.next == self.ends.len() {
            if self.at_end {
                return Ok(None);
            }
            self.buffer.clear();
            self.buffer.shrink_to(KEEP_BYTES);
            self.ends.clear();
            self.next = 0;
            let ends = &mut self.ends;
            let more = self.reader.read(&mut self.buffer, |out| {
                ends.push(out.len());
                out.len() >= AHEAD_BYTES
            })?;
            self.at_end = more == More::No;
            if self.ends.is_empty() {
                return Ok(None);
            }
        }
        let start = if self.next == 0 { 0 } else { self.ends[self.next - 1] };
        self.next += 1;
        Ok(Some(&self.buffer[start..self.ends[self.next - 1]]))
    }
}

/// A body as chunks of `chunk_bytes`, compressed or not. The last chunk may be shorter.
pub struct ChunkStream<R> {
    reader: R,
    compressor: Option<Compressor>,
    chunk_bytes: usize,
    /// Lines that the compressor has not taken yet.
    lines: Vec<u8>,
    buffer: Vec<u8>,
    /// How many bytes of `buffer` have been returned.
    sent: usize,
    at_end: bool,
}

impl<R: Lines> ChunkStream<R> {
    /// The lines of `reader` as one body, gzipped or not. [`chunk_size`] has checked `chunk_bytes`.
    pub fn new(reader: R, gzip: bool, chunk_bytes: usize) -> ChunkStream<R> {
        let compressor = gzip.then(|| Compressor::new(settings::gzip_level()));
        ChunkStream { reader, compressor, chunk_bytes, lines: Vec::new(), buffer: Vec::new(), sent: 0, at_end: false }
    }

    /// Returns one chunk per row.
    pub fn rows(mut self) -> SetOfIterator<'static, Bytea>
    where
        R: 'static,
    {
        rows(move || Ok(self.chunk()?.map(Bytea::new)))
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// The errors of the query that is read.
    pub fn chunk(&mut self) -> Result<Option<&[u8]>> {
        while !self.at_end && self.buffer.len() - self.sent < self.chunk_bytes {
            self.buffer.drain(..self.sent);
            self.buffer.shrink_to(KEEP_BYTES.max(self.chunk_bytes * 2));
            self.sent = 0;
            self.fill()?;
        }
        let end = self.buffer.len().min(self.sent + self.chunk_bytes);
        let start = std::mem::replace(&mut self.sent, end);
        Ok((start < end).then(|| &self.buffer[start..end]))
    }

    fn fill(&mut self) -> Result<()> {
        let ahead = self.chunk_bytes.max(AHEAD_BYTES);
        let lines = if self.compressor.is_some() { &mut self.lines } else { &mut self.buffer };
        let has_lines = self.reader.has_lines();
        let more = self.reader.read(lines, |out| {
            if has_lines {
                out.push(b'\n');
            }
            out.len() >= ahead
        })?;
        self.at_end = more == More::No;
        let failed = |error: std::io::Error| {
            Error::new(PgSqlErrorCode::ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, format!("gzip failed: {error}"))
        };
        if let Some(compressor) = &mut self.compressor {
            compressor.write(&self.lines).map_err(failed)?;
            self.buffer.append(compressor.pending());
            self.lines.clear();
            self.lines.shrink_to(KEEP_BYTES);
        }
        if self.at_end
            && let Some(compressor) = self.compressor.take()
        {
            self.buffer.append(&mut compressor.finish().map_err(failed)?);
        }
        Ok(())
    }
}
