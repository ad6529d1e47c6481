//! Writes jsonb bytes from a tree of entries: headers, JEntries, names, aligned values, like `convertJsonbValue` in
//! PostgreSQL's `jsonb_util.c`.

use super::out::Out;
use super::value::{Entry, Source, Value};
use super::{ARRAY, HAS_OFFSET, LENGTH_MASK, MAX_BYTES, OBJECT, OFFSET_STRIDE, kind};
use crate::error::Limit;

/// The entries that were read and are to be written.
#[derive(Clone, Copy)]
pub(crate) struct Tree<'a> {
    pub source: Source<'a>,
    /// The entries of all closed containers.
    pub closed: &'a [Entry],
}

impl Tree<'_> {
    /// Appends the object of these members, sorted and distinct. `out` must end at a multiple of 4.
    pub(crate) fn write_object(&self, members: &[Entry], out: &mut Vec<u8>) -> Result<(), Limit> {
        let start = out.len();
        // An estimate that suffices for almost any line: JEntries and padding take about as much as the line's punctuation.
        let expected = self.source.line.len() + self.source.arena.len() + 8 * (self.closed.len() + members.len());
        let mut to = Out::new(out, expected)?;
        let written = self.object(members, &mut to);
        if written.is_err() {
            to.truncate(start);
        }
        to.finish(out);
        written
    }

    /// Recursive for inner containers; the parser's [`super::MAX_DEPTH`] limits the depth.
    fn object(&self, members: &[Entry], out: &mut Out) -> Result<(), Limit> {
        let mut items = Items::start(OBJECT, members.len(), members.len() * 2, out)?;
        for member in members {
            self.copy(member.name.text(), out)?;
            items.end(kind::STRING, out);
        }
        for member in members {
            let kind = self.value(member.value, out)?;
            items.end(kind, out);
        }
        items.finish(out)
    }

    fn array(&self, elements: &[Entry], out: &mut Out) -> Result<(), Limit> {
        let mut items = Items::start(ARRAY, elements.len(), elements.len(), out)?;
        for element in elements {
            let kind = self.value(element.value, out)?;
            items.end(kind, out);
        }
        items.finish(out)
    }

    /// Appends a value; returns its JEntry's kind.
    #[inline]
    fn value(&self, value: Value, out: &mut Out) -> Result<u32, Limit> {
        match value.kind() {
            kind::STRING => self.copy(value, out)?,
            kind::NUMERIC => {
                align(out)?;
                self.copy(value, out)?;
            }
            kind::OBJECT => {
                align(out)?;
                self.object(&self.closed[value.entries()], out)?;
            }
            kind::ARRAY => {
                align(out)?;
                self.array(&self.closed[value.entries()], out)?;
                return Ok(kind::CONTAINER);
            }
            _ => {}
        }
        Ok(value.kind())
    }

    #[inline]
    fn copy(&self, value: Value, out: &mut Out) -> Result<(), Limit> {
        out.room(value.length())?;
        let (buffer, start) = value.place(self.source);
        out.copy(buffer, start, value.length());
        Ok(())
    }
}

/// Writes zeros up to the next multiple of 4. The output starts at such a multiple, and so does every container's data area.
#[inline]
fn align(out: &mut Out) -> Result<(), Limit> {
    out.room(3)?;
    out.zeros(out.len().wrapping_neg() & 3);
    Ok(())
}

/// A container that is being written: its JEntries, and the data after them.
struct Items {
    /// Where the container's header is.
    header_at: usize,
    /// Where its data starts.
    data_at: usize,
    /// Where the next JEntry is, and where its item starts.
    entry_at: usize,
    item_at: usize,
    index: usize,
}

impl Items {
    #[inline]
    fn start(kind: u32, count: usize, entries: usize, out: &mut Out) -> Result<Items, Limit> {
        let header_at = out.len();
        out.room(4 + entries * 4)?;
        out.put(&(count as u32 | kind).to_le_bytes());
        out.skip(entries * 4);
        Ok(Items { header_at, data_at: out.len(), entry_at: header_at + 4, item_at: out.len(), index: 0 })
    }

    /// Ends the item that is being written.
    #[inline]
    fn end(&mut self, kind: u32, out: &mut Out) {
        let end = out.len();
        // A length that is too long is an error when the container ends.
        let said = if self.index.is_multiple_of(OFFSET_STRIDE) {
            (end - self.data_at) as u32 & LENGTH_MASK | HAS_OFFSET
        } else {
            (end - self.item_at) as u32 & LENGTH_MASK
        };
        out.set_word(self.entry_at, said | kind);
        self.entry_at += 4;
        self.item_at = end;
        self.index += 1;
    }

    /// Checks the size as PostgreSQL does, with header and JEntries.
    #[inline]
    fn finish(self, out: &Out) -> Result<(), Limit> {
        if out.len() - self.header_at > MAX_BYTES { Err(Limit::TooLarge) } else { Ok(()) }
    }
}
