//! The hook for utility statements: it runs a COPY in one of the extension's formats, and passes on all other statements
//! unchanged.

use crate::copy::Copy;
use crate::error::{Result, or_raise};
use crate::read_only;
use crate::whole::reporting;
use pgrx::{pg_guard, pg_sys};
use std::ffi::{CStr, c_char};
use std::sync::OnceLock;

/// The extension's formats, and the function that runs a COPY in them.
pub struct Formats {
    /// The extension's name. In databases without it, PostgreSQL runs the COPY.
    pub extension: &'static CStr,
    /// The formats' names.
    pub names: &'static [&'static CStr],
    /// Runs a COPY. Returns how many rows it has copied.
    pub run: fn(&Copy<'_>) -> Result<u64>,
}

static FORMATS: OnceLock<Formats> = OnceLock::new();
static mut NEXT: pg_sys::ProcessUtility_hook_type = None;

unsafe extern "C-unwind" {
    // utility.h. Not pgrx's wrapper: it would drop the fields that pgrx does not know from the errors of every statement.
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

/// Installs the hook; called once, in `_PG_init`.
pub fn install(formats: Formats) {
    if FORMATS.set(formats).is_ok() {
        // SAFETY: called in _PG_init, by the only thread.
        unsafe { NEXT = (&raw mut pg_sys::ProcessUtility_hook).replace(Some(on_utility)) }
    }
}

// No `pg_guard`: an error of the next hook must pass through unchanged. It holds nothing that needs a Drop.
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

/// Whether a COPY names one of the extension's formats. Only reads the parse tree, and calls no function of PostgreSQL.
///
/// # Safety
/// The statement is a live COPY.
unsafe fn is_ours(statement: *mut pg_sys::PlannedStmt) -> bool {
    // SAFETY: the caller guarantees it.
    let copy = unsafe { Copy::new(statement, c"") };
    FORMATS.get().is_some_and(|formats| copy.formats().any(|name| formats.names.contains(&name)))
}

/// Runs a COPY. False if the extension is not in the database: then PostgreSQL reports an unknown format.
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
    // SAFETY: the caller guarantees it; the statement and its text outlive the call. A statement has an active snapshot.
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
