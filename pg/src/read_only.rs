//! A piece of work in which nothing can be written, whoever wrote the SQL that runs in it.
//!
//! A READ ONLY transaction alone lets pass what is worst here: a setting that a policy reads (`request.jwt.claims`), a
//! role, a large object, a temporary table. While the work runs:
//! - `XactReadOnly` is on: PostgreSQL refuses writes to tables, and definitions;
//! - the role cannot change (`SECURITY_LOCAL_USERID_CHANGE`, as within a SECURITY DEFINER function);
//! - settings cannot be changed by a statement or `set_config`, and what else changes them (a function's own `SET`
//!   clause) is undone at the end;
//! - hooks refuse built-in functions that change something, statements that do, and writes to temporary tables.
//!
//! Afterwards everything is as it was, also after an error. The hooks are there all the time, for they may not be taken
//! out of a chain, and do nothing outside of such work.

use super::guc::{self, Changes};
use super::refused;
use super::session::Identity;
use crate::error::Error;
use pgrx::{PgSqlErrorCode, pg_guard, pg_sys};
use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{AtomicU32, Ordering};

/// How many pieces of such work run, one within the other.
static DEPTH: AtomicU32 = AtomicU32::new(0);

static mut NEXT_OBJECT_ACCESS: pg_sys::object_access_hook_type = None;
static mut NEXT_EXECUTOR_START: pg_sys::ExecutorStart_hook_type = None;

unsafe extern "C-unwind" {
    // executor.h. Not pgrx's wrapper, which would take from every error of every statement what pgrx has no field for.
    fn standard_ExecutorStart(query: *mut pg_sys::QueryDesc, flags: c_int);
}

/// Takes its place in PostgreSQL's hooks; what is for statements without a plan is in [`super::utility`].
pub fn install() {
    // SAFETY: called once, in _PG_init, by the only thread.
    unsafe {
        NEXT_OBJECT_ACCESS = (&raw mut pg_sys::object_access_hook).replace(Some(on_object_access));
        NEXT_EXECUTOR_START = (&raw mut pg_sys::ExecutorStart_hook).replace(Some(on_executor_start));
    }
}

/// Whether such work runs now.
pub(super) fn is_active() -> bool {
    DEPTH.load(Ordering::Relaxed) > 0
}

/// Runs `work` with these settings, in which nothing can be written.
pub fn run<T>(settings: &[(&CStr, &CStr)], work: impl FnOnce() -> T) -> T {
    let before = Before::enter();
    let result = guc::with(settings, Changes::Undo, work);
    drop(before);
    result
}

/// What the session was before; dropping it puts that back, which is nothing but assignments.
struct Before {
    read_only: bool,
    identity: Identity,
}

impl Before {
    fn enter() -> Before {
        DEPTH.fetch_add(1, Ordering::Relaxed);
        let identity = Identity::current();
        identity.confined().restore();
        // SAFETY: a global of this backend, which has one thread.
        let read_only = unsafe { (&raw mut pg_sys::XactReadOnly).replace(true) };
        Before { read_only, identity }
    }
}

impl Drop for Before {
    fn drop(&mut self) {
        DEPTH.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: as above. Neither can raise; after an error the (sub)transaction's end sets both once more.
        unsafe { pg_sys::XactReadOnly = self.read_only }
        self.identity.restore();
    }
}

/// The error of a statement or function that is not for reading (25006).
pub fn refusal(what: &str) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION, format!("dump_sql only reads and cannot run {what}"))
}

// The hooks themselves are not guarded: an error of those behind them goes through them as it is. They hold nothing to
// be dropped.

unsafe extern "C-unwind" fn on_object_access(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    part: c_int,
    argument: *mut c_void,
) {
    // SAFETY: arguments are passed on as they came; set once, in `install`.
    unsafe {
        if let Some(next) = NEXT_OBJECT_ACCESS {
            next(access, class, object, part, argument);
        }
        let is_built_in = object.to_u32() < pg_sys::FirstNormalObjectId;
        if is_active() && access == pg_sys::ObjectAccessType::OAT_FUNCTION_EXECUTE && is_built_in {
            check_function(object);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn check_function(function: pg_sys::Oid) {
    // SAFETY: a look-up by OID inside a transaction; null where there is none, else palloc'd.
    let name = unsafe {
        let name = pg_sys::get_func_name(function);
        if name.is_null() {
            return;
        }
        CStr::from_ptr(name).to_string_lossy()
    };
    if refused::is_refused(&name) {
        refusal(&format!("{name}()")).raise();
    }
}

unsafe extern "C-unwind" fn on_executor_start(query: *mut pg_sys::QueryDesc, flags: c_int) {
    // SAFETY: PostgreSQL passes a live query; set once, in `install`.
    unsafe {
        if is_active() && flags & pg_sys::EXEC_FLAG_EXPLAIN_ONLY as c_int == 0 {
            check_plan((*query).plannedstmt);
        }
        match NEXT_EXECUTOR_START {
            Some(next) => next(query, flags),
            None => standard_ExecutorStart(query, flags),
        }
    }
}

/// Raises 25006 unless the plan only reads; temporary tables and row locks count as writing.
#[pg_guard]
unsafe extern "C-unwind" fn check_plan(plan: *mut pg_sys::PlannedStmt) {
    // SAFETY: by the caller, a live plan.
    unsafe {
        if (*plan).hasModifyingCTE {
            refusal("a WITH that changes data").raise();
        }
        if !pg_sys::CommandIsReadOnly(plan) {
            refusal(&command_name(plan.cast())).raise();
        }
    }
}

/// What kind of statement a parse tree or plan is: `INSERT`, `CREATE TABLE`, `SELECT FOR UPDATE`.
///
/// # Safety
/// `node` is a live raw statement, query or plan.
pub(super) unsafe fn command_name(node: *mut pg_sys::Node) -> String {
    // SAFETY: by the caller; the name is a static C string.
    unsafe { CStr::from_ptr(pg_sys::GetCommandTagName(pg_sys::CreateCommandTag(node))).to_string_lossy().into_owned() }
}

/// Raises 25006 for statements without a plan, but for those that only show something or whose own statements are
/// checked as they come.
///
/// # Safety
/// `plan` is a live statement without a plan.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn check_utility(plan: *mut pg_sys::PlannedStmt) {
    use pg_sys::NodeTag::{T_CallStmt, T_DoStmt, T_ExecuteStmt, T_ExplainStmt, T_VariableShowStmt};
    // SAFETY: PostgreSQL passes a live statement; that of an EXPLAIN has been analysed.
    unsafe {
        let statement = (*plan).utilityStmt;
        let allowed = match (*statement).type_ {
            T_CallStmt | T_DoStmt | T_ExecuteStmt | T_VariableShowStmt => true,
            // EXPLAIN ANALYZE CREATE TABLE … AS SELECT has a plan that only reads.
            T_ExplainStmt => {
                let explained = (*statement.cast::<pg_sys::ExplainStmt>()).query.cast::<pg_sys::Query>();
                (*explained).commandType != pg_sys::CmdType::CMD_UTILITY
            }
            _ => false,
        };
        if !allowed {
            refusal(&command_name(statement)).raise();
        }
    }
}
