//! Memory for what expressions compute, kept from one resource to the next.

use bumpalo::Bump;

/// The most bytes that a program may compute between two resets: what needs more is an error of the view.
const MAX_BYTES: usize = 256 << 20;
/// More than this is given back.
const KEEP_BYTES: usize = 1 << 20;

/// Memory that grows as needed, and is emptied at once.
#[derive(Default)]
pub struct Arena(Bump);

impl Arena {
    /// No memory yet.
    pub fn new() -> Arena {
        let bump = Bump::new();
        bump.set_allocation_limit(Some(MAX_BYTES));
        Arena(bump)
    }

    /// Empties it. Memory of common size stays for what comes.
    pub fn reset(&mut self) {
        if self.0.allocated_bytes() > KEEP_BYTES {
            *self = Arena::new();
        } else {
            self.0.reset();
        }
    }

    /// The texts one after the other; `None` if they need too much memory.
    pub fn joined<'t>(&self, parts: impl Iterator<Item = &'t [u8]> + Clone) -> Option<&[u8]> {
        let length = parts.clone().map(<[u8]>::len).sum();
        let text = self.0.try_alloc_slice_fill_copy(length, 0).ok()?;
        let mut at = 0;
        for part in parts {
            text[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        Some(text)
    }

    /// A slice of equal values; `None` if it needs too much memory.
    pub fn slice<T: Copy>(&self, length: usize, value: T) -> Option<&mut [T]> {
        self.0.try_alloc_slice_fill_copy(length, value).ok()
    }
}

/// A list in an [`Arena`].
pub struct List<'k, T> {
    arena: &'k Arena,
    items: &'k mut [T],
    length: usize,
}

impl<'k, T: Copy> List<'k, T> {
    /// An empty list.
    pub fn new(arena: &'k Arena) -> List<'k, T> {
        List { arena, items: &mut [], length: 0 }
    }

    /// Adds an item; `None` if it needs too much memory.
    pub fn push(&mut self, item: T) -> Option<()> {
        if self.length == self.items.len() {
            let larger = self.arena.slice((self.length * 2).max(4), item)?;
            larger[..self.length].copy_from_slice(self.items);
            self.items = larger;
        }
        self.items[self.length] = item;
        self.length += 1;
        Some(())
    }

    /// Takes the last item.
    pub fn pop(&mut self) -> Option<T> {
        self.length = self.length.checked_sub(1)?;
        Some(self.items[self.length])
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Reverses the items from the `first` one on.
    pub fn reverse_from(&mut self, first: usize) {
        self.items[first..self.length].reverse();
    }

    /// All items.
    pub fn into_items(self) -> &'k [T] {
        &self.items[..self.length]
    }
}
