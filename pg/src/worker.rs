//! Background workers: processes of the server that work without a client.

use super::{compat, guc, session, transaction};
use crate::error::{Error, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgrx::{PgLogLevel, PgSqlErrorCode, PgTryBuilder, ereport, pg_sys};
use std::ffi::{CStr, CString, c_char, c_int};
use std::time::Duration;

unsafe extern "C-unwind" {
    /// PostgreSQL's own answer to SIGTERM: ends the process where it next looks for interrupts.
    fn die(signal: c_int);
    /// PostgreSQL's own answer to SIGHUP: asks for the configuration to be read again.
    fn SignalHandlerForConfigReload(signal: c_int);
    fn DiscardCommand(statement: *mut pg_sys::DiscardStmt, is_top_level: bool);
    fn PostmasterIsAliveInternal() -> bool;
}

/// A worker to be started.
pub struct Worker {
    /// As `ps` and `pg_stat_activity.backend_type` show it.
    pub name: &'static str,
    /// The library that the server loads into it, as it is installed.
    pub library: &'static CStr,
    /// The exported function of it that it runs.
    pub function: &'static CStr,
    /// What that function gets.
    pub argument: u32,
}

impl Worker {
    /// Asks the server for the process; false when it has none left (`max_worker_processes`).
    pub fn start(&self) -> bool {
        let mut entry = self.entry(pg_sys::BGW_NEVER_RESTART);
        // SAFETY: the entry is copied; nobody waits for the handle. Raises nothing: the entry is sound.
        unsafe { pg_sys::RegisterDynamicBackgroundWorker(&mut entry, std::ptr::null_mut()) }
    }

    /// Has the server run it from its start on and begin it again `seconds` after it failed. For `_PG_init` under
    /// `shared_preload_libraries`; elsewhere nothing happens.
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

/// The rest of the field is zero already, and the names are shorter than it.
fn copy(text: &[u8], field: &mut [c_char]) {
    for (to, from) in field.iter_mut().zip(text) {
        *to = *from as c_char;
    }
}

/// What a worker does first: takes signals as any backend does, and connects to a database, or with `None` to the
/// catalogues that all databases share, as the role that the server was made with.
pub fn connect(database: Option<pg_sys::Oid>) {
    // SAFETY: once, at the start of the worker's function. A database that is gone ends the process.
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

/// What holds in a worker whatever a database or a role has set: it waits for locks as long as it takes, since nobody
/// is there to try again, and it writes, which whoever asked for its work could as well. Autovacuum does likewise.
const DEFAULTS: [(&CStr, &CStr); 6] = [
    // What runs as the server's superuser between jobs; a job has that of the session which asked for it.
    (c"search_path", session::SAFE_SEARCH_PATH),
    (c"lock_timeout", c"0"),
    (c"statement_timeout", c"0"),
    (c"transaction_timeout", c"0"),
    (c"idle_in_transaction_session_timeout", c"0"),
    (c"default_transaction_read_only", c"off"),
];

/// Reads the server's configuration again if it was asked to.
pub fn reload_if_asked() {
    // SAFETY: outside of a transaction; the flag is a signal handler's.
    unsafe {
        if pg_sys::ConfigReloadPending != 0 {
            pg_sys::ConfigReloadPending = 0;
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
    }
}

/// Ends this process if the server has ended without it: as long as it works on, no other server can start.
pub fn end_without_server() {
    // SAFETY: asks the system.
    if !unsafe { PostmasterIsAliveInternal() } {
        let message = "terminating bulk job worker due to unexpected postmaster exit";
        ereport!(PgLogLevel::FATAL, PgSqlErrorCode::ERRCODE_CRASH_SHUTDOWN, message);
    }
}

/// What `pg_stat_activity.query` shows of this process; `None` when it does nothing.
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

/// Waits between transactions, unless something for this process comes up.
pub fn wait(time: Duration) {
    // A cancel is for what the process does, and it does nothing.
    PgTryBuilder::new(|| session::wait_for_latch(time)).catch_others(|_| ()).execute();
}

/// Takes over a role for good, as if it had connected: `session_user` is it too. [`leave_role`] goes back.
///
/// # Errors
/// What PostgreSQL raised when it looked the role up.
pub fn become_role(role: pg_sys::Oid) -> Result<()> {
    // SAFETY: a look-up in the catalogue, inside a transaction.
    let is_superuser = transaction::run::<_, Error>(|| Ok(unsafe { pg_sys::superuser_arg(role) }))?;
    // SAFETY: between transactions, without a security context, in a process that connected as a superuser.
    unsafe { pg_sys::SetSessionAuthorization(role, is_superuser) }
    Ok(())
}

/// Back to who connected, with nothing left of what was done in between: settings, temporary tables, prepared
/// statements, locks.
///
/// # Errors
/// What PostgreSQL raised; the process then is not fit for another role.
pub fn leave_role() -> Result<()> {
    // SAFETY: between transactions, as in become_role.
    unsafe { pg_sys::SetSessionAuthorization(pg_sys::GetAuthenticatedUserId(), true) }
    transaction::run(|| {
        let mut statement =
            pg_sys::DiscardStmt { type_: pg_sys::NodeTag::T_DiscardStmt, target: pg_sys::DiscardMode::DISCARD_ALL };
        // SAFETY: in a transaction, outside of a block of them. The statement is a local that is only read.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| DiscardCommand(&mut statement, true)) };
        Ok(())
    })
}

/// The number of the process.
pub fn pid() -> i32 {
    // SAFETY: set at its start.
    unsafe { pg_sys::MyProcPid }
}

/// Interrupts what a process of this server is doing, as `pg_cancel_backend` would; nothing if it has ended.
pub fn interrupt(pid: i32) {
    // SAFETY: a look into shared memory, then a signal to a backend of this server.
    unsafe {
        if !pg_sys::BackendPidGetProc(pid).is_null() {
            // It may have ended just now; then nothing needs to be interrupted.
            let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
        }
    }
}
