//! Names and what they stand for, found by the number that jsonb's order starts with.

use crate::jsonb::value::{RANKED, rank};

/// A hash table that is built once. Names are neither empty nor very long.
pub(crate) struct Table<T> {
    /// A name's place among the entries, at its rank's hash or behind it; at least one is free. As many as a power
    /// of two, or none.
    slots: Box<[Slot]>,
    /// How many bits of a hash are too many.
    shift: u32,
    entries: Vec<(&'static str, T)>,
}

#[derive(Clone, Copy)]
struct Slot {
    /// Of no name: this slot is free.
    rank: u64,
    entry: u32,
}

/// What an odd number with bits all over does to ranks: the highest bits of the product depend on all bytes.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

impl<T> Table<T> {
    pub fn new(entries: Vec<(&'static str, T)>) -> Table<T> {
        // Twice as many as names: most names that are looked for are not there, and meet a free slot at once.
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

    /// What `name`, whose rank is `rank`, stands for.
    #[inline]
    pub fn find(&self, rank: u64, name: &[u8]) -> Option<&T> {
        let mut at = (rank.wrapping_mul(SPREAD) >> self.shift) as usize;
        loop {
            let slot = self.slots.get(at)?;
            // First, since an empty name has the rank of a free slot.
            if slot.rank == 0 {
                return None;
            }
            if slot.rank == rank {
                let (known, found) = &self.entries[slot.entry as usize];
                // A short name's rank is all of it.
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
        // Many of one length and beginning, whose ranks are the same.
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
