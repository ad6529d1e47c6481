//! `disableIndexes`: the table of an input has no secondary indexes while a job imports into it.
//!
//! The first task of a job that comes to a table drops them in a transaction of its own, which also stores what makes them
//! again. Workers make them again as soon as no job that has something left to do holds the table, however the jobs have
//! ended: before a job ends, its indexes are there.

use crate::jobs::{DroppedIndex, Task};
use crate::store::{ResourceTable, ResourceType, SecondaryIndex, make_index};
use fhir_bulk_pg::error::Result;

/// Checks that the current role may disable the indexes of a type's table, if there is one.
///
/// # Errors
/// 42501 if it may not; 3F000.
pub fn check(resource_type: &ResourceType) -> Result<()> {
    ResourceTable::find(resource_type)?.map_or(Ok(()), |table| table.check_disables_indexes())
}

/// Drops the indexes of a type's table, unless the job has done so already.
///
/// # Errors
/// As for [`check`]; 57014 if the task was cancelled.
pub fn disable(task: &Task, resource_type: &ResourceType) -> Result<()> {
    let Some(table) = ResourceTable::find(resource_type)? else { return Ok(()) };
    if task.holds_indexes(table.oid)? {
        return Ok(());
    }
    table.drop_indexes(|SecondaryIndex { name, before, statements, tablespace, .. }| {
        task.note_dropped(table.oid, name, [before, statements], tablespace)
    })?;
    task.hold_indexes(table.oid);
    Ok(())
}

/// Makes an index again.
pub fn restore(index: &DroppedIndex) {
    let DroppedIndex { relation, role, name, before, statements, tablespace, .. } = index;
    make_index((*relation).into(), (*role).into(), name, [before, statements], tablespace);
}
