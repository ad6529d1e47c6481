//! Writes lines into the files of a draft, one file after the other.

use super::written::Written;
use crate::sink::{Draft, Output};
use crate::store::Reader;
use crate::stream::{Lines, More};
use fhir_bulk_codec::gzip::Compressor;
use fhir_bulk_pg::error::{Error, Result};
use pgrx::PgSqlErrorCode;
use serde::{Deserialize, Serialize};

/// How many bytes of lines are collected before they are written.
pub const BATCH_BYTES: u64 = 256 << 10;
/// A buffer that a huge resource made larger than this is shrunk to this size.
pub const KEEP_BYTES: usize = 4 << 20;

/// How files are written.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// The gzip level, if files are compressed.
    pub gzip: Option<u32>,
    /// A file ends with the line that makes it reach this size.
    pub bytes: u64,
    /// The end of the names of files that are tables; otherwise they have resources.
    pub table: Option<&'static str>,
}

impl Format {
    /// The name of a file.
    pub fn name(&self, stem: &str, number: usize) -> String {
        let gz = if self.gzip.is_some() { ".gz" } else { "" };
        match self.table {
            None => format!("{stem}.{number}.ndjson{gz}"),
            Some(extension) => format!("{stem}.part{number}.{extension}{gz}"),
        }
    }
}

/// The numbers of files: the first, and the step from each to the next.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Numbers {
    pub first: usize,
    pub step: usize,
}

impl Numbers {
    /// 1, 2, 3, …
    pub const ALL: Numbers = Numbers { first: 1, step: 1 };

    /// The number of the file after `before` other files.
    pub fn at(self, before: usize) -> usize {
        self.first + self.step * before
    }
}

/// Writes files `<stem>.<number>.ndjson`, or as the format names them. When one is full, it begins the next.
pub struct Files<'a> {
    draft: &'a Draft<'a>,
    stem: &'a str,
    numbers: Numbers,
    format: Format,
    open: Option<Open<'a>>,
    written: Vec<Written>,
    /// How many of them are announced.
    announced: usize,
}

struct Open<'a> {
    name: String,
    output: Output<'a>,
    compressor: Option<Compressor>,
    count: u64,
    /// Bytes written, compressed if the file is.
    bytes: u64,
}

impl<'a> Files<'a> {
    /// Creates no file before the first line.
    pub fn new(draft: &'a Draft<'a>, stem: &'a str, format: Format) -> Files<'a> {
        Files { draft, stem, numbers: Numbers::ALL, format, open: None, written: Vec::new(), announced: 0 }
    }

    /// Uses these numbers instead of 1, 2, 3, …
    pub fn numbered(self, numbers: Numbers) -> Files<'a> {
        Files { numbers, ..self }
    }

    /// Creates the first file now.
    ///
    /// # Errors
    /// The errors of the sink.
    pub fn begin(&mut self) -> Result<()> {
        self.current().map(|_| ())
    }

    /// Writes all resources of a reader. Calls `progress` with the number of resources in each batch.
    ///
    /// # Errors
    /// The errors of the reader and of the sink.
    pub fn write_all(&mut self, reader: &mut Reader, mut progress: impl FnMut(u64)) -> Result<()> {
        let mut lines = Vec::new();
        loop {
            let (mut count, enough) = (0, self.room().min(BATCH_BYTES));
            let more = reader.read(&mut lines, |out| {
                out.push(b'\n');
                count += 1;
                out.len() as u64 >= enough
            })?;
            self.write(&lines, count)?;
            progress(count);
            lines.clear();
            lines.shrink_to(KEEP_BYTES);
            if more == More::No {
                return Ok(());
            }
        }
    }

    /// Writes whole lines.
    ///
    /// # Errors
    /// The errors of the sink.
    pub fn write(&mut self, lines: &[u8], count: u64) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        if self.room() == 0 {
            self.end_file()?;
        }
        self.append(lines, count)
    }

    /// Writes bytes that belong into the current file, even if it is full.
    ///
    /// # Errors
    /// The errors of the sink.
    pub fn append(&mut self, bytes: &[u8], count: u64) -> Result<()> {
        let open = self.current()?;
        open.count += count;
        open.write(bytes)
    }

    /// Ends the current file.
    ///
    /// # Errors
    /// The errors of the sink.
    pub fn end_file(&mut self) -> Result<()> {
        self.close(None)
    }

    /// Begins the next file if a block of so many bytes, which belong together, does not fit into this one.
    ///
    /// # Errors
    /// The errors of the sink.
    pub fn begin_block(&mut self, bytes: u64) -> Result<()> {
        if bytes > self.room() { self.end_file() } else { Ok(()) }
    }

    /// Ends a file in the middle of a block.
    ///
    /// # Errors
    /// The errors of the sink.
    pub fn continue_in_next(&mut self) -> Result<()> {
        let next = self.format.name(self.stem, self.numbers.at(self.written.len() + 1));
        self.close(Some(next))
    }

    fn current(&mut self) -> Result<&mut Open<'a>> {
        let open = match self.open.take() {
            Some(open) => open,
            None => Open::new(
                self.draft,
                self.format.name(self.stem, self.numbers.at(self.written.len())),
                self.format.gzip,
            )?,
        };
        Ok(self.open.insert(open))
    }

    /// Ends the last file. Returns all files.
    ///
    /// # Errors
    /// The errors of the sink.
    pub fn finish(mut self) -> Result<Vec<Written>> {
        self.close(None)?;
        Ok(self.written)
    }

    /// How many more bytes fit in the current file.
    pub fn room(&self) -> u64 {
        self.format.bytes.saturating_sub(self.open.as_ref().map_or(0, |open| open.bytes))
    }

    fn close(&mut self, continues_in: Option<String>) -> Result<()> {
        if let Some(open) = self.open.take() {
            let goes_on = continues_in.is_some();
            self.written.push(open.finish(continues_in)?);
            // A file that goes on in another one is not announced before that one is final, too.
            while !goes_on && self.announced < self.written.len() {
                self.draft.announce(|number| self.written[self.announced].announcement(number))?;
                self.announced += 1;
            }
        }
        Ok(())
    }
}

impl<'a> Open<'a> {
    fn new(draft: &'a Draft<'a>, name: String, gzip: Option<u32>) -> Result<Open<'a>> {
        let output = draft.create(&name)?;
        Ok(Open { name, output, compressor: gzip.map(Compressor::new), count: 0, bytes: 0 })
    }

    fn write(&mut self, lines: &[u8]) -> Result<()> {
        let Some(compressor) = &mut self.compressor else { return self.put(lines) };
        compressor.write(lines).map_err(|error| compression_failed(&error))?;
        let pending = std::mem::take(compressor.pending());
        self.put(&pending)
    }

    fn finish(mut self, continues_in: Option<String>) -> Result<Written> {
        if let Some(compressor) = self.compressor.take() {
            let end = compressor.finish().map_err(|error| compression_failed(&error))?;
            self.put(&end)?;
        }
        self.output.finish()?;
        Ok(Written { name: self.name, count: self.count, bytes: Some(self.bytes), continues_in })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes += bytes.len() as u64;
        self.output.write(bytes)
    }
}

fn compression_failed(error: &std::io::Error) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, format!("gzip failed: {error}"))
}
