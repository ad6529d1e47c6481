//! Lines into the files of a draft, one after the other.

use crate::sink::{Draft, Output};
use crate::store::Reader;
use crate::stream::{Lines, More};
use fhir_bulk_codec::gzip::Compressor;
use fhir_bulk_pg::error::{Error, Result};
use pgrx::PgSqlErrorCode;
use serde::{Deserialize, Serialize};

/// How many bytes of lines are made before they are written.
const BATCH_BYTES: u64 = 256 << 10;
/// Buffers that a huge resource made larger than this are given back.
const KEEP_BYTES: usize = 4 << 20;

/// A file that is whole.
#[derive(Debug, Serialize, Deserialize)]
pub struct Written {
    pub name: String,
    /// Its lines.
    pub count: u64,
}

/// How files are written.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// The level, if they are compressed.
    pub gzip: Option<u32>,
    /// A file ends with the line that reaches this.
    pub bytes: u64,
}

impl Format {
    /// What a file is called.
    pub fn name(&self, stem: &str, number: usize) -> String {
        format!("{stem}.{number}.ndjson{}", if self.gzip.is_some() { ".gz" } else { "" })
    }
}

/// The numbers of files in their order: the first, and how far each is from the one before.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Numbers {
    pub first: usize,
    pub step: usize,
}

impl Numbers {
    /// 1, 2, 3, …
    pub const ALL: Numbers = Numbers { first: 1, step: 1 };

    /// The number of the file that has `before` files before it.
    pub fn at(self, before: usize) -> usize {
        self.first + self.step * before
    }
}

/// Files `<stem>.<number>.ndjson`, the next one begun when one is full.
pub struct Files<'a> {
    draft: &'a Draft,
    stem: &'a str,
    numbers: Numbers,
    format: Format,
    open: Option<Open>,
    written: Vec<Written>,
}

struct Open {
    name: String,
    output: Output,
    compressor: Option<Compressor>,
    count: u64,
    /// As it is stored.
    bytes: u64,
}

impl<'a> Files<'a> {
    /// Nothing is made before the first line.
    pub fn new(draft: &'a Draft, stem: &'a str, format: Format) -> Files<'a> {
        Files { draft, stem, numbers: Numbers::ALL, format, open: None, written: Vec::new() }
    }

    /// Gives the files these numbers instead of all.
    pub fn numbered(self, numbers: Numbers) -> Files<'a> {
        Files { numbers, ..self }
    }

    /// Makes the first file now.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn begin(&mut self) -> Result<()> {
        self.current().map(|_| ())
    }

    /// Writes all resources of a reader. `progress` learns how many, batch by batch.
    ///
    /// # Errors
    /// Those of the reader and of the sink.
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
    /// Those of the sink.
    pub fn write(&mut self, lines: &[u8], count: u64) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        if self.room() == 0 {
            self.close()?;
        }
        let open = self.current()?;
        open.count += count;
        open.write(lines)
    }

    fn current(&mut self) -> Result<&mut Open> {
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

    /// Ends the last file; what there is.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn finish(mut self) -> Result<Vec<Written>> {
        self.close()?;
        Ok(self.written)
    }

    /// How many more bytes the file takes.
    fn room(&self) -> u64 {
        self.format.bytes.saturating_sub(self.open.as_ref().map_or(0, |open| open.bytes))
    }

    fn close(&mut self) -> Result<()> {
        if let Some(open) = self.open.take() {
            self.written.push(open.finish()?);
        }
        Ok(())
    }
}

impl Open {
    fn new(draft: &Draft, name: String, gzip: Option<u32>) -> Result<Open> {
        let output = draft.create(&name)?;
        Ok(Open { name, output, compressor: gzip.map(Compressor::new), count: 0, bytes: 0 })
    }

    fn write(&mut self, lines: &[u8]) -> Result<()> {
        let Some(compressor) = &mut self.compressor else { return self.put(lines) };
        compressor.write(lines).map_err(|error| compression_failed(&error))?;
        let pending = std::mem::take(compressor.pending());
        self.put(&pending)
    }

    fn finish(mut self) -> Result<Written> {
        if let Some(compressor) = self.compressor.take() {
            let end = compressor.finish().map_err(|error| compression_failed(&error))?;
            self.put(&end)?;
        }
        self.output.finish()?;
        Ok(Written { name: self.name, count: self.count })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes += bytes.len() as u64;
        self.output.write(bytes)
    }
}

fn compression_failed(error: &std::io::Error) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, format!("gzip failed: {error}"))
}
