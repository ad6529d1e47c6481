//! Chunks: the rows and refusals that lines became, in the order of the lines.

use fhir_bulk_codec::LineError;
use fhir_bulk_codec::ndjson::Position;
use fhir_bulk_codec::resource::Encoded;
use std::ops::Range;

/// A chunk is passed on when it has this many bytes or items.
const FULL_BYTES: usize = 1 << 20;
const FULL_ITEMS: usize = 4096;
/// How many bytes of a refused line are kept.
const REFUSED_BYTES: usize = 64 << 10;

/// The results of consecutive lines.
#[derive(Debug, Default)]
pub struct Chunk {
    bytes: Vec<u8>,
    types: Vec<String>,
    items: Vec<(Position, Kept)>,
}

#[derive(Debug)]
enum Kept {
    Row { resource_type: usize, id: Range<usize>, resource: Range<usize>, created_at: Option<i64> },
    Refused { why: Refusal, offset: u64, line: Range<usize> },
}

/// The result of a line that is not blank.
#[derive(Debug)]
pub enum Item<'a> {
    /// The line can be stored.
    Row(Row<'a>),
    /// The line cannot be stored.
    Refused(Refused<'a>),
}

/// The row of a line.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The type that the line names, or the type of all lines.
    pub resource_type: &'a str,
    /// The id.
    pub id: &'a str,
    /// jsonb bytes, without their length header.
    pub resource: &'a [u8],
    /// The creation time in the line, in microseconds since 2000-01-01T00:00:00Z, if there is one.
    pub created_at: Option<i64>,
}

/// A line that cannot be stored.
#[derive(Clone, Copy, Debug)]
pub struct Refused<'a> {
    /// The reason.
    pub why: &'a Refusal,
    /// Where the line starts in the decompressed stream, in bytes.
    pub offset: u64,
    /// Its first 64 kB.
    pub line: &'a [u8],
}

/// Why a line cannot be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is longer than this many bytes.
    TooLong(usize),
    /// It is not a resource that can be stored.
    Bad(LineError),
    /// It has this type instead of the type of all lines.
    ForeignType(String),
    /// It has no type, and the load has no type for all lines.
    MissingType,
    /// Its type is not a valid name.
    InvalidType(String),
    /// Its creation time is not an instant.
    InvalidCreatedAt(String),
}

impl Chunk {
    /// The item at an index, and the position in the stream after its line.
    pub fn get(&self, at: usize) -> Option<(Position, Item<'_>)> {
        let (position, kept) = self.items.get(at)?;
        let item = match kept {
            Kept::Row { resource_type, id, resource, created_at } => Item::Row(Row {
                resource_type: &self.types[*resource_type],
                // It is valid UTF-8: it was pushed as a str.
                id: str::from_utf8(&self.bytes[id.clone()]).unwrap_or_default(),
                resource: &self.bytes[resource.clone()],
                created_at: *created_at,
            }),
            Kept::Refused { why, offset, line } => {
                Item::Refused(Refused { why, offset: *offset, line: &self.bytes[line.clone()] })
            }
        };
        Some((*position, item))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= FULL_BYTES || self.items.len() >= FULL_ITEMS
    }

    /// # Errors
    /// The jsonb would be too large; then nothing is added.
    pub(crate) fn push_row(
        &mut self,
        position: Position,
        resource_type: &str,
        encoded: &Encoded<'_>,
        created_at: Option<i64>,
    ) -> Result<(), LineError> {
        // Large enough that most chunks need not grow.
        if self.bytes.capacity() == 0 {
            self.bytes.reserve(FULL_BYTES + FULL_BYTES / 4);
        }
        let before = self.bytes.len();
        self.bytes.extend_from_slice(encoded.id().as_bytes());
        let id = before..self.bytes.len();
        // jsonb must start at a multiple of 4.
        let start = id.end.next_multiple_of(4);
        self.bytes.resize(start, 0);
        if let Err(error) = encoded.write(&mut self.bytes) {
            self.bytes.truncate(before);
            return Err(error);
        }
        let resource = start..self.bytes.len();
        let resource_type = self.place_of(resource_type);
        self.items.push((position, Kept::Row { resource_type, id, resource, created_at }));
        Ok(())
    }

    pub(crate) fn push_refused(&mut self, position: Position, refused: Refused<'_>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(Chunk::kept_of(refused.line));
        let line = start..self.bytes.len();
        self.items.push((position, Kept::Refused { why: refused.why.clone(), offset: refused.offset, line }));
    }

    /// The part of a refused line that is kept.
    pub(crate) fn kept_of(line: &[u8]) -> &[u8] {
        &line[..line.len().min(REFUSED_BYTES)]
    }

    /// The index of a type in the list. Usually it is the type of the line before.
    fn place_of(&mut self, resource_type: &str) -> usize {
        let last = self.items.iter().rev().find_map(|(_, kept)| match kept {
            Kept::Row { resource_type, .. } => Some(*resource_type),
            Kept::Refused { .. } => None,
        });
        match last.filter(|at| self.types[*at] == resource_type) {
            Some(at) => at,
            None => self.types.iter().position(|known| known == resource_type).unwrap_or_else(|| {
                self.types.push(resource_type.to_owned());
                self.types.len() - 1
            }),
        }
    }
}
