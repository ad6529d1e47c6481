//! A hash table from names to their meanings. The key is a name's rank, the number that jsonb's order starts with.

use crate::jsonb::value::{RANKED, rank};

/// A hash table that is built once. Names are neither empty nor very long.
pub(crate) struct Table<T> {
    /// Indexes of entries, each at the hash of its name's rank or in the next free slot. The number of slots is a power of
    /// two, or zero; at least one is free.
    slots: Box<[Slot]>,
    /// How many bits to shift out of a hash.
    shift: u32,
    entries: Vec<(&'static str, T)>,
}

#[derive(Clone, Copy)]
struct Slot {
    /// Marks a free slot.
    rank: u64,
    entry: u32,
}

/// An odd multiplier with bits all over: the highest bits of its product with a rank depend on all bytes of the rank.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

impl<T> Table<T> {
    pub fn new(entries: Vec<(&'static str, T)>) -> Table<T> {
        // Twice as many slots as names: most look-ups find no name, and this way they meet a free slot at once.
        let count = if entries.is_empty() { 0 } else { (entries.len() * 2 + 1).next_power_of_two() };
        let mut table = Table {
            slots: vec![Slot { rank: 0, entry: 0 }; count].into_boxed_slice(),
            shift: u64::BITS - count.max(2).trailing_zeros(),
            entries,
        };
        for (entry, (name, _)) in (0..).zip(&table.entries) {
            let rank = rank(name.as_bytes());
            let mut at = (rank.wrapping_mul(SPREAD) >> table.shift) as usize;
            while table.slots[at].rank != 0 {
                at = (at + 1) % count;
            }
            table.slots[at] = Slot { rank, entry };
        }
        table
    }

    /// The meaning of `name`, whose rank is `rank`.
    #[inline]
    pub fn find(&self, rank: u64, name: &[u8]) -> Option<&T> {
        let mut at = (rank.wrapping_mul(SPREAD) >> self.shift) as usize;
        loop {
            let slot = self.slots.get(at)?;
            // Checked first, because an empty name has the rank of a free slot.
            if slot.rank == 0 {
                return None;
            }
            if slot.rank == rank {
                let (known, found) = &self.entries[slot.entry as usize];
                // The rank of a short name contains all its bytes.
                if name.len() <= RANKED || known.as_bytes() == name {
                    return Some(found);
                }
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    #[cfg(test)]
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_and_no_other() {
        // Many names with the same length and beginning, and so the same rank.
        let names: Vec<&'static str> = (0..300).map(|n| &*format!("element{n}").leak()).collect();
        for count in 0..names.len() {
            let table = Table::new(names[..count].iter().map(|name| (*name, *name)).collect());
            for (at, name) in names.iter().enumerate() {
                let found = table.find(rank(name.as_bytes()), name.as_bytes());
                assert_eq!(found, (at < count).then_some(name));
            }
            assert_eq!(table.find(rank(b""), b""), None);
            let long = [b'e'; 300];
            assert_eq!(table.find(rank(&long), &long), None);
        }
    }
}
