//! What an export writes, in pieces that several processes can write side by side.

use super::files::Numbers;
use super::kickoff::Kickoff;
use crate::store::{Blocks, ResourceTable, ResourceType};
use fhir_bulk_pg::error::Result;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;

/// Of how many units each process would get if all were as large as the largest may be: the more, the closer to each
/// other the processes end; the fewer, the fewer files there are.
const UNITS_EACH: u64 = 4;
/// What is smaller is not worth files of its own.
const LEAST_BYTES: u64 = 8 << 20;

/// The resources of a type, or a part of them.
#[derive(Clone, Serialize, Deserialize)]
pub struct Unit {
    /// The type.
    pub resource_type: String,
    /// The part; all without.
    pub blocks: Option<Blocks>,
    /// The numbers of its files, which no other unit of the type has.
    pub numbers: Numbers,
}

impl Unit {
    /// A type as one unit.
    pub fn whole(resource_type: &str) -> Unit {
        Unit { resource_type: resource_type.to_owned(), blocks: None, numbers: Numbers::ALL }
    }

    /// What of this unit is left to a process that nobody helps: all of the type with its first unit, nothing with the
    /// others.
    pub fn undivided(&self) -> Option<Unit> {
        (self.numbers.first == 1).then(|| Unit::whole(&self.resource_type))
    }
}

/// Divides an export among so many processes: units whose tables several may read, the largest first, and types for one
/// process alone, since a parallel query may not do all that policies, views and foreign tables can lead to.
///
/// # Errors
/// 42P01 for a table that is gone; 3F000.
pub fn divide(kickoff: &Kickoff, processes: usize) -> Result<(Vec<Unit>, Vec<Unit>)> {
    let (mut together, mut alone) = (Vec::new(), Vec::new());
    for name in &kickoff.types {
        match ResourceTable::get(&ResourceType::new(name)?)?.plain_bytes() {
            Some(bytes) => together.push((name, bytes)),
            None => alone.push(Unit::whole(name)),
        }
    }
    let total: u64 = together.iter().map(|(_, bytes)| bytes).sum();
    let most = (total / (processes as u64 * UNITS_EACH)).max(LEAST_BYTES);
    // An index on ts may find what changed within some time; with a range of blocks beside it each unit would search it
    // again, or all blocks be read for a few rows.
    let is_divisible = processes > 1 && kickoff.since.is_none() && kickoff.until.is_none();
    let mut sized = Vec::new();
    for (name, bytes) in together {
        let count = if is_divisible { bytes.div_ceil(most) } else { 1 };
        let units = if count > 1 { parts(name, count)? } else { vec![Unit::whole(name)] };
        let each = bytes / units.len() as u64;
        sized.extend(units.into_iter().map(|unit| (each, unit)));
    }
    // Stable: the units of a type stay in the order of their blocks.
    sized.sort_by_key(|(bytes, _)| Reverse(*bytes));
    Ok((sized.into_iter().map(|(_, unit)| unit).collect(), alone))
}

/// Up to `count` ranges of the blocks of a type's table, about as long as each other.
fn parts(name: &str, count: u64) -> Result<Vec<Unit>> {
    let blocks = ResourceTable::lock_to_read(&ResourceType::new(name)?)?.blocks().unwrap_or(0);
    let count = u32::try_from(count).unwrap_or(u32::MAX).min(blocks);
    if count < 2 {
        return Ok(vec![Unit::whole(name)]);
    }
    let start = |part: u32| (u64::from(blocks) * u64::from(part) / u64::from(count)) as u32;
    let unit = |part: u32| Unit {
        resource_type: name.to_owned(),
        // The last one takes what the table grows by meanwhile.
        blocks: Some(Blocks { first: start(part), end: (part + 1 < count).then(|| start(part + 1)) }),
        numbers: Numbers { first: part as usize + 1, step: count as usize },
    };
    Ok((0..count).map(unit).collect())
}
