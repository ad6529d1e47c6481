//! What the extension keeps for itself (jobs, rejected lines, the secret) is each database's own. A publication FOR ALL
//! TABLES has these tables too: at a subscriber that has the extension as well, jobs would be done a second time, and keys
//! that both have given out would end the replication of everything.

use crate::pg::replication;
use pgrx::heap_tuple::PgHeapTupleError;
use pgrx::prelude::*;

/// Before a change of a row while changes of another server may be applied: of those it takes none.
#[pg_trigger]
fn bulk_own_rows<'a>(
    trigger: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, PgHeapTupleError> {
    Ok(if replication::is_applying() { None } else { trigger.new().or_else(|| trigger.old()) })
}
