//! Divides an export into units that several processes can write at the same time.

use super::files::Numbers;
use super::kickoff::Kickoff;
use crate::store::{Blocks, ResourceTable, ResourceType};
use fhir_bulk_pg::error::Result;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;

/// How many units each process would get if all had the maximum size. With more units the processes end closer together;
/// with fewer units there are fewer files.
const UNITS_EACH: u64 = 4;
/// A smaller unit is not worth files of its own.
const LEAST_BYTES: u64 = 8 << 20;

/// The resources of a type, or a part of them.
#[derive(Clone, Serialize, Deserialize)]
pub struct Unit {
    /// The type.
    pub resource_type: String,
    /// The part; `None` for all.
    pub blocks: Option<Blocks>,
    /// The numbers of its files. No other unit of the type uses them.
    pub numbers: Numbers,
}

impl Unit {
    /// A type as one unit.
    pub fn whole(resource_type: &str) -> Unit {
        Unit { resource_type: resource_type.to_owned(), blocks: None, numbers: Numbers::ALL }
    }

    /// The unit to write if a process works alone: the first unit stands for the whole type, the others are dropped.
    pub fn undivided(&self) -> Option<Unit> {
        (self.numbers.first == 1).then(|| Unit::whole(&self.resource_type))
    }
}

/// Divides an export among `processes` processes. Returns the units that several processes may read, largest first, and the
/// types that one process must read alone: parallel mode forbids some of what policies, views and foreign tables may do.
///
/// # Errors
/// 42P01 for a table that no longer exists; 3F000.
pub fn divide(kickoff: &Kickoff, processes: usize) -> Result<(Vec<Unit>, Vec<Unit>)> {
    let (mut together, mut alone) = (Vec::new(), Vec::new());
    for name in &kickoff.types {
        // What Provenance is of is looked up in other tables.
        match ResourceTable::get(&ResourceType::new(name)?)?.plain_bytes().filter(|_| !kickoff.is_linked(name)) {
            Some(bytes) => together.push((name, bytes)),
            None => alone.push(Unit::whole(name)),
        }
    }
    let most = most_bytes(together.iter().map(|(_, bytes)| bytes).sum(), processes);
    // With a time range, an index on ts may find the rows. If each unit also had a range of blocks, it would search that
    // index again, or read all its blocks for a few rows.
    let is_divisible = processes > 1 && kickoff.since.is_none() && kickoff.until.is_none();
    let mut sized = Vec::new();
    for (name, bytes) in together {
        // The same is true of an index that finds what a filter wants.
        let is_divisible = is_divisible && !is_found_by_index(kickoff, name)?;
        let count = if is_divisible { bytes.div_ceil(most) } else { 1 };
        let units = if count > 1 { parts(name, count)? } else { vec![Unit::whole(name)] };
        let each = bytes / units.len() as u64;
        sized.extend(units.into_iter().map(|unit| (each, unit)));
    }
    // Stable: the units of a type stay in the order of their blocks.
    sized.sort_by_key(|(bytes, _)| Reverse(*bytes));
    Ok((sized.into_iter().map(|(_, unit)| unit).collect(), alone))
}

/// How many bytes a unit has at most, of so many that processes divide among them.
pub fn most_bytes(total: u64, processes: usize) -> u64 {
    (total / (processes as u64 * UNITS_EACH)).max(LEAST_BYTES)
}

fn is_found_by_index(kickoff: &Kickoff, name: &str) -> Result<bool> {
    let Some(filter) = kickoff.filters.of(name)? else { return Ok(false) };
    Ok(filter.has_index(&ResourceTable::get(&ResourceType::new(name)?)?))
}

/// Up to `count` ranges of the blocks of a type's table, of about the same length.
fn parts(name: &str, count: u64) -> Result<Vec<Unit>> {
    let blocks = ResourceTable::lock_to_read(&ResourceType::new(name)?)?.blocks().unwrap_or(0);
    let count = u32::try_from(count).unwrap_or(u32::MAX).min(blocks);
    if count < 2 {
        return Ok(vec![Unit::whole(name)]);
    }
    let start = |part: u32| (u64::from(blocks) * u64::from(part) / u64::from(count)) as u32;
    let unit = |part: u32| Unit {
        resource_type: name.to_owned(),
        // The last unit includes blocks that are added meanwhile.
        blocks: Some(Blocks { first: start(part), end: (part + 1 < count).then(|| start(part + 1)) }),
        numbers: Numbers { first: part as usize + 1, step: count as usize },
    };
    Ok((0..count).map(unit).collect())
}
