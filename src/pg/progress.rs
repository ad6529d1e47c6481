//! What `pg_stat_progress_copy` shows of this process: shared memory that costs a few stores to write.

use super::compat;
use pgrx::pg_sys;

/// How far this process has come with a source.
pub struct Shown {
    /// Of the source as it is stored.
    pub read_bytes: u64,
    pub all_bytes: Option<u64>,
    pub rows: u64,
    /// What it works on: the last two of the twenty numbers, which the view leaves out.
    pub task: (i64, i32),
}

/// Shows it, until [`end`] or the transaction fails.
pub fn show(shown: &Shown) {
    let (job, number) = shown.task;
    let values = [
        (pg_sys::PROGRESS_COPY_BYTES_PROCESSED, shown.read_bytes as i64),
        (pg_sys::PROGRESS_COPY_BYTES_TOTAL, shown.all_bytes.unwrap_or_default() as i64),
        (pg_sys::PROGRESS_COPY_TUPLES_PROCESSED, shown.rows as i64),
        (pg_sys::PROGRESS_COPY_COMMAND, i64::from(pg_sys::PROGRESS_COPY_COMMAND_FROM)),
        (pg_sys::PROGRESS_COPY_TYPE, i64::from(pg_sys::PROGRESS_COPY_TYPE_CALLBACK)),
        (pg_sys::PGSTAT_NUM_PROGRESS_PARAM - 2, job),
        (pg_sys::PGSTAT_NUM_PROGRESS_PARAM - 1, number.into()),
    ];
    let (places, values): (Vec<i32>, Vec<i64>) = values.iter().map(|(place, value)| (*place as i32, *value)).unzip();
    // Commands that are run meanwhile may have shown theirs: that which builds an index of a new table does.
    compat::show_copy_progress();
    // SAFETY: as many places as values, all below the number of parameters.
    unsafe { pg_sys::pgstat_progress_update_multi_param(places.len() as i32, places.as_ptr(), values.as_ptr()) }
}

/// Shows nothing more.
pub fn end() {
    // SAFETY: this process's own entry.
    unsafe { pg_sys::pgstat_progress_end_command() }
}
