//! Settings of dumps.

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

/// More than one backend can give work to.
const MOST_WORKERS: i32 = 16;

static WORKERS: GucSetting<i32> = GucSetting::<i32>::new(0);

/// Defines the settings.
pub fn define() {
    GucRegistry::define_int_guc(
        c"fhir_bulk.dump_workers",
        c"How many threads beside a session write the lines of its dump while it reads rows; 0 means that it writes them.",
        c"They see nothing but the rows that the session may read. Each takes a core.",
        &WORKERS,
        0,
        MOST_WORKERS,
        GucContext::Userset,
        GucFlags::default(),
    );
}

/// `fhir_bulk.dump_workers`.
pub fn workers() -> usize {
    usize::try_from(WORKERS.get()).unwrap_or(0)
}
