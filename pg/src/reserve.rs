//! Memory that is held back, so that an allocation which fails ends a statement and not the server.
//!
//! Rust's collections abort the process when there is no memory for them, and PostgreSQL then ends all sessions. What may be
//! large is asked for with `try_reserve`, and its failure is an error with a name. Everything else is small, and gets what
//! was held back here; the next check for interrupts then ends the statement, if there still is no memory by then.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use pgrx::{PgSqlErrorCode, pg_sys};

/// One piece for what a statement still allocates, one for the error that ends it. Nobody touches their pages, so that they
/// cost address space only.
static HELD: [AtomicPtr<u8>; 2] = [const { AtomicPtr::new(null_mut()) }; 2];
const PIECE: Layout = match Layout::from_size_align(1 << 20, 16) {
    Ok(layout) => layout,
    Err(_) => unreachable!(),
};
static IS_SHORT: AtomicBool = AtomicBool::new(false);

/// The system's allocator, which gets back what is held when it has nothing else. Each process has its own pieces, forked ones
/// too.
struct Reserving;

#[global_allocator]
static ALLOCATOR: Reserving = Reserving;

// SAFETY: all memory is the system allocator's, asked for and given back with the same layouts; nothing here unwinds.
unsafe impl GlobalAlloc for Reserving {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        or_again(layout.size(), || unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        or_again(layout.size(), || unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's; what could not grow is left as it was.
        or_again(size, || unsafe { System.realloc(memory, layout, size) })
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[inline]
fn or_again(size: usize, allocate: impl Fn() -> *mut u8) -> *mut u8 {
    let memory = allocate();
    if memory.is_null() { with_less_held(size, allocate) } else { memory }
}

/// Gives pieces back to the system until there is enough.
#[cold]
fn with_less_held(size: usize, allocate: impl Fn() -> *mut u8) -> *mut u8 {
    if size >= PIECE.size() {
        return null_mut();
    }
    while give_back() {
        let memory = allocate();
        if !memory.is_null() {
            return memory;
        }
    }
    null_mut()
}

/// Gives one piece back to the system, if there is one.
fn give_back() -> bool {
    IS_SHORT.store(true, Ordering::Relaxed);
    let held = HELD.iter().map(|piece| piece.swap(null_mut(), Ordering::AcqRel)).find(|held| !held.is_null());
    if let Some(held) = held {
        // SAFETY: hold() allocated it so, and nobody else has it.
        unsafe { System.dealloc(held, PIECE) }
    }
    held.is_some()
}

/// Called for each error of PostgreSQL before it is caught. Whoever catches it copies it, which takes memory; without any, the
/// copy is the next error, and too many of them within each other are a PANIC.
static mut RELIEF: pg_sys::ErrorContextCallback =
    pg_sys::ErrorContextCallback { previous: null_mut(), callback: Some(relieve), arg: null_mut() };

// elog.h. Called while PostgreSQL reports an error: pgrx's wrapper would set up error handling again.
unsafe extern "C-unwind" {
    fn geterrcode() -> c_int;
}

unsafe extern "C-unwind" fn relieve(_argument: *mut c_void) {
    // SAFETY: PostgreSQL calls this within `errfinish`.
    if unsafe { geterrcode() } == PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY as c_int {
        give_back();
    }
}

/// The end of a stack of error callbacks that gives memory back when PostgreSQL has none.
pub(crate) fn relief() -> *mut pg_sys::ErrorContextCallback {
    &raw mut RELIEF
}

/// Runs `work`, in which errors of PostgreSQL that are for lack of memory find some.
pub(crate) fn relieved<T>(work: impl FnOnce() -> T) -> T {
    /// Takes the callback off the stack, also when `work` unwinds.
    struct Callback(pg_sys::ErrorContextCallback);
    impl Drop for Callback {
        fn drop(&mut self) {
            // SAFETY: the stack is again as it was; a backend has one thread.
            unsafe { pg_sys::error_context_stack = self.0.previous }
        }
    }
    // SAFETY: as above; the entry lives until it is taken off the stack.
    unsafe {
        let previous = pg_sys::error_context_stack;
        let mut on = Callback(pg_sys::ErrorContextCallback { previous, callback: Some(relieve), arg: null_mut() });
        pg_sys::error_context_stack = &raw mut on.0;
        let done = work();
        drop(on);
        done
    }
}

/// Holds memory back, unless it does already. Whether there was enough.
pub fn hold() -> bool {
    HELD.iter().rev().all(|piece| {
        if !piece.load(Ordering::Acquire).is_null() {
            return true;
        }
        // SAFETY: the layout has a size.
        let memory = unsafe { System.alloc(PIECE) };
        if memory.is_null() {
            return false;
        }
        let other = piece.swap(memory, Ordering::AcqRel);
        if !other.is_null() {
            // SAFETY: as in with_less_held.
            unsafe { System.dealloc(other, PIECE) }
        }
        true
    })
}

/// Whether memory had to be given back, and there is still none to be held again.
#[inline]
pub(crate) fn is_short() -> bool {
    IS_SHORT.load(Ordering::Relaxed) && !restored()
}

#[cold]
fn restored() -> bool {
    let is_held = hold();
    IS_SHORT.store(!is_held, Ordering::Relaxed);
    is_held
}
