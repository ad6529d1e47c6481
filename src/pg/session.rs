//! The session: who calls, when it is, in which time zone, whether it may write.

use pgrx::pg_sys;

/// Seconds east of UTC at an instant, in the session's TimeZone.
pub fn utc_offset(micros: i64) -> i64 {
    let (mut zone, mut fraction) = (0, 0);
    let mut parts = pg_sys::pg_tm::default();
    // SAFETY: all pointers are to locals; null asks for the session's zone.
    let status = unsafe {
        pg_sys::timestamp2tm(micros, &mut zone, &mut parts, &mut fraction, std::ptr::null_mut(), std::ptr::null_mut())
    };
    // Seconds west. Beyond the zone's rules PostgreSQL itself falls back to UTC.
    if status == 0 { -i64::from(zone) } else { 0 }
}

/// `now()`: the transaction's start in microseconds since 2000-01-01T00:00:00Z.
pub fn transaction_start() -> i64 {
    // SAFETY: inside a transaction.
    unsafe { pg_sys::GetCurrentTransactionStartTimestamp() }
}

/// Raises 25006 in a READ ONLY transaction (and in recovery), 25000 in a parallel worker.
pub fn prevent_if_read_only(command: &std::ffi::CStr) {
    // SAFETY: a C string that lives through the calls.
    unsafe {
        pg_sys::PreventCommandIfReadOnly(command.as_ptr());
        pg_sys::PreventCommandIfParallelMode(command.as_ptr());
    }
}

/// Whether the current role has the rights of a built-in role.
pub fn has_role(role: pg_sys::Oid) -> bool {
    // SAFETY: catalogue look-ups inside a transaction.
    unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), role) }
}

/// Lets a cancel, a timeout or a terminate take effect here.
pub fn check_for_interrupts() {
    pgrx::check_for_interrupts!();
}

/// Makes what this transaction did so far visible to its next statements.
pub fn advance_command() {
    // SAFETY: inside a transaction, between statements of ours.
    unsafe { pg_sys::CommandCounterIncrement() }
}
