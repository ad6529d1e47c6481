//! Shared buffers that this process has in its page tables. The first write to a page of shared memory costs a process about
//! three times what the first read does: for a read, the system maps the pages around it, too, and writes then find them.

use pgrx::pg_sys;
use std::cell::RefCell;
use std::sync::atomic::{AtomicU8, Ordering};

/// As much as the system maps around a page that is read (`fault_around_bytes`).
const AROUND: usize = 64 << 10;
/// The system's pages.
const PAGE: usize = 4 << 10;

thread_local! {
    /// A bit for each [`AROUND`] bytes of the buffers: whether they were read here.
    static SEEN: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Maps the buffers that whoever asks for `count` of them will mostly get: those after the last one, or before it, if they
/// come in that order.
pub fn expect(last: pg_sys::Buffer, ascending: bool, count: usize) {
    let size = pg_sys::BLCKSZ as usize;
    // SAFETY: both are set when the server starts. The reads stay among the buffers, which live as long as the process; others
    // may write to them, and what is read does not matter.
    unsafe {
        let (base, all) = (pg_sys::BufferBlocks as usize, pg_sys::NBuffers as usize * size);
        // Buffers are numbered from 1.
        let end = last.max(1) as usize * size;
        let (from, until) = match ascending {
            true => (end.min(all), all.min(end + count * size)),
            false => (end.saturating_sub((count + 1) * size), end - size),
        };
        let mut at = from;
        while at < until {
            let end = all.min((base + at + 1).next_multiple_of(AROUND) - base);
            if is_first((base + at) / AROUND - base / AROUND) {
                for page in (at..end).step_by(PAGE) {
                    (*((base + page) as *const AtomicU8)).load(Ordering::Relaxed);
                }
            }
            at = end;
        }
    }
}

/// Whether nobody has asked for this number before.
fn is_first(number: usize) -> bool {
    SEEN.with_borrow_mut(|seen| {
        let (word, bit) = (number / 64, 1 << (number % 64));
        if seen.len() <= word {
            seen.resize(word + 1, 0);
        }
        let is_first = seen[word] & bit == 0;
        seen[word] |= bit;
        is_first
    })
}
