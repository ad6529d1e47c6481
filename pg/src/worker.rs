//! Starts and runs background workers: processes of the server without a client.

use super::{compat, guc, session, transaction};
use crate::error::{Error, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgrx::{PgLogLevel, PgSqlErrorCode, PgTryBuilder, ereport, pg_sys};
use std::ffi::{CStr, CString, c_char, c_int};
use std::time::Duration;

unsafe extern "C-unwind" {
    /// PostgreSQL's own handler of SIGTERM: the process ends at its next check for interrupts.
    fn die(signal: c_int);
    /// PostgreSQL's own handler of SIGHUP: requests a reload of the configuration.
    fn SignalHandlerForConfigReload(signal: c_int);
    fn DiscardCommand(statement: *mut pg_sys::DiscardStmt, is_top_level: bool);
    fn PostmasterIsAliveInternal() -> bool;
}

/// A worker to start.
pub struct Worker {
    /// Its name in `ps` and `pg_stat_activity.backend_type`.
    pub name: &'static str,
    /// The library that the server loads into it, by its installed name.
    pub library: &'static CStr,
    /// The function that it runs, which that library exports.
    pub function: &'static CStr,
    /// The argument of the function.
    pub argument: u32,
}

impl Worker {
    /// Asks the server to start the process. False if it has no slot left (`max_worker_processes`).
    pub fn start(&self) -> bool {
        let mut entry = self.entry(pg_sys::BGW_NEVER_RESTART);
        // SAFETY: the entry is copied; no handle is needed. It cannot raise: the entry is valid.
        unsafe { pg_sys::RegisterDynamicBackgroundWorker(&mut entry, std::ptr::null_mut()) }
    }

    /// Has the server start the worker when the server starts, and again `seconds` after the worker has failed. Works only
    /// in `_PG_init` under `shared_preload_libraries`; elsewhere it does nothing.
    pub fn start_with_server(&self, seconds: i32) {
        let mut entry = self.entry(seconds);
        // SAFETY: in _PG_init of the postmaster; the entry is copied.
        unsafe {
            if pg_sys::process_shared_preload_libraries_in_progress {
                pg_sys::RegisterBackgroundWorker(&mut entry);
            }
        }
    }

    fn entry(&self, restart_seconds: i32) -> pg_sys::BackgroundWorker {
        let mut entry = pg_sys::BackgroundWorker {
            bgw_flags: (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION) as c_int,
            bgw_start_time: pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished,
            bgw_restart_time: restart_seconds,
            bgw_main_arg: pg_sys::Datum::from(self.argument),
            ..Default::default()
        };
        copy(self.name.as_bytes(), &mut entry.bgw_name);
        copy(self.name.as_bytes(), &mut entry.bgw_type);
        copy(self.library.to_bytes(), &mut entry.bgw_library_name);
        copy(self.function.to_bytes(), &mut entry.bgw_function_name);
        entry
    }
}

/// Copies a name into a field that is longer than the name and zero already.
fn copy(text: &[u8], field: &mut [c_char]) {
    for (to, from) in field.iter_mut().zip(text) {
        *to = *from as c_char;
    }
}

/// A worker's first step: handles signals like any backend, and connects to a database as the role that initdb created.
/// `None` connects only to the catalogues that all databases share.
pub fn connect(database: Option<pg_sys::Oid>) {
    // SAFETY: once, at the start of the worker's function. If the database no longer exists, the process ends.
    unsafe {
        compat::on_signal(pg_sys::SIGTERM, die);
        compat::on_signal(pg_sys::SIGHUP, SignalHandlerForConfigReload);
        pg_sys::BackgroundWorkerUnblockSignals();
        match database {
            Some(oid) => pg_sys::BackgroundWorkerInitializeConnectionByOid(oid, pg_sys::InvalidOid, 0),
            None => pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0),
        }
    }
    for (name, value) in DEFAULTS {
        if guc::get(name).is_some() {
            guc::set_default(name, value);
        }
    }
}

/// The settings of a worker, which override those of a database or a role. It waits for locks without a timeout, because no
/// client would retry. It may write, because the caller of the job could. Autovacuum does the same.
const DEFAULTS: [(&CStr, &CStr); 6] = [
    // For statements as superuser between jobs. In a job it is that of the session that started the job.
    (c"search_path", session::SAFE_SEARCH_PATH),
    (c"lock_timeout", c"0"),
    (c"statement_timeout", c"0"),
    (c"transaction_timeout", c"0"),
    (c"idle_in_transaction_session_timeout", c"0"),
    (c"default_transaction_read_only", c"off"),
];

/// Reloads the server's configuration if a reload was requested.
pub fn reload_if_asked() {
    // SAFETY: outside of a transaction; a signal handler sets the flag.
    unsafe {
        if pg_sys::ConfigReloadPending != 0 {
            pg_sys::ConfigReloadPending = 0;
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
    }
}

/// Ends this process if the server has ended: as long as this process runs, no new server can start.
pub fn end_without_server() {
    // SAFETY: asks the system.
    if !unsafe { PostmasterIsAliveInternal() } {
        let message = "terminating bulk job worker due to unexpected postmaster exit";
        ereport!(PgLogLevel::FATAL, PgSqlErrorCode::ERRCODE_CRASH_SHUTDOWN, message);
    }
}

/// Sets what `pg_stat_activity.query` shows for this process; `None` when it is idle.
pub fn report(activity: Option<&str>) {
    let state = match activity {
        Some(_) => pg_sys::BackendState::STATE_RUNNING,
        None => pg_sys::BackendState::STATE_IDLE,
    };
    let text = activity.and_then(|text| CString::new(text).ok());
    // SAFETY: the text is copied.
    unsafe { pg_sys::pgstat_report_activity(state, text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr())) }
}

/// Writes a line into the server's log.
pub fn log(message: &str) {
    ereport!(PgLogLevel::LOG, PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, message.to_owned());
}

/// Waits between transactions until the time is over or a signal has set the latch.
pub fn wait(time: Duration) {
    // A cancel is ignored: there is nothing to cancel while the process waits.
    PgTryBuilder::new(|| session::wait_for_latch(time)).catch_others(|_| ()).execute();
}

/// Becomes a role as if it had connected: `session_user` is this role, too. [`leave_role`] ends that.
///
/// # Errors
/// What PostgreSQL raises when it looks up the role.
pub fn become_role(role: pg_sys::Oid) -> Result<()> {
    // SAFETY: a look-up in the catalogue, inside a transaction.
    let is_superuser = transaction::run::<_, Error>(|| Ok(unsafe { pg_sys::superuser_arg(role) }))?;
    // SAFETY: between transactions, without a security context, in a process that connected as a superuser.
    unsafe { pg_sys::SetSessionAuthorization(role, is_superuser) }
    Ok(())
}

/// Returns to the role that connected, and discards what is left of the other role: settings, temporary tables, prepared
/// statements, locks.
///
/// # Errors
/// What PostgreSQL raises; then this process must not take another role.
pub fn leave_role() -> Result<()> {
    // SAFETY: between transactions, as in become_role.
    unsafe { pg_sys::SetSessionAuthorization(pg_sys::GetAuthenticatedUserId(), true) }
    transaction::run(|| {
        let mut statement =
            pg_sys::DiscardStmt { type_: pg_sys::NodeTag::T_DiscardStmt, target: pg_sys::DiscardMode::DISCARD_ALL };
        // SAFETY: in a transaction, outside of a transaction block. The statement is a local that is only read.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| DiscardCommand(&mut statement, true)) };
        Ok(())
    })
}

/// The number of the process.
pub fn pid() -> i32 {
    // SAFETY: set at its start.
    unsafe { pg_sys::MyProcPid }
}

/// Cancels what a process of this server is doing, as `pg_cancel_backend` does. Does nothing if the process has ended.
pub fn interrupt(pid: i32) {
    // SAFETY: reads shared memory, then signals a backend of this server.
    unsafe {
        if !pg_sys::BackendPidGetProc(pid).is_null() {
            // An error means that it has just ended; then there is nothing to cancel.
            let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
        }
    }
}
