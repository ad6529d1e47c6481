//! Some rows, and the lines that they become.

use fhir_bulk_codec::resource::{Envelope, Writer};
use std::collections::TryReserveError;
use std::ops::Range;

/// A piece is full when it has this many bytes or rows.
pub(crate) const FULL_BYTES: usize = 256 << 10;
const FULL_ROWS: usize = 2048;
/// A buffer that a huge row made larger than this is freed.
const KEEP_BYTES: usize = 4 << 20;
/// What the columns of a row add to its line, about.
const ENVELOPE_BYTES: usize = 512;

/// Consecutive rows, and their lines once they are written.
#[derive(Default)]
pub struct Piece {
    bytes: Vec<u8>,
    rows: Vec<Row>,
    lines: Vec<u8>,
    /// Where each line ends.
    ends: Vec<usize>,
    failed: Option<(usize, Why)>,
    /// How many lines were passed on.
    passed: usize,
}

/// The parts of a row in the piece's bytes.
struct Row {
    id: Range<usize>,
    resource_type: Range<usize>,
    version_id: Option<i64>,
    last_updated: Option<Range<usize>>,
    created_at: Option<Range<usize>>,
    json: Range<usize>,
}

/// A row that could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed<'a> {
    /// Its type.
    pub resource_type: &'a str,
    /// Its id.
    pub id: &'a str,
    /// Why.
    pub why: Why,
}

/// Why a row could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its resource is not an object.
    NotAnObject,
    /// There is no memory for its line.
    OutOfMemory,
}

impl Piece {
    /// Whether it should be given now.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= FULL_BYTES || self.rows.len() >= FULL_ROWS
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a row: its columns, and its resource as jsonb bytes without their length header.
    ///
    /// # Errors
    /// Out of memory; then nothing is added.
    pub fn push(&mut self, envelope: &Envelope<'_>, json: &[u8]) -> Result<(), TryReserveError> {
        let Envelope { id, resource_type, version_id, last_updated, created_at } = *envelope;
        let texts = [Some(id), Some(resource_type), last_updated, created_at];
        let more = json.len() + 4 + texts.iter().flatten().map(|text| text.len()).sum::<usize>();
        self.bytes.try_reserve(if self.bytes.capacity() == 0 {
            more.max(FULL_BYTES + FULL_BYTES / 4)
        } else {
            more
        })?;
        self.rows.try_reserve(1)?;
        // jsonb must start at a multiple of 4.
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let mut add = |bytes: &[u8]| {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(bytes);
            start..self.bytes.len()
        };
        let json = add(json);
        let mut text = |text: &str| add(text.as_bytes());
        let (id, resource_type) = (text(id), text(resource_type));
        let (last_updated, created_at) = (last_updated.map(&mut text), created_at.map(&mut text));
        self.rows.push(Row { id, resource_type, version_id, last_updated, created_at, json });
        Ok(())
    }

    /// Makes the lines of its rows, up to one that fails.
    pub fn write(&mut self, writer: &Writer) {
        let Piece { bytes, rows, lines, ends, failed, .. } = self;
        for (at, row) in rows.iter().enumerate() {
            let envelope = Envelope {
                id: text(bytes, &row.id),
                resource_type: text(bytes, &row.resource_type),
                version_id: row.version_id,
                last_updated: row.last_updated.as_ref().map(|range| text(bytes, range)),
                created_at: row.created_at.as_ref().map(|range| text(bytes, range)),
            };
            let json = &bytes[row.json.clone()];
            // Few lines are longer than that.
            let written = match lines.try_reserve(2 * json.len() + ENVELOPE_BYTES) {
                Ok(()) => writer.write(&envelope, json, lines).map_err(|_| Why::NotAnObject),
                Err(_) => Err(Why::OutOfMemory),
            };
            if let Err(why) = written {
                *failed = Some((at, why));
                break;
            }
            ends.push(lines.len());
        }
    }

    /// The next line that was not passed on yet, without a newline.
    pub fn next_line(&mut self) -> Option<&[u8]> {
        let end = *self.ends.get(self.passed)?;
        let start = if self.passed == 0 { 0 } else { self.ends[self.passed - 1] };
        self.passed += 1;
        Some(&self.lines[start..end])
    }

    /// The row after the last line, if it could not be written.
    pub fn failed(&self) -> Option<Failed<'_>> {
        let (at, why) = self.failed?;
        let row = &self.rows[at];
        Some(Failed { resource_type: text(&self.bytes, &row.resource_type), id: text(&self.bytes, &row.id), why })
    }

    /// Empties it, but keeps its memory.
    pub fn clear(&mut self) {
        for buffer in [&mut self.bytes, &mut self.lines] {
            buffer.clear();
            buffer.shrink_to(KEEP_BYTES);
        }
        self.rows.clear();
        self.ends.clear();
        (self.failed, self.passed) = (None, 0);
    }
}

fn text<'b>(bytes: &'b [u8], range: &Range<usize>) -> &'b str {
    // It is valid UTF-8: it was pushed as a str.
    str::from_utf8(&bytes[range.clone()]).unwrap_or_default()
}
