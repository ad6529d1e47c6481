//! A memory context for what lives as long as a row or a batch.

use pgrx::{pg_guard, pg_sys};

/// A context below the one that was current when it was made, and gone with it.
pub struct Scratch(pg_sys::MemoryContext);

/// A new context below the current one, and gone with it.
pub fn new_context() -> pg_sys::MemoryContext {
    // SAFETY: the parent is live, the name is static; sizes are PostgreSQL's defaults.
    unsafe {
        pg_sys::AllocSetContextCreateInternal(
            pg_sys::CurrentMemoryContext,
            c"fhir_bulk".as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        )
    }
}

impl Default for Scratch {
    /// Makes the context.
    fn default() -> Scratch {
        Scratch(new_context())
    }
}

impl Scratch {
    /// Runs `work` with this context as the current one, then frees what `work` made in it. What PostgreSQL
    /// pallocs inside must not be kept.
    pub fn run<T>(&mut self, work: impl FnOnce() -> T) -> T {
        // SAFETY: the context lives as long as `self`.
        let result = unsafe { in_context(self.0, work) };
        // SAFETY: the context is live and no longer current.
        unsafe { pg_sys::MemoryContextReset(self.0) }
        result
    }

    /// Frees the context itself.
    pub fn delete(self) {
        // SAFETY: the context is live; nothing runs in it.
        unsafe { pg_sys::MemoryContextDelete(self.0) }
    }
}

/// Runs `work` with a context as the current one.
///
/// # Safety
/// `context` is live and stays so.
pub unsafe fn in_context<T>(context: pg_sys::MemoryContext, work: impl FnOnce() -> T) -> T {
    /// Back to the old context, also when `work` unwinds.
    struct Back(pg_sys::MemoryContext);
    impl Drop for Back {
        fn drop(&mut self) {
            // SAFETY: assigns a global of this backend; who called us keeps the context alive.
            unsafe { pg_sys::CurrentMemoryContext = self.0 }
        }
    }
    // SAFETY: by the caller; single-threaded backend.
    let back = unsafe { Back((&raw mut pg_sys::CurrentMemoryContext).replace(context)) };
    let result = work();
    drop(back);
    result
}

/// Runs `work`, and frees what PostgreSQL pallocated in it.
pub fn with_scratch<T>(work: impl FnOnce() -> T) -> T {
    let mut scratch = Scratch::default();
    let result = scratch.run(work);
    scratch.delete();
    result
}

/// A value in a memory context, with what drops it.
#[repr(C)]
struct Kept<T> {
    callback: pg_sys::MemoryContextCallback,
    value: T,
}

/// Keeps a value until a memory context is reset or deleted, and drops it then, which must not call PostgreSQL; where it
/// is until then.
///
/// # Safety
/// `context` is live.
pub unsafe fn keep_in<T>(context: pg_sys::MemoryContext, value: T) -> *mut T {
    #[pg_guard]
    unsafe extern "C-unwind" fn drop_kept<T>(kept: *mut std::ffi::c_void) {
        // SAFETY: the argument registered below, called once.
        unsafe { std::ptr::drop_in_place(&raw mut (*kept.cast::<Kept<T>>()).value) }
    }
    // SAFETY: by the caller; the memory is aligned for pointers, is large enough, and lives as long as the callback that
    // is registered in it.
    unsafe {
        let kept: *mut Kept<T> = pg_sys::MemoryContextAlloc(context, size_of::<Kept<T>>()).cast();
        let callback =
            pg_sys::MemoryContextCallback { func: Some(drop_kept::<T>), arg: kept.cast(), next: std::ptr::null_mut() };
        kept.write(Kept { callback, value });
        pg_sys::MemoryContextRegisterResetCallback(context, &raw mut (*kept).callback);
        &raw mut (*kept).value
    }
}
