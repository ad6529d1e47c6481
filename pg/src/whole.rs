//! Errors of PostgreSQL that reach the client whole.
//!
//! pgrx turns an error into a panic and the panic into an error again, and on the way drops what it has no field for:
//! CONTEXT, the names of table and constraint, the place in a query, and SQLSTATEs that it does not know. For a
//! statement that somebody else wrote, these are what its author needs.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgSqlErrorCode, pg_guard, pg_sys};
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::panic::AssertUnwindSafe;

// elog.h. Called while PostgreSQL makes up an error: pgrx's wrappers of them, where there are any, would look for
// another one.
unsafe extern "C-unwind" {
    fn errcode(sqlerrcode: c_int) -> c_int;
    fn errcontext_msg(format: *const c_char, ...) -> c_int;
    fn internalerrposition(position: c_int) -> c_int;
    fn internalerrquery(query: *const c_char) -> c_int;
    fn err_generic_string(field: c_int, text: *const c_char) -> c_int;
    fn errposition(position: c_int) -> c_int;
}

/// What pgrx has no field for, of the last error that [`call`] has caught.
struct Missing {
    sqlstate: c_int,
    context: Option<CString>,
    /// A position in a query, counted in characters from 1, and the query; without one it is the client's own statement.
    place: Option<(c_int, Option<CString>)>,
    /// By their PG_DIAG_… (`postgres_ext.h`).
    names: Vec<(c_int, CString)>,
}

thread_local! { static MISSING: RefCell<Option<Missing>> = const { RefCell::new(None) } }

/// Calls PostgreSQL. An error goes on as a panic, as after pgrx's own wrappers; under [`reporting`] it arrives at the
/// client with all that it had. A position in `query` arrives as one in an inner query, of which the client gets the
/// text.
///
/// # Safety
/// `call` does nothing but call functions of PostgreSQL that are not pgrx's wrappers; it holds nothing to be dropped.
pub(super) unsafe fn call<T>(query: &CStr, call: impl FnOnce() -> T) -> T {
    // SAFETY: by the caller.
    unsafe { catch(Some(query), call) }
}

/// As [`call`], for what is part of the client's own statement: a position stays one in that.
///
/// # Safety
/// As [`call`].
pub(super) unsafe fn call_for_client<T>(call: impl FnOnce() -> T) -> T {
    // SAFETY: by the caller.
    unsafe { catch(None, call) }
}

/// # Safety
/// As [`call`].
unsafe fn catch<T>(query: Option<&CStr>, call: impl FnOnce() -> T) -> T {
    // SAFETY: what pgrx's `pg_guard_ffi_boundary` does, with the same care: the jump ends in this frame, which holds
    // nothing to be dropped; the globals are put back on both ways out. Without the callbacks of those who called us,
    // the error says only what belongs to it; they have their say when it is reported.
    unsafe {
        let (memory, exceptions) = (pg_sys::CurrentMemoryContext, pg_sys::PG_exception_stack);
        let callbacks = (&raw mut pg_sys::error_context_stack).replace(std::ptr::null_mut());
        let mut result = MaybeUninit::uninit();
        let jumped = cee_scape::call_with_sigsetjmp(false, |buffer| {
            pg_sys::PG_exception_stack = std::ptr::from_ref(buffer).cast_mut().cast();
            result.write(call());
            0
        });
        pg_sys::PG_exception_stack = exceptions;
        pg_sys::error_context_stack = callbacks;
        if jumped == 0 {
            // An error that the call itself has caught, within a function of a query say, is nobody's any more.
            MISSING.set(None);
            return result.assume_init();
        }
        pg_sys::CurrentMemoryContext = memory;
        let error = pg_sys::CopyErrorData();
        pg_sys::FlushErrorState();
        let report = take_apart(&*error, query);
        pg_sys::FreeErrorData(error);
        std::panic::resume_unwind(Box::new(report))
    }
}

/// What pgrx has fields for; the rest is kept for [`reporting`].
fn take_apart(error: &pg_sys::ErrorData, query: Option<&CStr>) -> ErrorReport {
    // SAFETY: PostgreSQL's strings are C strings or null.
    let text = |text: *const c_char| (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_owned());
    let place = match text(error.internalquery) {
        _ if error.cursorpos > 0 => Some((error.cursorpos, query.map(CStr::to_owned))),
        Some(inner) if error.internalpos > 0 => Some((error.internalpos, Some(inner))),
        _ => None,
    };
    let names = [
        (b's', error.schema_name),
        (b't', error.table_name),
        (b'c', error.column_name),
        (b'd', error.datatype_name),
        (b'n', error.constraint_name),
    ];
    let names = names.into_iter().filter_map(|(field, name)| Some((field.into(), text(name)?))).collect();
    let missing = Missing { sqlstate: error.sqlerrcode, context: text(error.context), place, names };
    MISSING.with_borrow_mut(|last| *last = Some(missing));

    let string = |pointer| text(pointer).map(|text| text.to_string_lossy().into_owned());
    let message = string(error.message).unwrap_or_default();
    let mut report = ErrorReport::new(PgSqlErrorCode::from(error.sqlerrcode), message, "fhir_bulk");
    if let Some(detail) = string(error.detail) {
        report = report.set_detail(detail);
    }
    if let Some(hint) = string(error.hint) {
        report = report.set_hint(hint);
    }
    report
}

/// Has the next error, which is about to be raised, point at a place in the client's statement, as [`reporting`] reports it.
pub(crate) fn place_next_error(code: PgSqlErrorCode, position: c_int) {
    let place = Some((position, None));
    MISSING.set(Some(Missing { sqlstate: code as c_int, context: None, place, names: Vec::new() }));
}

/// Runs the work of an SQL function, of which nothing is left to do after `work` but to go back to PostgreSQL. An error
/// that [`call`] has caught in it, and nothing of ours has caught meanwhile, is reported whole.
pub fn reporting<T>(work: impl FnOnce() -> T) -> T {
    MISSING.set(None);
    std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        if MISSING.with_borrow(Option::is_some) {
            add_to_next_report();
        }
        std::panic::resume_unwind(panic)
    })
}

/// PostgreSQL calls it for the next error, which is the one on its way, and takes it off its stack when that has been
/// caught.
static mut CALLBACK: pg_sys::ErrorContextCallback = pg_sys::ErrorContextCallback {
    previous: std::ptr::null_mut(),
    callback: Some(complete),
    arg: std::ptr::null_mut(),
};

fn add_to_next_report() {
    // SAFETY: a backend has one thread. The entries of the stack belong to frames that called ours.
    unsafe {
        CALLBACK.previous = pg_sys::error_context_stack;
        pg_sys::error_context_stack = &raw mut CALLBACK;
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn complete(_argument: *mut c_void) {
    let Some(missing) = MISSING.take() else { return };
    // SAFETY: called by PostgreSQL within `errfinish`; all strings are copied.
    unsafe {
        errcode(missing.sqlstate);
        match &missing.place {
            Some((position, Some(query))) => {
                internalerrposition(*position);
                internalerrquery(query.as_ptr());
            }
            Some((position, None)) => {
                errposition(*position);
            }
            None => {}
        }
        if let Some(context) = &missing.context {
            errcontext_msg(c"%s".as_ptr(), context.as_ptr());
        }
        for (field, name) in &missing.names {
            err_generic_string(*field, name.as_ptr());
        }
    }
}
