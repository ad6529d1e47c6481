//! Chunks: the rows and refusals that lines became, in the order of the lines.

use fhir_bulk_codec::ndjson::Position;
use fhir_bulk_codec::resource::Encoded;
use fhir_bulk_codec::{LineError, Reason};
use std::ops::Range;

/// A chunk is passed on when it has this many bytes or items.
const FULL_BYTES: usize = 1 << 20;
const FULL_ITEMS: usize = 4096;
/// How many bytes of a refused line are kept.
const REFUSED_BYTES: usize = 64 << 10;

/// The results of consecutive lines.
#[derive(Debug, Default)]
pub struct Chunk {
    /// Resources and refused lines.
    bytes: Vec<u8>,
    ids: String,
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

impl Refusal {
    /// Whether the machine is to blame and not the line, so that it must not be passed over.
    pub fn is_lack_of_memory(&self) -> bool {
        matches!(self, Refusal::Bad(LineError { reason: Reason::OutOfMemory, .. }))
    }
}

impl Chunk {
    /// The item at an index, and the position in the stream after its line.
    pub fn get(&self, at: usize) -> Option<(Position, Item<'_>)> {
        let (position, kept) = self.items.get(at)?;
        let item = match kept {
            Kept::Row { resource_type, id, resource, created_at } => Item::Row(Row {
                resource_type: &self.types[*resource_type],
                id: &self.ids[id.clone()],
                resource: &self.bytes[resource.clone()],
                created_at: *created_at,
            }),
            Kept::Refused { why, offset, line } => {
                Item::Refused(Refused { why, offset: *offset, line: &self.bytes[line.clone()] })
            }
        };
        Some((*position, item))
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The position in the stream after the line of the item at an index.
    pub fn position(&self, at: usize) -> Option<Position> {
        self.items.get(at).map(|(position, _)| *position)
    }

    /// Forgets the results, but keeps the memory, unless a huge resource has used more than others will.
    pub(crate) fn clear(&mut self) {
        if self.bytes.capacity() > 2 * FULL_BYTES {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.ids.clear();
        self.types.clear();
        self.items.clear();
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= FULL_BYTES || self.items.len() >= FULL_ITEMS
    }

    /// # Errors
    /// The jsonb would be too large, or there is no memory for it; then nothing is added.
    pub(crate) fn push_row(
        &mut self,
        position: Position,
        resource_type: &str,
        encoded: &Encoded<'_>,
        created_at: Option<i64>,
    ) -> Result<(), LineError> {
        // At first large enough that most chunks need not grow.
        let more = if self.bytes.capacity() == 0 { FULL_BYTES + FULL_BYTES / 4 } else { 4 };
        let no_memory = |_| LineError { reason: Reason::OutOfMemory, offset: 0 };
        self.bytes.try_reserve(more).map_err(no_memory)?;
        self.ids.try_reserve(encoded.id().len()).map_err(no_memory)?;
        let before = self.bytes.len();
        // jsonb must start at a multiple of 4.
        let start = before.next_multiple_of(4);
        self.bytes.resize(start, 0);
        if let Err(error) = encoded.write(&mut self.bytes) {
            self.bytes.truncate(before);
            return Err(error);
        }
        let resource = start..self.bytes.len();
        let before = self.ids.len();
        self.ids.push_str(encoded.id());
        let id = before..self.ids.len();
        let resource_type = self.place_of(resource_type);
        self.items.push((position, Kept::Row { resource_type, id, resource, created_at }));
        Ok(())
    }

    pub(crate) fn push_refused(&mut self, position: Position, refused: Refused<'_>) {
        let start = self.bytes.len();
        let kept = Chunk::kept_of(refused.line);
        // Without memory the refusal is kept, but not the line.
        if self.bytes.try_reserve(kept.len()).is_ok() {
            self.bytes.extend_from_slice(kept);
        }
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
