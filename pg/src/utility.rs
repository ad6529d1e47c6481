//! Statements without a plan: a COPY in a format of ours is run here, all others go on untouched.

use crate::copy::Copy;
use crate::error::{Result, or_raise};
use crate::read_only;
use crate::whole::reporting;
use pgrx::{pg_guard, pg_sys};
use std::ffi::{CStr, c_char};
use std::sync::OnceLock;

/// Which COPYs are ours, and who runs them.
pub struct Formats {
    /// They are ours where this extension is in the database.
    pub extension: &'static CStr,
    /// As `FORMAT` names them.
    pub names: &'static [&'static CStr],
    /// Runs one; how many rows it has copied.
    pub run: fn(&Copy<'_>) -> Result<u64>,
}

static FORMATS: OnceLock<Formats> = OnceLock::new();
static mut NEXT: pg_sys::ProcessUtility_hook_type = None;

unsafe extern "C-unwind" {
    // utility.h. Not pgrx's wrapper, which would take from every error of every statement what pgrx has no field for.
    fn standard_ProcessUtility(
        statement: *mut pg_sys::PlannedStmt,
        text: *const c_char,
        read_only_tree: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        parameters: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        receiver: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}

/// Takes its place in PostgreSQL's hook; called once, in `_PG_init`.
pub fn install(formats: Formats) {
    if FORMATS.set(formats).is_ok() {
        // SAFETY: called in _PG_init, by the only thread.
        unsafe { NEXT = (&raw mut pg_sys::ProcessUtility_hook).replace(Some(on_utility)) }
    }
}

// Not guarded: an error of those behind it goes through it as it is. It holds nothing to be dropped.
unsafe extern "C-unwind" fn on_utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    receiver: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: arguments are passed on as they came; PostgreSQL passes a live statement. Set once, in `install`.
    unsafe {
        if read_only::is_active() {
            read_only::check_utility(statement);
        } else if (*(*statement).utilityStmt).type_ == pg_sys::NodeTag::T_CopyStmt
            && is_ours(statement)
            && run(statement, text, completion)
        {
            return;
        }
        let next = NEXT.unwrap_or(standard_ProcessUtility);
        next(statement, text, read_only_tree, context, parameters, environment, receiver, completion);
    }
}

/// Whether a COPY names one of our formats. Reads the parse tree, and calls nothing of PostgreSQL's.
///
/// # Safety
/// The statement is a live COPY.
unsafe fn is_ours(statement: *mut pg_sys::PlannedStmt) -> bool {
    // SAFETY: by the caller.
    let copy = unsafe { Copy::new(statement, c"") };
    FORMATS.get().is_some_and(|formats| copy.formats().any(|name| formats.names.contains(&name)))
}

/// Runs a COPY; false where the extension is not in the database, and PostgreSQL says that it does not know the format.
///
/// # Safety
/// As for the hook.
#[pg_guard]
unsafe extern "C-unwind" fn run(
    statement: *mut pg_sys::PlannedStmt,
    text: *const c_char,
    completion: *mut pg_sys::QueryCompletion,
) -> bool {
    let Some(formats) = FORMATS.get() else { return false };
    // SAFETY: by the caller; the statement and its text outlive the call. A statement has an active snapshot.
    unsafe {
        if pg_sys::get_extension_oid(formats.extension.as_ptr(), true) == pg_sys::InvalidOid {
            return false;
        }
        let copy = Copy::new(statement, CStr::from_ptr(text));
        let rows = reporting(|| or_raise((formats.run)(&copy)));
        if !completion.is_null() {
            (*completion).commandTag = pg_sys::CommandTag::CMDTAG_COPY;
            (*completion).nprocessed = rows;
        }
    }
    true
}
