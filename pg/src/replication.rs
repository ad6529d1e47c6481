//! Logical replication: whether this process applies another server's changes, and whether WAL is decoded.

use pgrx::pg_sys;

/// Whether this process applies changes of another server now: as a worker of a subscription, also for its first copy, or as
/// a session with a replication origin (`pg_replication_origin_session_setup`).
pub fn is_applying() -> bool {
    // SAFETY: reads globals of this process.
    unsafe { pg_sys::IsLogicalWorker() || pg_sys::replorigin_session_origin != pg_sys::InvalidRepOriginId as u16 }
}

/// Whether WAL contains the new rows for logical replication (`wal_level = logical`).
pub fn log_is_decoded() -> bool {
    // SAFETY: a setting of the server, which only its start can change.
    unsafe { pg_sys::wal_level >= pg_sys::WalLevel::WAL_LEVEL_LOGICAL as i32 }
}
