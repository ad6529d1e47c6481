//! Bytes appended in blocks of a fixed size.
//!
//! Most strings of a resource are shorter than 16 bytes or twice that, where a copy of unknown length costs more
//! to start than to do. [`Out`] keeps initialised room behind its end, so that it may copy 16 bytes where fewer
//! are wanted, and count only those.

use crate::error::Limit;

/// What one copy moves.
pub(crate) const BLOCK: usize = 16;

/// The end of a vector that grows. It owns the vector meanwhile, which spares a pointer to it at every byte.
pub(crate) struct Out {
    /// All initialised; what counts ends at `at`.
    bytes: Vec<u8>,
    at: usize,
}

impl Out {
    /// Takes `bytes` to append to them; about `expected` are to come. [`Out::finish`] gives them back.
    pub(crate) fn new(bytes: &mut Vec<u8>, expected: usize) -> Result<Out, Limit> {
        let at = bytes.len();
        bytes.try_reserve(expected + BLOCK)?;
        bytes.resize(at + expected + BLOCK, 0);
        Ok(Out { bytes: std::mem::take(bytes), at })
    }

    /// Gives the vector back, ending where what was written ends.
    pub(crate) fn finish(mut self, bytes: &mut Vec<u8>) {
        self.bytes.truncate(self.at);
        *bytes = self.bytes;
    }

    /// How long the vector would be now.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.at
    }

    /// Forgets what was written behind `length`.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.at = self.at.min(length);
    }

    /// Room for `more` bytes, and a block behind them.
    #[inline]
    pub(crate) fn room(&mut self, more: usize) -> Result<(), Limit> {
        if self.bytes.len() - self.at < more + BLOCK { self.grow(more) } else { Ok(()) }
    }

    #[cold]
    fn grow(&mut self, more: usize) -> Result<(), Limit> {
        self.bytes.try_reserve(more + BLOCK)?;
        // What the vector has anyway may be used.
        let length = self.bytes.capacity().min((self.at + more + BLOCK).saturating_mul(2));
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

    /// Writes a few bytes, of a block those before `length`, and a few more. There must be room for two blocks.
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
        // One look whether all of it fits.
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

    /// Zeros, for which there must be room.
    #[inline]
    pub(crate) fn zeros(&mut self, count: usize) {
        self.bytes[self.at..self.at + count].fill(0);
        self.at += count;
    }

    /// Leaves room that is to be written later by [`Out::set_word`].
    #[inline]
    pub(crate) fn skip(&mut self, count: usize) {
        self.at += count;
    }

    /// Writes over what stands at `at`.
    #[inline]
    pub(crate) fn set_word(&mut self, at: usize, word: u32) {
        self.bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }
}
