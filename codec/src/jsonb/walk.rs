//! A walk over jsonb bytes: containers, and the values in them, in stored order.
//!
//! Places are counted from the root's header. It stands at a multiple of 4, as every container inside does, so
//! the same count tells where padding ends.

use super::{ARRAY, COUNT_MASK, HAS_OFFSET, LENGTH_MASK, OBJECT, SCALAR, TYPE_MASK, kind};

/// A text within jsonb bytes. Readers may look at what follows it.
#[derive(Clone, Copy)]
pub(crate) struct Slice<'j> {
    pub bytes: &'j [u8],
    pub start: usize,
    pub end: usize,
}

impl<'j> Slice<'j> {
    /// A text that lies elsewhere.
    pub(crate) fn of(bytes: &'j [u8]) -> Slice<'j> {
        Slice { bytes, start: 0, end: bytes.len() }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    #[inline]
    pub(crate) fn as_bytes(&self) -> &'j [u8] {
        &self.bytes[self.start..self.end]
    }
}

/// One value inside a container.
#[derive(Clone, Copy)]
pub(crate) struct Value<'j> {
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

    /// The value as a container, if it is one.
    #[inline]
    pub(crate) fn container(&self) -> Option<Container<'j>> {
        (self.kind == kind::CONTAINER).then(|| Container::at(self.slice.bytes, self.slice.start.next_multiple_of(4)))
    }

    /// A string's text.
    #[inline]
    pub(crate) fn slice(&self) -> Slice<'j> {
        self.slice
    }

    /// The value's text, if it is a string.
    pub(crate) fn string(&self) -> Option<&'j [u8]> {
        (self.kind == kind::STRING).then(|| self.slice.as_bytes())
    }

    /// A numeric after its length header, which inside jsonb always has 4 bytes.
    #[inline]
    pub(crate) fn numeric(&self) -> &'j [u8] {
        &self.slice.bytes[self.slice.start.next_multiple_of(4) + 4..self.slice.end]
    }
}

/// A container and the place reached in it.
#[derive(Clone, Copy)]
pub(crate) struct Container<'j> {
    bytes: &'j [u8],
    header: u32,
    index: u32,
    /// The next member's name and its JEntry, in an object.
    name_entry: u32,
    name_start: u32,
    /// The next value and its JEntry.
    value_entry: u32,
    value_start: u32,
    data: u32,
}

impl<'j> Container<'j> {
    /// The root, whose header `bytes` start with.
    pub(crate) fn new(bytes: &'j [u8]) -> Container<'j> {
        Container::at(bytes, 0)
    }

    /// A jsonb has less than 1 GB, so its places fit 32 bits.
    #[inline]
    fn at(bytes: &'j [u8], start: usize) -> Container<'j> {
        let header = word(bytes, start as u32);
        let count = header & COUNT_MASK;
        let name_entry = start as u32 + 4;
        if header & OBJECT == 0 {
            let data = name_entry + count * 4;
            let (value_entry, value_start, name_start) = (name_entry, data, data);
            return Container { bytes, header, index: 0, name_entry, name_start, value_entry, value_start, data };
        }
        let value_entry = name_entry + count * 4;
        let data = value_entry + count * 4;
        let value_start = data + names_length(bytes, name_entry, value_entry);
        Container { bytes, header, index: 0, name_entry, name_start: data, value_entry, value_start, data }
    }

    #[inline]
    pub(crate) fn is_object(&self) -> bool {
        self.header & OBJECT != 0
    }

    /// A bare string, number, boolean or null, which jsonb keeps as an array of one.
    pub(crate) fn is_scalar(&self) -> bool {
        self.header & (SCALAR | ARRAY) == SCALAR | ARRAY
    }

    /// Nothing was taken out of it yet.
    #[inline]
    pub(crate) fn is_at_start(&self) -> bool {
        self.index == 0
    }

    /// The next member of an object.
    #[inline]
    pub(crate) fn next_member(&mut self) -> Option<(Slice<'j>, Value<'j>)> {
        if self.index >= self.header & COUNT_MASK {
            return None;
        }
        let (_, end) = self.item(self.name_entry, self.name_start);
        let name = Slice { bytes: self.bytes, start: self.name_start as usize, end: end as usize };
        self.name_entry += 4;
        self.name_start = end;
        Some((name, self.value()))
    }

    /// The next element of an array.
    #[inline]
    pub(crate) fn next_element(&mut self) -> Option<Value<'j>> {
        if self.index >= self.header & COUNT_MASK { None } else { Some(self.value()) }
    }

    #[inline]
    fn value(&mut self) -> Value<'j> {
        let (kind, end) = self.item(self.value_entry, self.value_start);
        let slice = Slice { bytes: self.bytes, start: self.value_start as usize, end: end as usize };
        self.value_entry += 4;
        self.value_start = end;
        self.index += 1;
        Value { kind, slice }
    }

    /// An item's kind and end.
    #[inline]
    fn item(&self, entry: u32, start: u32) -> (u32, u32) {
        let entry = word(self.bytes, entry);
        let said = entry & LENGTH_MASK;
        (entry & TYPE_MASK, said + if entry & HAS_OFFSET != 0 { self.data } else { start })
    }
}

/// The bytes of all names: the last offset among their JEntries, and the lengths after it.
#[inline]
fn names_length(bytes: &[u8], first: u32, end: u32) -> u32 {
    let mut length = 0;
    for entry in bytes[first as usize..end as usize].rchunks_exact(4) {
        let entry = word(entry, 0);
        length += entry & LENGTH_MASK;
        if entry & HAS_OFFSET != 0 {
            break;
        }
    }
    length
}

#[inline]
fn word(bytes: &[u8], at: u32) -> u32 {
    let at = at as usize;
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
