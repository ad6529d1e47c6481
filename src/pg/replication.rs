//! Changes that come from another server.

use pgrx::pg_sys;

/// Whether this process applies changes of another server now: of a subscription, its first copy included, or of whatever
/// else says where its changes come from (`pg_replication_origin_session_setup`).
pub fn is_applying() -> bool {
    // SAFETY: reads globals of this process.
    unsafe { pg_sys::IsLogicalWorker() || pg_sys::replorigin_session_origin != pg_sys::InvalidRepOriginId as u16 }
}
