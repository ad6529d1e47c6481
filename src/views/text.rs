//! Rows of a view as lines of a body.

use super::source::{Pause, Source};
use crate::stream::{Lines, More};
use fhir_bulk_pg::error::Result;
use fhir_bulk_views::rows::RowWriter;

/// The rows of one resource pause when there are so many bytes; those of several ones before.
const MOST_BYTES: usize = 32 << 20;

/// An open source and the format of its rows.
pub struct TextReader {
    source: Source,
    writer: Box<dyn RowWriter>,
    at_start: bool,
}

impl TextReader {
    /// The rows of `source` as `writer` writes them.
    pub fn new(source: Source, writer: Box<dyn RowWriter>) -> TextReader {
        TextReader { source, writer, at_start: true }
    }
}

impl Lines for TextReader {
    fn read(&mut self, out: &mut Vec<u8>, mut pause: impl FnMut(&mut Vec<u8>) -> bool) -> Result<More> {
        let TextReader { source, writer, at_start } = self;
        if std::mem::take(at_start) && writer.start(out) && pause(out) {
            return Ok(More::Yes);
        }
        let more = source.read(&mut |resource, cells| {
            let is_line = writer.row(resource, cells, out);
            Ok(match is_line && pause(out) {
                true if out.len() > MOST_BYTES => Pause::Now,
                true => Pause::Soon,
                false => Pause::No,
            })
        })?;
        if more == More::No && writer.end(out) {
            pause(out);
        }
        Ok(more)
    }
}
