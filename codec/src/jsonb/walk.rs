//! Walks over jsonb bytes: containers, and the values in them, in stored order.
//!
//! Offsets count from the root's header. It is at a multiple of 4, like every inner container, so these offsets also tell
//! where padding ends.

use super::value::{RANKED, rank, rank_at};
use super::{ARRAY, COUNT_MASK, EMPTY_OBJECT, HAS_OFFSET, LENGTH_MASK, OBJECT, SCALAR, TYPE_MASK, kind};
use std::cmp::Ordering;
use std::mem::replace;
use std::slice::Iter;

/// A text within jsonb bytes. Readers may read the bytes after it.
#[derive(Clone, Copy)]
pub struct Slice<'j> {
    pub(crate) bytes: &'j [u8],
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl<'j> Slice<'j> {
    /// A text outside of jsonb bytes.
    pub fn of(bytes: &'j [u8]) -> Slice<'j> {
        Slice { bytes, start: 0, end: bytes.len() }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    /// The text.
    #[inline]
    pub fn as_bytes(&self) -> &'j [u8] {
        &self.bytes[self.start..self.end]
    }

    /// The rank of a name, by which names are found and sorted: names of different ranks have the order of these. Those of up
    /// to seven bytes are equal if their ranks are.
    #[inline]
    pub(crate) fn rank(&self) -> u64 {
        rank_at(self.bytes, self.start, self.len())
    }
}

/// A name that is looked for.
#[derive(Clone, Debug)]
pub struct Name {
    text: Box<str>,
    rank: u64,
}

impl Name {
    /// A member's name as it is stored.
    pub fn new(text: &str) -> Name {
        Name { text: text.into(), rank: rank(text.as_bytes()) }
    }

    /// The order of another name to this one, as jsonb has it: by length, then by bytes.
    #[inline]
    pub fn order(&self, other: Slice<'_>) -> Ordering {
        other.len().cmp(&self.text.len()).then_with(|| match other.rank().cmp(&self.rank) {
            Ordering::Equal if self.text.len() > RANKED => other.as_bytes().cmp(self.text.as_bytes()),
            order => order,
        })
    }
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Null.
    Null,
    /// A string, a number or a boolean.
    Scalar,
    /// An object.
    Object,
    /// An array.
    Array,
}

/// One value inside a container.
#[derive(Clone, Copy)]
pub struct Value<'j> {
    kind: u32,
    /// The item, with the padding before a numeric or container.
    slice: Slice<'j>,
}

impl<'j> Value<'j> {
    /// One of [`kind`].
    #[inline]
    pub(crate) fn kind(&self) -> u32 {
        self.kind
    }

    /// What it is.
    #[inline]
    pub fn shape(&self) -> Shape {
        match self.kind {
            kind::CONTAINER if header_at(self.slice.bytes, self.slice.start.next_multiple_of(4)) & OBJECT != 0 => {
                Shape::Object
            }
            kind::CONTAINER => Shape::Array,
            kind::NULL => Shape::Null,
            _ => Shape::Scalar,
        }
    }

    /// The value as a container; `None` if it is another value.
    #[inline]
    pub fn container(&self) -> Option<Container<'j>> {
        (self.kind == kind::CONTAINER).then(|| Container::at(self.slice.bytes, self.slice.start.next_multiple_of(4)))
    }

    /// A string's text.
    #[inline]
    pub(crate) fn slice(&self) -> Slice<'j> {
        self.slice
    }

    /// How many bytes it has, with the padding before a numeric or container.
    pub(crate) fn size(&self) -> usize {
        self.slice.len()
    }

    /// The value's text, if it is a string.
    #[inline]
    pub fn string(&self) -> Option<&'j [u8]> {
        (self.kind == kind::STRING).then(|| self.slice.as_bytes())
    }

    /// The boolean, if it is one.
    pub fn boolean(&self) -> Option<bool> {
        match self.kind {
            kind::TRUE => Some(true),
            kind::FALSE => Some(false),
            _ => None,
        }
    }

    /// Whether it is null.
    #[inline]
    pub fn is_null(&self) -> bool {
        self.kind == kind::NULL
    }

    /// The number in PostgreSQL's numeric bytes, if it is one.
    pub fn number(&self) -> Option<&'j [u8]> {
        (self.kind == kind::NUMERIC).then(|| self.numeric())
    }

    /// A numeric after its length header, which inside jsonb always has 4 bytes.
    #[inline]
    pub(crate) fn numeric(&self) -> &'j [u8] {
        &self.slice.bytes[self.slice.start.next_multiple_of(4) + 4..self.slice.end]
    }
}

/// A container and the position in it.
#[derive(Clone)]
pub struct Container<'j> {
    bytes: &'j [u8],
    header: u32,
    /// Where the data area starts; offsets count from there.
    data: u32,
    /// The JEntries of the remaining names, and where the next name starts. Only in an object.
    names: Iter<'j, [u8; 4]>,
    name_start: u32,
    /// The JEntries of the remaining values, and where the next value starts.
    values: Iter<'j, [u8; 4]>,
    value_start: u32,
}

impl<'j> Container<'j> {
    /// The root, whose header `bytes` start with.
    pub fn new(bytes: &'j [u8]) -> Container<'j> {
        Container::at(bytes, 0)
    }

    /// An empty object.
    pub fn empty() -> Container<'static> {
        Container::at(EMPTY_OBJECT, 0)
    }

    /// A jsonb has less than 1 GB, so its offsets fit in 32 bits.
    #[inline]
    fn at(bytes: &'j [u8], start: usize) -> Container<'j> {
        let (words, _) = bytes[start..].as_chunks();
        let header = u32::from_le_bytes(words[0]);
        let count = (header & COUNT_MASK) as usize;
        let named = if header & OBJECT != 0 { count } else { 0 };
        let (names, values) = words[1..1 + named + count].split_at(named);
        let data = (start + 4 * (1 + named + count)) as u32;
        let value_start = data + names_length(names);
        Container { bytes, header, data, names: names.iter(), name_start: data, values: values.iter(), value_start }
    }

    /// Whether it is an object; otherwise it is an array.
    #[inline]
    pub fn is_object(&self) -> bool {
        self.header & OBJECT != 0
    }

    /// A bare string, number, boolean or null, which jsonb keeps as an array of one.
    pub fn is_scalar(&self) -> bool {
        self.header & (SCALAR | ARRAY) == SCALAR | ARRAY
    }

    /// Whether no item has been taken yet.
    #[inline]
    pub(crate) fn is_at_start(&self) -> bool {
        self.values.len() == (self.header & COUNT_MASK) as usize
    }

    /// Whether none of the remaining values is a container.
    #[inline]
    pub(crate) fn is_flat(&self) -> bool {
        let is_container = |entry: &[u8; 4]| u32::from_le_bytes(*entry) & TYPE_MASK == kind::CONTAINER;
        !self.values.as_slice().iter().any(is_container)
    }

    /// The next member of an object.
    #[inline]
    pub fn next_member(&mut self) -> Option<(Slice<'j>, Value<'j>)> {
        let entry = u32::from_le_bytes(*self.names.next()?);
        let start = self.name_start;
        self.name_start = self.end(entry, start);
        let name = Slice { bytes: self.bytes, start: start as usize, end: self.name_start as usize };
        Some((name, self.next_element()?))
    }

    /// The value of the remaining member with this name. Those before it are passed: who looks for several names in jsonb's order
    /// finds them in one walk.
    #[inline]
    pub fn next_named(&mut self, wanted: &Name) -> Option<Value<'j>> {
        while let Some(entry) = self.names.as_slice().first() {
            let start = self.name_start;
            let end = self.end(u32::from_le_bytes(*entry), start);
            let order = wanted.order(Slice { bytes: self.bytes, start: start as usize, end: end as usize });
            if order.is_gt() {
                return None;
            }
            self.names.next();
            self.name_start = end;
            let value = self.next_element();
            if order.is_eq() {
                return value;
            }
        }
        None
    }

    /// The value of the first remaining member with this name.
    #[inline]
    pub fn member(self, wanted: &[u8]) -> Option<Value<'j>> {
        let mut start = self.name_start;
        for (at, entry) in self.names.as_slice().iter().enumerate() {
            let end = self.end(u32::from_le_bytes(*entry), start);
            let range = replace(&mut start, end) as usize..end as usize;
            if range.len() < wanted.len() {
                continue;
            }
            // Names are sorted by length first.
            if range.len() > wanted.len() {
                return None;
            }
            if &self.bytes[range] == wanted {
                return Some(self.value_after(at));
            }
        }
        None
    }

    /// The value after `skipped` of the remaining values, which are not read: their lengths lead to it.
    #[inline]
    fn value_after(&self, skipped: usize) -> Value<'j> {
        let values = self.values.as_slice();
        let (mut start, mut before) = (self.value_start, 0);
        for entry in values[..skipped].iter().rev() {
            let entry = u32::from_le_bytes(*entry);
            before += entry & LENGTH_MASK;
            if entry & HAS_OFFSET != 0 {
                start = self.data;
                break;
            }
        }
        let start = start + before;
        let entry = u32::from_le_bytes(values[skipped]);
        let slice = Slice { bytes: self.bytes, start: start as usize, end: self.end(entry, start) as usize };
        Value { kind: entry & TYPE_MASK, slice }
    }

    /// Whether one of the remaining members has this name.
    #[inline]
    pub(crate) fn has_name(&self, name: &[u8]) -> bool {
        let mut start = self.name_start;
        self.names.clone().any(|entry| {
            let end = self.end(u32::from_le_bytes(*entry), start);
            let range = replace(&mut start, end) as usize..end as usize;
            range.len() == name.len() && &self.bytes[range] == name
        })
    }

    /// The next element of an array.
    #[inline]
    pub fn next_element(&mut self) -> Option<Value<'j>> {
        let entry = u32::from_le_bytes(*self.values.next()?);
        let start = self.value_start;
        self.value_start = self.end(entry, start);
        let slice = Slice { bytes: self.bytes, start: start as usize, end: self.value_start as usize };
        Some(Value { kind: entry & TYPE_MASK, slice })
    }

    /// Where an item ends.
    #[inline]
    fn end(&self, entry: u32, start: u32) -> u32 {
        (entry & LENGTH_MASK) + if entry & HAS_OFFSET != 0 { self.data } else { start }
    }
}

/// The header of a container.
#[inline]
fn header_at(bytes: &[u8], start: usize) -> u32 {
    bytes.get(start..).and_then(<[u8]>::first_chunk).map_or(0, |header| u32::from_le_bytes(*header))
}

/// The size of all names: the last offset in their JEntries, plus the lengths after it.
#[inline]
fn names_length(names: &[[u8; 4]]) -> u32 {
    let mut length = 0;
    for entry in names.iter().rev() {
        let entry = u32::from_le_bytes(*entry);
        length += entry & LENGTH_MASK;
        if entry & HAS_OFFSET != 0 {
            break;
        }
    }
    length
}
