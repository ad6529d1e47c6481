//! A byte buffer that appends short strings in blocks of a fixed size.
//!
//! Most strings of a resource have fewer than 16 or 32 bytes. A copy of unknown length would take longer to start than to
//! do. [`Out`] keeps initialised room after its end, so that it can copy 16 bytes and count only the wanted ones.

use crate::error::Limit;

/// How many bytes one copy moves.
pub(crate) const BLOCK: usize = 16;

/// How many bytes more than needed [`Out`] makes room for.
const STEP: usize = 1024;

/// Appends to a vector. It owns the vector meanwhile, which saves following a pointer at every byte.
pub(crate) struct Out {
    /// All bytes are initialised; the written ones end at `at`.
    bytes: Vec<u8>,
    at: usize,
}

impl Out {
    /// Takes `bytes` to append to them; about `expected` bytes will follow. [`Out::finish`] returns the vector.
    pub(crate) fn new(bytes: &mut Vec<u8>, expected: usize) -> Result<Out, Limit> {
        let at = bytes.len();
        bytes.try_reserve(expected + BLOCK)?;
        bytes.resize(at + expected + BLOCK, 0);
        Ok(Out { bytes: std::mem::take(bytes), at })
    }

    /// Returns the vector, which ends after the last written byte.
    pub(crate) fn finish(mut self, bytes: &mut Vec<u8>) {
        self.bytes.truncate(self.at);
        *bytes = self.bytes;
    }

    /// How many bytes the vector has now.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.at
    }

    /// Removes the bytes after `length`.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.at = self.at.min(length);
    }

    /// Makes room for `more` bytes, and a block after them.
    #[inline]
    pub(crate) fn room(&mut self, more: usize) -> Result<(), Limit> {
        if self.bytes.len() - self.at < more + BLOCK { self.grow(more) } else { Ok(()) }
    }

    #[cold]
    fn grow(&mut self, more: usize) -> Result<(), Limit> {
        self.bytes.try_reserve(more + BLOCK)?;
        // More than is asked for, but not all that the vector has: most of that may never be used, and would be filled again
        // and again by those who come later.
        let length = self.bytes.capacity().min(self.at + 2 * (more + BLOCK) + STEP);
        self.bytes.resize(length, 0);
        Ok(())
    }

    /// Writes a few bytes, for which there must be room.
    #[inline]
    pub(crate) fn put<const N: usize>(&mut self, bytes: &[u8; N]) {
        self.bytes[self.at..self.at + N].copy_from_slice(bytes);
        self.at += N;
    }

    /// Writes a block of which only the first `length` bytes count. There must be room for a block.
    #[inline]
    pub(crate) fn put_block(&mut self, block: &[u8; BLOCK], length: usize) {
        self.bytes[self.at..self.at + BLOCK].copy_from_slice(block);
        self.at += length;
    }

    /// Writes a few bytes, then the first `length` bytes of a block, then a few more. There must be room for two blocks.
    #[inline]
    pub(crate) fn put_block_between<const BEFORE: usize, const AFTER: usize>(
        &mut self,
        before: &[u8; BEFORE],
        block: &[u8; BLOCK],
        length: usize,
        after: &[u8; AFTER],
    ) {
        const { assert!(BEFORE + AFTER <= BLOCK) }
        let length = length.min(BLOCK);
        // One check for all of it.
        if let Some(room) = self.bytes[self.at..].first_chunk_mut::<{ 2 * BLOCK }>() {
            room[..BEFORE].copy_from_slice(before);
            room[BEFORE..BEFORE + BLOCK].copy_from_slice(block);
            room[BEFORE + length..BEFORE + length + AFTER].copy_from_slice(after);
        }
        self.at += BEFORE + length + AFTER;
    }

    /// Copies `source[start..start + length]`, for which there must be room.
    #[inline]
    pub(crate) fn copy(&mut self, source: &[u8], start: usize, length: usize) {
        if length <= BLOCK
            && let Some(block) = source.get(start..start + BLOCK)
        {
            self.bytes[self.at..self.at + BLOCK].copy_from_slice(block);
        } else if length <= 2 * BLOCK
            && let Some(blocks) = source.get(start..start + 2 * BLOCK)
        {
            self.bytes[self.at..self.at + 2 * BLOCK].copy_from_slice(blocks);
        } else {
            self.bytes[self.at..self.at + length].copy_from_slice(&source[start..start + length]);
        }
        self.at += length;
    }

    /// Writes zeros, for which there must be room.
    #[inline]
    pub(crate) fn zeros(&mut self, count: usize) {
        self.bytes[self.at..self.at + count].fill(0);
        self.at += count;
    }

    /// Leaves room for [`Out::set_word`] to write later.
    #[inline]
    pub(crate) fn skip(&mut self, count: usize) {
        self.at += count;
    }

    /// Overwrites the word at `at`.
    #[inline]
    pub(crate) fn set_word(&mut self, at: usize, word: u32) {
        self.bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }
}
