//! Runs work that cannot write, even when an attacker wrote the SQL in it.
//!
//! A READ ONLY transaction alone is not enough: SQL in it can still change a setting that a policy reads
//! (`request.jwt.claims`), the role, a large object or a temporary table. While the work runs:
//! - `XactReadOnly` is on: PostgreSQL refuses writes to tables, and definitions;
//! - the role cannot change (`SECURITY_LOCAL_USERID_CHANGE`, as within a SECURITY DEFINER function);
//! - a statement or `set_config` cannot change settings; other changes (a function's own `SET` clause) are undone at the
//!   end;
//! - hooks refuse built-in functions and statements that change something, and writes to temporary tables.
//!
//! Afterwards everything is as before, also after an error. The hooks stay installed, because a hook cannot be taken out of
//! a chain. Outside of such work they do nothing.

use super::guc::{self, Changes};
use super::refused;
use super::session::Identity;
use crate::error::Error;
use pgrx::{PgSqlErrorCode, pg_guard, pg_sys};
use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{AtomicU32, Ordering};

/// How many calls of [`run`] are nested now.
static DEPTH: AtomicU32 = AtomicU32::new(0);

static mut NEXT_OBJECT_ACCESS: pg_sys::object_access_hook_type = None;
static mut NEXT_EXECUTOR_START: pg_sys::ExecutorStart_hook_type = None;

unsafe extern "C-unwind" {
    // executor.h. Not pgrx's wrapper: it would drop the fields that pgrx does not know from the errors of every statement.
    fn standard_ExecutorStart(query: *mut pg_sys::QueryDesc, flags: c_int);
}

/// Installs the hooks. The one for statements without a plan is in [`super::utility`].
pub fn install() {
    // SAFETY: called once, in _PG_init, by the only thread.
    unsafe {
        NEXT_OBJECT_ACCESS = (&raw mut pg_sys::object_access_hook).replace(Some(on_object_access));
        NEXT_EXECUTOR_START = (&raw mut pg_sys::ExecutorStart_hook).replace(Some(on_executor_start));
    }
}

/// Whether work that cannot write runs now.
pub(super) fn is_active() -> bool {
    DEPTH.load(Ordering::Relaxed) > 0
}

/// Runs `work` with these settings. It cannot write.
pub fn run<T>(settings: &[(&CStr, &CStr)], work: impl FnOnce() -> T) -> T {
    let before = Before::enter();
    let result = guc::with(settings, Changes::Undo, work);
    drop(before);
    result
}

/// The session's state before the work. Drop restores it, by assignments only.
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
        // SAFETY: as above. Neither assignment can raise; after an error the end of the (sub)transaction sets both again.
        unsafe { pg_sys::XactReadOnly = self.read_only }
        self.identity.restore();
    }
}

/// The error for a statement or function that does not only read (25006).
pub fn refusal(what: &str) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION, format!("dump_sql only reads and cannot run {what}"))
}

// The hooks have no `pg_guard`: an error of the next hook must pass through them unchanged. They hold nothing that needs a
// Drop.

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
        if is_active() && access == pg_sys::ObjectAccessType::OAT_FUNCTION_EXECUTE {
            check_function(object);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn check_function(function: pg_sys::Oid) {
    let is_built_in = function.to_u32() < pg_sys::FirstNormalObjectId;
    // SAFETY: look-ups by OID inside a transaction; the name is null if there is no function, else palloc'd.
    let name = unsafe {
        // What extensions have in pg_catalog belongs to the server, such as Citus's commands.
        let is_server =
            is_built_in || pg_sys::get_func_namespace(function) == pg_sys::Oid::from(pg_sys::PG_CATALOG_NAMESPACE);
        let name = if is_server { pg_sys::get_func_name(function) } else { std::ptr::null_mut() };
        if name.is_null() {
            return;
        }
        CStr::from_ptr(name).to_string_lossy()
    };
    // SAFETY: as above; the function is there.
    let changes = || unsafe { pg_sys::func_volatile(function) as u8 == pg_sys::PROVOLATILE_VOLATILE };
    let refused =
        if is_built_in { refused::is_refused(&name) } else { refused::is_refused_of_extension(&name) && changes() };
    if refused {
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
    // SAFETY: the caller passes a live plan.
    unsafe {
        if (*plan).hasModifyingCTE {
            refusal("a WITH that changes data").raise();
        }
        if !pg_sys::CommandIsReadOnly(plan) {
            refusal(&command_name(plan.cast())).raise();
        }
    }
}

/// The kind of statement of a parse tree or plan: `INSERT`, `CREATE TABLE`, `SELECT FOR UPDATE`.
///
/// # Safety
/// `node` is a live raw statement, query or plan.
pub(super) unsafe fn command_name(node: *mut pg_sys::Node) -> String {
    // SAFETY: the caller guarantees it; the name is a static C string.
    unsafe { CStr::from_ptr(pg_sys::GetCommandTagName(pg_sys::CreateCommandTag(node))).to_string_lossy().into_owned() }
}

/// Raises 25006 for statements without a plan. Allowed are those that only show something, and those that run other
/// statements, which are checked when they run.
///
/// # Safety
/// `plan` is a live statement without a plan.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn check_utility(plan: *mut pg_sys::PlannedStmt) {
    use pg_sys::NodeTag::{T_CallStmt, T_DoStmt, T_ExecuteStmt, T_ExplainStmt, T_VariableShowStmt};
    // SAFETY: PostgreSQL passes a live statement; the query of an EXPLAIN has been analysed.
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
