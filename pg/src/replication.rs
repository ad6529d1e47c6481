//! Changes that come from another server, or go to one.

use pgrx::pg_sys;

/// Whether this process applies changes of another server now: of a subscription, its first copy included, or of whatever
/// else says where its changes come from (`pg_replication_origin_session_setup`).
pub fn is_applying() -> bool {
    // SAFETY: reads globals of this process.
    unsafe { pg_sys::IsLogicalWorker() || pg_sys::replorigin_session_origin != pg_sys::InvalidRepOriginId as u16 }
}

/// Whether the log says what rows became, for other servers to do the same (`wal_level = logical`).
pub fn log_is_decoded() -> bool {
    // SAFETY: a setting of the server, which its start has fixed.
    unsafe { pg_sys::wal_level >= pg_sys::WalLevel::WAL_LEVEL_LOGICAL as i32 }
}
