//! Slots, in which PostgreSQL passes rows.

use pgrx::pg_sys;

/// Empties a slot: it holds no page any more.
///
/// # Safety
/// `slot` is live.
pub(super) unsafe fn clear(slot: *mut pg_sys::TupleTableSlot) {
    // SAFETY: every slot kind has `clear`.
    unsafe {
        if let Some(clear) = (*(*slot).tts_ops).clear {
            clear(slot);
        }
    }
}
