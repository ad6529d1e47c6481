//! `bulk_dump` and `bulk_dump_chunks`: a type's live resources as NDJSON.

use crate::arguments::required;
use crate::error::{Error, Result, or_raise};
use crate::pg::datum::{Bytea, Text};
use crate::settings::{self, VersionId};
use crate::store::{More, Reader, ResourceTable, ResourceType, Rows};
use fhir_bulk_codec::gzip::Compressor;
use fhir_bulk_codec::resource::{Form, Writer};
use pgrx::prelude::*;
use pgrx::{PgSqlErrorCode, default, pg_sys};

/// How many bytes of lines are made ahead of the rows that carry them.
const AHEAD_BYTES: usize = 64 << 10;
/// Buffers that a huge resource made larger than this are given back.
const KEEP_BYTES: usize = 4 << 20;
const CHUNK_BYTES: std::ops::RangeInclusive<i32> = 1024..=16 << 20;

/// One resource a row.
#[pg_extern(stable, parallel_unsafe)]
fn bulk_dump(
    resource_type: Option<&str>,
    since: default!(Option<TimestampWithTimeZone>, "NULL"),
    fhir: default!(Option<bool>, "false"),
    fcinfo: pg_sys::FunctionCallInfo,
) -> SetOfIterator<'static, Text> {
    let reader = or_raise(open(resource_type, since, fhir));
    reader.close_with_statement(fcinfo);
    let mut lines = LineStream { reader, buffer: Vec::new(), ends: Vec::new(), next: 0, at_end: false };
    SetOfIterator::new(std::iter::from_fn(move || or_raise(lines.next()).map(Text::new)))
}

/// The NDJSON body in pieces.
#[pg_extern(stable, parallel_unsafe)]
fn bulk_dump_chunks(
    resource_type: Option<&str>,
    since: default!(Option<TimestampWithTimeZone>, "NULL"),
    fhir: default!(Option<bool>, "false"),
    gzip: default!(Option<bool>, "false"),
    chunk_bytes: default!(Option<i32>, "65536"),
    fcinfo: pg_sys::FunctionCallInfo,
) -> SetOfIterator<'static, Bytea> {
    let chunk_bytes = or_raise(chunk_size(chunk_bytes));
    let gzip = or_raise(required(gzip, "gzip"));
    let reader = or_raise(open(resource_type, since, fhir));
    reader.close_with_statement(fcinfo);
    let compressor = gzip.then(|| Compressor::new(settings::gzip_level()));
    let mut chunks =
        ChunkStream { reader, compressor, chunk_bytes, lines: Vec::new(), buffer: Vec::new(), sent: 0, at_end: false };
    SetOfIterator::new(std::iter::from_fn(move || or_raise(chunks.next()).map(Bytea::new)))
}

fn open(resource_type: Option<&str>, since: Option<TimestampWithTimeZone>, fhir: Option<bool>) -> Result<Reader> {
    let name = required(resource_type, "resource_type")?;
    let form = if required(fhir, "fhir")? { Form::Fhir(settings::fhir_version()) } else { Form::Aidbox };
    // A name that can be no type's is one without a table.
    let resource_type = ResourceType::new(name).map_err(|_| crate::store::unknown(name))?;
    let table = ResourceTable::get(&resource_type)?;
    let writer = Writer::new(form, &settings::created_at_url(), settings::version_id() == VersionId::String);
    let rows = since.map_or(Rows::All, |at| Rows::CreatedAfter(at.into()));
    Reader::open(&table, resource_type.canonical(), rows, writer)
}

fn chunk_size(bytes: Option<i32>) -> Result<usize> {
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

/// Lines, made some ahead of their rows.
struct LineStream {
    reader: Reader,
    buffer: Vec<u8>,
    /// Where each line ends.
    ends: Vec<usize>,
    next: usize,
    at_end: bool,
}

impl LineStream {
    fn next(&mut self) -> Result<Option<&[u8]>> {
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

/// Pieces of the body, compressed or not, each of `chunk_bytes` but the last.
struct ChunkStream {
    reader: Reader,
    compressor: Option<Compressor>,
    chunk_bytes: usize,
    /// Lines on their way into the compressor.
    lines: Vec<u8>,
    buffer: Vec<u8>,
    /// How much of `buffer` is gone.
    sent: usize,
    at_end: bool,
}

impl ChunkStream {
    fn next(&mut self) -> Result<Option<&[u8]>> {
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
        let more = self.reader.read(lines, |out| {
            out.push(b'\n');
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
