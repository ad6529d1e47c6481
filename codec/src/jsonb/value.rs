//! Values that were read and are not written yet: where their bytes are, and the order of an object's members.

use super::{LENGTH_MASK, TYPE_MASK, kind};
use crate::error::Limit;
use std::cmp::Ordering;
use std::ops::Range;

/// Set in [`Value::at`] if the bytes are in the arena.
const IN_ARENA: u32 = 0x8000_0000;

/// Set in [`Value::at`] of an object that was made for a choice.
const WRAPPED: u32 = 0x8000_0000;

/// The bytes that values point to.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    /// The line itself: strings without escapes stay where they are.
    pub line: &'a [u8],
    /// Converted values: numerics, strings with escapes.
    pub arena: &'a [u8],
}

/// One value. A string or numeric is a range of the line or the arena; a container is a range of the closed entries; other
/// values have only a kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value {
    at: u32,
    /// The kind and the length, as in a JEntry.
    word: u32,
}

impl Value {
    /// A string in the line.
    #[inline]
    pub(crate) fn in_line(range: Range<usize>) -> Result<Value, Limit> {
        Value::ranged(kind::STRING, range, 0)
    }

    /// A string or numeric in the arena.
    #[inline]
    pub(crate) fn in_arena(kind: u32, range: Range<usize>) -> Result<Value, Limit> {
        Value::ranged(kind, range, IN_ARENA)
    }

    #[inline]
    fn ranged(kind: u32, range: Range<usize>, flag: u32) -> Result<Value, Limit> {
        if range.end >= IN_ARENA as usize || range.len() > LENGTH_MASK as usize {
            return Err(Limit::TooLarge);
        }
        Ok(Value { at: range.start as u32 | flag, word: range.len() as u32 | kind })
    }

    /// A value that has only a kind: `true`, `false`, `null`, [`kind::DROPPED`].
    pub(crate) const fn plain(kind: u32) -> Value {
        Value { at: 0, word: kind }
    }

    /// [`kind::OBJECT`] or [`kind::ARRAY`], with `count` closed entries from `first` on. Their number is limited
    /// by [`super::MAX_ENTRIES`], which fits.
    #[inline]
    pub(crate) fn container(kind: u32, first: usize, count: usize) -> Value {
        Value { at: first as u32, word: count as u32 | kind }
    }

    #[inline]
    pub(crate) fn kind(self) -> u32 {
        self.word & TYPE_MASK
    }

    #[inline]
    pub(crate) fn length(self) -> usize {
        (self.word & LENGTH_MASK) as usize
    }

    /// An object with one member, the closed entry at `first`. [`Value::wrapped`] distinguishes it from other objects.
    pub(crate) fn wrap(first: usize) -> Value {
        Value { at: first as u32 | WRAPPED, word: kind::OBJECT | 1 }
    }

    /// The index of the entry of a [`Value::wrap`].
    pub(crate) fn wrapped(self) -> Option<usize> {
        (self.kind() == kind::OBJECT && self.at & WRAPPED != 0).then_some((self.at & !WRAPPED) as usize)
    }

    /// A part of a string.
    pub(crate) fn part(self, range: Range<usize>) -> Value {
        Value { at: self.at + range.start as u32, word: range.len() as u32 | kind::STRING }
    }

    /// A container's closed entries.
    #[inline]
    pub(crate) fn entries(self) -> Range<usize> {
        let first = (self.at & !WRAPPED) as usize;
        first..first + self.length()
    }

    /// A string's or numeric's buffer and the range in it.
    #[inline]
    pub(crate) fn place<'a>(self, source: Source<'a>) -> (&'a [u8], usize) {
        let buffer = if self.at & IN_ARENA != 0 { source.arena } else { source.line };
        (buffer, (self.at & !IN_ARENA) as usize)
    }

    /// A string's or numeric's bytes.
    #[inline]
    pub(crate) fn bytes(self, source: Source<'_>) -> &[u8] {
        let (buffer, start) = self.place(source);
        &buffer[start..start + self.length()]
    }
}

/// A member's name, with its rank, a number that sorts like names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name {
    /// The length in the highest byte, then the first seven bytes; the same for all names of 255 bytes and more,
    /// since among them length counts before bytes.
    rank: u64,
    text: Value,
}

/// How many bytes of a name its rank holds.
pub(crate) const RANKED: usize = 7;

/// The rank of a name, a number by which names are compared first.
pub(crate) fn rank(name: &[u8]) -> u64 {
    rank_at(name, 0, name.len())
}

/// The rank of the `length` bytes at `start`. Bytes after them in `buffer` are read, but do not count.
#[inline]
pub(crate) fn rank_at(buffer: &[u8], start: usize, length: usize) -> u64 {
    if length >= LONG {
        return u64::MAX;
    }
    let first = match buffer.get(start..).and_then(<[u8]>::first_chunk) {
        Some(chunk) => u64::from_be_bytes(*chunk) >> 8,
        None => {
            let mut chunk = [0; 8];
            let short = &buffer[start..start + length.min(RANKED)];
            chunk[1..1 + short.len()].copy_from_slice(short);
            u64::from_be_bytes(chunk)
        }
    };
    let beyond = 8 * RANKED.saturating_sub(length) as u32;
    (length as u64) << 56 | (first >> beyond) << beyond
}

/// Names of this length and more may have the same rank although they differ.
const LONG: usize = 255;

impl Name {
    /// The name of an array's elements, which have none.
    pub(crate) const NONE: Name = Name { rank: 0, text: Value::plain(kind::STRING) };

    /// A name whose text is in the arena.
    pub(crate) fn in_arena(range: Range<usize>, arena: &[u8]) -> Name {
        let rank = rank(&arena[range.clone()]);
        Name { rank, text: Value { at: range.start as u32 | IN_ARENA, word: range.len() as u32 | kind::STRING } }
    }

    /// See [`rank`].
    #[inline]
    pub(crate) fn rank(&self) -> u64 {
        self.rank
    }

    #[inline]
    pub(crate) fn new(text: Value, source: Source<'_>) -> Name {
        let (buffer, start) = text.place(source);
        Name { rank: rank_at(buffer, start, text.length()), text }
    }

    /// jsonb's order of names: by length, then by bytes.
    #[inline]
    fn order(&self, other: &Name, source: Source<'_>) -> Ordering {
        match self.rank.cmp(&other.rank) {
            Ordering::Equal if self.text.length() > RANKED => self.order_of_rest(other, source),
            order => order,
        }
    }

    fn order_of_rest(&self, other: &Name, source: Source<'_>) -> Ordering {
        let by_length = self.text.length().cmp(&other.text.length());
        by_length.then_with(|| self.bytes(source).cmp(other.bytes(source)))
    }

    #[inline]
    pub(crate) fn text(&self) -> Value {
        self.text
    }

    #[inline]
    pub(crate) fn bytes<'a>(&self, source: Source<'a>) -> &'a [u8] {
        self.text.bytes(source)
    }
}

/// A member of an object or an element of an array.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// The member's name; [`Name::NONE`] in an array.
    pub name: Name,
    pub value: Value,
}

/// Up to this many members are sorted by insertion: FHIR's elements come half sorted and are few.
const FEW: usize = 24;

/// Sorts the members from `first` on. Returns whether a name is there twice.
pub(crate) fn sort_members(entries: &mut [Entry], first: usize, source: Source<'_>) -> bool {
    let members = &mut entries[first..];
    let mut repeated = false;
    // Both sorts are stable, so that the last of equal names stays the last.
    if members.len() <= FEW {
        for at in 1..members.len() {
            repeated |= insert(&mut members[..=at], source);
        }
    } else {
        members.sort_by(|a, b| {
            let order = a.name.order(&b.name, source);
            repeated |= order == Ordering::Equal;
            order
        });
    }
    repeated
}

/// Moves the last member to its place among the sorted ones before it. Returns whether its name is there already.
#[inline]
fn insert(members: &mut [Entry], source: Source<'_>) -> bool {
    let Some((member, sorted)) = members.split_last() else { return false };
    let (member, mut to) = (*member, sorted.len());
    while let Some(before) = to.checked_sub(1) {
        let rank = members[before].name.rank;
        if rank < member.name.rank {
            break;
        }
        if rank == member.name.rank {
            match members[before].name.order(&member.name, source) {
                Ordering::Greater => {}
                order => {
                    members[to] = member;
                    return order == Ordering::Equal;
                }
            }
        }
        members[to] = members[before];
        to = before;
    }
    members[to] = member;
    false
}

/// Keeps only the last of sorted members with the same name, as jsonb does.
#[cold]
pub(crate) fn keep_last_of_each_name(entries: &mut Vec<Entry>, first: usize, source: Source<'_>) {
    let mut kept = first;
    for at in first + 1..entries.len() {
        if entries[at].name.order(&entries[kept].name, source) != Ordering::Equal {
            kept += 1;
        }
        entries[kept] = entries[at];
    }
    entries.truncate(kept + 1);
}
