//! Reports errors of PostgreSQL to the client with all their fields.
//!
//! pgrx turns an error into a panic and the panic into an error again. It loses what it has no field for: CONTEXT, the names
//! of table and constraint, the position in a query, and SQLSTATEs that it does not know. The author of a statement needs
//! these.

use crate::reserve;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgSqlErrorCode, pg_guard, pg_sys};
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::panic::AssertUnwindSafe;

// elog.h. Called while PostgreSQL reports an error: pgrx's wrappers, where there are any, would set up error handling again.
unsafe extern "C-unwind" {
    fn errcode(sqlerrcode: c_int) -> c_int;
    fn errcontext_msg(format: *const c_char, ...) -> c_int;
    fn internalerrposition(position: c_int) -> c_int;
    fn internalerrquery(query: *const c_char) -> c_int;
    fn err_generic_string(field: c_int, text: *const c_char) -> c_int;
    fn errposition(position: c_int) -> c_int;
}

/// The fields that pgrx does not know, of the last error that [`call`] has caught.
struct Missing {
    sqlstate: c_int,
    context: Option<CString>,
    /// A position in a query, in characters from 1, and the query; `None` for the client's own statement.
    place: Option<(c_int, Option<CString>)>,
    /// Names by their PG_DIAG_… code (`postgres_ext.h`).
    names: Vec<(c_int, CString)>,
}

thread_local! { static MISSING: RefCell<Option<Missing>> = const { RefCell::new(None) } }

/// Calls PostgreSQL. An error becomes a panic, as in pgrx's own wrappers; under [`reporting`] the client gets it with all
/// its fields. A position in `query` becomes a position in an inner query, whose text the client gets.
///
/// # Safety
/// `call` only calls functions of PostgreSQL, not pgrx's wrappers; it holds nothing that needs a Drop.
pub(super) unsafe fn call<T>(query: &CStr, call: impl FnOnce() -> T) -> T {
    // SAFETY: the caller guarantees it.
    unsafe { catch(Some(query), call) }
}

/// As [`call`], for a part of the client's own statement: a position stays a position in that statement.
///
/// # Safety
/// As for [`call`].
pub(super) unsafe fn call_for_client<T>(call: impl FnOnce() -> T) -> T {
    // SAFETY: the caller guarantees it.
    unsafe { catch(None, call) }
}

/// # Safety
/// As for [`call`].
unsafe fn catch<T>(query: Option<&CStr>, call: impl FnOnce() -> T) -> T {
    // SAFETY: does what pgrx's `pg_guard_ffi_boundary` does. The jump ends in this frame, which holds nothing that needs a
    // Drop; both exits restore the globals. The callers' error callbacks are off here, so that CONTEXT has only what belongs
    // to the error; they run when the error is reported.
    unsafe {
        let (memory, exceptions) = (pg_sys::CurrentMemoryContext, pg_sys::PG_exception_stack);
        let callbacks = (&raw mut pg_sys::error_context_stack).replace(reserve::relief());
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

/// Makes a report of the fields that pgrx knows, and keeps the others for [`reporting`].
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
    // SAFETY: the name of a C function, which is part of a loaded program or library; none is ever unloaded.
    let routine = (!error.funcname.is_null()).then(|| unsafe { CStr::from_ptr(error.funcname) });
    let routine = routine.and_then(|name| name.to_str().ok()).unwrap_or_default();
    let mut report = ErrorReport::new(PgSqlErrorCode::from(error.sqlerrcode), message, routine);
    if let Some(detail) = string(error.detail) {
        report = report.set_detail(detail);
    }
    if let Some(hint) = string(error.hint) {
        report = report.set_hint(hint);
    }
    report
}

/// Adds a position in the client's statement to the next error, which [`reporting`] then reports.
pub(crate) fn place_next_error(code: PgSqlErrorCode, position: c_int) {
    let place = Some((position, None));
    MISSING.set(Some(Missing { sqlstate: code as c_int, context: None, place, names: Vec::new() }));
}

/// Forgets the fields of an error that was caught and is not raised again. Returns whether it was PostgreSQL's own.
pub(super) fn forget() -> bool {
    MISSING.take().is_some()
}

/// Runs the work of an SQL function, which returns to PostgreSQL right after `work`. An error that [`call`] turned into a
/// panic, and that no other code of ours caught, is reported with all its fields.
pub fn reporting<T>(work: impl FnOnce() -> T) -> T {
    MISSING.set(None);
    std::panic::catch_unwind(AssertUnwindSafe(|| reserve::relieved(work))).unwrap_or_else(|panic| {
        if MISSING.with_borrow(Option::is_some) {
            add_to_next_report();
        }
        std::panic::resume_unwind(panic)
    })
}

/// PostgreSQL calls it for the next error, which is the one that unwinds now, and removes it from its stack when that error
/// is caught.
static mut CALLBACK: pg_sys::ErrorContextCallback = pg_sys::ErrorContextCallback {
    previous: std::ptr::null_mut(),
    callback: Some(complete),
    arg: std::ptr::null_mut(),
};

fn add_to_next_report() {
    // SAFETY: a backend has one thread. The entries of the stack belong to the callers' frames, which still exist.
    unsafe {
        CALLBACK.previous = pg_sys::error_context_stack;
        pg_sys::error_context_stack = &raw mut CALLBACK;
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn complete(_argument: *mut c_void) {
    let Some(missing) = MISSING.take() else { return };
    // SAFETY: PostgreSQL calls this within `errfinish`; it copies all strings.
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
