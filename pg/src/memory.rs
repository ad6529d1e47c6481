//! Memory contexts: for memory that lives as long as a row or a batch, and for Rust values that live as long as a context.

use pgrx::{pg_guard, pg_sys};

/// A context whose parent is the context that was current when it was made. It is freed with its parent.
pub struct Scratch(pg_sys::MemoryContext);

/// Makes a child of the current context. It is freed with its parent.
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
    /// Runs `work` with this context as the current one, then frees everything in it. `work` must not return memory that was
    /// palloc'd in it.
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
/// `context` stays live while `work` runs.
pub unsafe fn in_context<T>(context: pg_sys::MemoryContext, work: impl FnOnce() -> T) -> T {
    /// Restores the old context, also when `work` unwinds.
    struct Back(pg_sys::MemoryContext);
    impl Drop for Back {
        fn drop(&mut self) {
            // SAFETY: assigns a global of this backend; the caller keeps the old context alive.
            unsafe { pg_sys::CurrentMemoryContext = self.0 }
        }
    }
    // SAFETY: the caller guarantees it; single-threaded backend.
    let back = unsafe { Back((&raw mut pg_sys::CurrentMemoryContext).replace(context)) };
    let result = work();
    drop(back);
    result
}

/// Runs `work`, then frees what was palloc'd in it.
pub fn with_scratch<T>(work: impl FnOnce() -> T) -> T {
    let mut scratch = Scratch::default();
    let result = scratch.run(work);
    scratch.delete();
    result
}

/// A value in a memory context, with the callback that drops it.
#[repr(C)]
struct Kept<T> {
    callback: pg_sys::MemoryContextCallback,
    value: T,
}

/// Keeps a value until a memory context is reset or deleted, and drops it then. The Drop must not call PostgreSQL. Returns
/// where the value is.
///
/// # Safety
/// `context` is live.
pub unsafe fn keep_in<T>(context: pg_sys::MemoryContext, value: T) -> *mut T {
    #[pg_guard]
    unsafe extern "C-unwind" fn drop_kept<T>(kept: *mut std::ffi::c_void) {
        // SAFETY: the argument registered below, called once.
        unsafe { std::ptr::drop_in_place(&raw mut (*kept.cast::<Kept<T>>()).value) }
    }
    // SAFETY: the caller guarantees it; the memory is aligned for pointers, is large enough, and lives until the callback in
    // it has run.
    unsafe {
        let kept: *mut Kept<T> = pg_sys::MemoryContextAlloc(context, size_of::<Kept<T>>()).cast();
        let callback =
            pg_sys::MemoryContextCallback { func: Some(drop_kept::<T>), arg: kept.cast(), next: std::ptr::null_mut() };
        kept.write(Kept { callback, value });
        pg_sys::MemoryContextRegisterResetCallback(context, &raw mut (*kept).callback);
        &raw mut (*kept).value
    }
}
