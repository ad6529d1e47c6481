//! Settings of submissions.

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

static MOST_PER_ROLE: GucSetting<i32> = GucSetting::<i32>::new(4);
static MAX_BYTES: GucSetting<f64> = GucSetting::<f64>::new(0.0);
/// The largest limit of bytes: all whole numbers up to it are exact.
const MOST_BYTES: f64 = (1_u64 << 53) as f64;

/// Defines the settings.
pub fn define() {
    GucRegistry::define_int_guc(
        c"fhir_bulk.max_submissions_per_role",
        c"How many unfinished submissions a role may have; 0 means no limit.",
        c"If tokens have a sub (request.jwt.claims), each sub has this limit for itself.",
        &MOST_PER_ROLE,
        0,
        i32::MAX,
        GucContext::Suset,
        GucFlags::default(),
    );
    // Not an integer: those end at 2 GB.
    GucRegistry::define_float_guc(
        c"fhir_bulk.submission_max_bytes",
        c"How many bytes of a submission may wait until it is completed, compressed as they are kept; 0 means no limit.",
        c"A manifest that would bring more is left out, and nothing of it is kept.",
        &MAX_BYTES,
        0.0,
        MOST_BYTES,
        GucContext::Suset,
        GucFlags::UNIT_BYTE,
    );
}

/// `fhir_bulk.max_submissions_per_role`.
pub fn most_per_role() -> u32 {
    MOST_PER_ROLE.get().unsigned_abs()
}

/// `fhir_bulk.submission_max_bytes`; `None` for no limit.
pub fn max_bytes() -> Option<u64> {
    let most = MAX_BYTES.get();
    // Less than a byte is a limit, too.
    (most > 0.0).then_some(most as u64)
}
