//! How rows are staged: as frames of one gzip stream, which is cut into pieces anywhere.
//!
//! A frame has the number of its line and the time of creation (8 bytes each), the lengths of type, id and resource (2, 2 and
//! 4 bytes), then these, the resource as jsonb bytes. A deletion has none.

use crate::settings;
use fhir_bulk_codec::gzip::{self, Compressor};
use fhir_bulk_feed::Row;
use fhir_bulk_pg::error::{Error, Result};
use pgrx::PgSqlErrorCode;
use std::io::{self, Read};

/// When so many compressed bytes are there, they make a piece.
const PIECE_BYTES: usize = 512 << 10;
const HEAD_BYTES: usize = 24;
/// Stands for no time of creation.
const NO_TIME: i64 = i64::MIN;
/// A buffer that a huge resource made larger than this is shrunk to this size.
const KEEP_BYTES: usize = 4 << 20;
const READ_BYTES: usize = 64 << 10;

/// Rows of a file that are compressed and not stored yet.
pub struct Staging {
    compressor: Option<Compressor>,
    frame: Vec<u8>,
    is_empty: bool,
}

impl Staging {
    pub fn new() -> Staging {
        Staging { compressor: Some(Compressor::new(settings::gzip_level())), frame: Vec::new(), is_empty: true }
    }

    /// Adds a row.
    ///
    /// # Errors
    /// Out of memory.
    pub fn push(&mut self, line: u64, row: &Row<'_>) -> Result<()> {
        let Row { resource_type, id, resource, created_at } = row;
        let frame = &mut self.frame;
        frame.clear();
        frame.shrink_to(KEEP_BYTES);
        frame.try_reserve(HEAD_BYTES + resource_type.len() + id.len() + resource.len()).map_err(|_| {
            let message = format!("line {line}: out of memory");
            Error::new(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, message)
                .detail(format!("The resource takes {} bytes.", resource.len()))
        })?;
        // Types have up to 55 bytes, ids up to 64, and jsonb less than 256 MB.
        frame.extend_from_slice(&line.to_le_bytes());
        frame.extend_from_slice(&created_at.unwrap_or(NO_TIME).to_le_bytes());
        frame.extend_from_slice(&(resource_type.len() as u16).to_le_bytes());
        frame.extend_from_slice(&(id.len() as u16).to_le_bytes());
        frame.extend_from_slice(&(resource.len() as u32).to_le_bytes());
        frame.extend_from_slice(resource_type.as_bytes());
        frame.extend_from_slice(id.as_bytes());
        frame.extend_from_slice(resource);
        self.is_empty = false;
        let compressor = self.compressor.as_mut().expect("until the end");
        compressor.write(frame).map_err(|error| failed(&error))
    }

    /// Whether there is a piece.
    pub fn is_full(&mut self) -> bool {
        self.compressor.as_mut().is_some_and(|compressor| compressor.pending().len() >= PIECE_BYTES)
    }

    /// The compressed bytes so far, if they are enough for a piece, or it is the end. Empty for none.
    ///
    /// # Errors
    /// The stream cannot be ended.
    pub fn take(&mut self, at_end: bool) -> Result<Vec<u8>> {
        if at_end {
            let compressor = self.compressor.take().filter(|_| !self.is_empty);
            return compressor.map_or(Ok(Vec::new()), |compressor| compressor.finish().map_err(|error| failed(&error)));
        }
        let is_full = self.is_full();
        let pending = self.compressor.as_mut().filter(|_| is_full).map(Compressor::pending);
        Ok(pending.map(std::mem::take).unwrap_or_default())
    }
}

fn failed(error: &io::Error) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, format!("gzip failed: {error}"))
}

/// Reads staged rows.
pub struct Frames<R: Read> {
    stream: gzip::Reader<R>,
    frame: Vec<u8>,
}

/// A row of a line.
pub struct Frame<'a> {
    pub line: u64,
    pub row: Row<'a>,
}

impl<R: Read> Frames<R> {
    /// Those of pieces, one after the other.
    ///
    /// # Errors
    /// Those of the pieces.
    pub fn new(pieces: R) -> Result<Frames<R>> {
        Ok(Frames { stream: gzip::Reader::new(pieces, READ_BYTES).map_err(|error| broken(&error))?, frame: Vec::new() })
    }

    /// The next one; `None` at the end.
    ///
    /// # Errors
    /// Out of memory; XX001 for bytes that were not staged so.
    pub fn next(&mut self) -> Result<Option<Frame<'_>>> {
        let mut head = [0; HEAD_BYTES];
        if self.stream.read(&mut head[..1]).map_err(|error| broken(&error))? == 0 {
            return Ok(None);
        }
        self.stream.read_exact(&mut head[1..]).map_err(|error| broken(&error))?;
        let number = |at: usize, length: usize| {
            head[at..at + length].iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
        };
        let (line, time) = (number(0, 8), number(8, 8) as i64);
        let [of_type, of_id, of_resource] = [number(16, 2), number(18, 2), number(20, 4)].map(|length| length as usize);
        self.frame.clear();
        self.frame.shrink_to(KEEP_BYTES);
        let start = of_type + of_id;
        self.frame.try_reserve(start + of_resource).map_err(|_| {
            let message = format!("line {line}: out of memory");
            Error::new(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, message)
                .detail(format!("The resource takes {of_resource} bytes."))
        })?;
        self.frame.resize(start + of_resource, 0);
        self.stream.read_exact(&mut self.frame).map_err(|error| broken(&error))?;
        let text = |bytes| str::from_utf8(bytes).map_err(|error| broken(&io::Error::other(error)));
        Ok(Some(Frame {
            line,
            row: Row {
                resource_type: text(&self.frame[..of_type])?,
                id: text(&self.frame[of_type..start])?,
                resource: &self.frame[start..],
                created_at: (time != NO_TIME).then_some(time),
            },
        }))
    }
}

fn broken(error: &io::Error) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, format!("what is kept of a submission cannot be read: {error}"))
}
