//! The session: its role, clock, time zone and database, whether it may write, and how it waits.

use super::{compat, guc, reserve};
use crate::error::Error;
use pgrx::{PgSqlErrorCode, pg_sys};
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// Keeps Rust backtraces out of the DETAIL of errors. pgrx puts them there if the server's environment has RUST_BACKTRACE.
/// Whoever wants them can set RUST_LIB_BACKTRACE.
pub fn hide_backtraces() {
    const NAME: &str = "RUST_LIB_BACKTRACE";
    if std::env::var_os(NAME).is_none() {
        // SAFETY: called when the library is loaded, by the only thread of the process.
        unsafe { std::env::set_var(NAME, "0") }
    }
}

/// Seconds east of UTC at an instant, in the session's TimeZone.
pub fn utc_offset(micros: i64) -> i64 {
    let (mut zone, mut fraction) = (0, 0);
    let mut parts = pg_sys::pg_tm::default();
    // SAFETY: all pointers are to locals; null asks for the session's zone.
    let status = unsafe {
        pg_sys::timestamp2tm(micros, &mut zone, &mut parts, &mut fraction, std::ptr::null_mut(), std::ptr::null_mut())
    };
    // `zone` counts seconds west. Outside of the zone's rules PostgreSQL uses UTC.
    if status == 0 { -i64::from(zone) } else { 0 }
}

/// `now()`: the transaction's start in microseconds since 2000-01-01T00:00:00Z.
pub fn transaction_start() -> i64 {
    // SAFETY: inside a transaction.
    unsafe { pg_sys::GetCurrentTransactionStartTimestamp() }
}

/// The instant whose local time in the session's TimeZone is the UTC time of `micros`.
pub fn in_time_zone(micros: i64) -> i64 {
    const PER_SECOND: i64 = 1_000_000;
    // The offset must be that of the result, which differs from the argument's near a change of the clocks.
    let near = micros - utc_offset(micros) * PER_SECOND;
    micros - utc_offset(near) * PER_SECOND
}

/// Whether this session has waited for a lock since the client's statement began.
pub fn waited_in_statement() -> bool {
    // timeout.h
    const DEADLOCK_TIMEOUT: std::ffi::c_int = 1;
    unsafe extern "C-unwind" {
        fn get_timeout_start_time(timeout: std::ffi::c_int) -> pg_sys::TimestampTz;
    }
    // SAFETY: both read memory of this process. A wait for a lock starts the deadlock timeout, whose last start PostgreSQL
    // remembers.
    unsafe { get_timeout_start_time(DEADLOCK_TIMEOUT) >= pg_sys::GetCurrentStatementStartTimestamp() }
}

/// The current time, in microseconds since 2000-01-01T00:00:00Z.
pub fn clock() -> i64 {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// The current time, in seconds since 1970-01-01T00:00:00Z.
pub fn unix_time() -> i64 {
    const FROM_1970_TO_2000: i64 = 946_684_800;
    clock().div_euclid(1_000_000) + FROM_1970_TO_2000
}

/// Whether files must survive a crash of the machine (setting `fsync`).
pub fn syncs_files() -> bool {
    // SAFETY: reads a setting.
    unsafe { pg_sys::enableFsync }
}

/// Wakes the server's WAL writer to write the WAL so far, as an asynchronous commit does. Otherwise it sleeps while the WAL
/// buffers fill up, and then each process must write one page for every page that it logs.
pub fn have_log_written() {
    // SAFETY: the end of the last record that this process has logged in its transaction, 0 for none; the state of WAL is in
    // shared memory, under its own locks.
    unsafe {
        if pg_sys::XactLastRecEnd != 0 {
            pg_sys::XLogSetAsyncXactLSN(pg_sys::XactLastRecEnd);
        }
    }
}

/// The 64-bit number of the current transaction. No other transaction ever has the same.
pub fn transaction_id() -> u64 {
    // SAFETY: inside a transaction; assigns a number if it has none.
    unsafe { pg_sys::GetTopFullTransactionId() }.value
}

/// Raises 25006 in a READ ONLY transaction (and in recovery), 25000 in a parallel worker.
pub fn prevent_if_read_only(command: &std::ffi::CStr) {
    // SAFETY: a C string that lives through the calls.
    unsafe {
        pg_sys::PreventCommandIfReadOnly(command.as_ptr());
        pg_sys::PreventCommandIfParallelMode(command.as_ptr());
    }
}

/// Whether the current role is a superuser.
pub fn is_superuser() -> bool {
    // SAFETY: looks the current role up.
    unsafe { pg_sys::superuser() }
}

/// Whether the current role has the rights of a built-in role.
pub fn has_role(role: pg_sys::Oid) -> bool {
    // SAFETY: catalogue look-ups inside a transaction.
    unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), role) }
}

/// The name of the current role.
pub fn role_name() -> CString {
    // SAFETY: the current role exists; the name is palloc'd, copied here.
    unsafe { CStr::from_ptr(pg_sys::GetUserNameFromId(pg_sys::GetUserId(), false)).to_owned() }
}

/// The `search_path` of statements that run with other rights than the caller's.
pub const SAFE_SEARCH_PATH: &CStr = c"pg_catalog, pg_temp";

/// Runs `work` as another role. PostgreSQL refuses SET ROLE meanwhile. `search_path` is [`SAFE_SEARCH_PATH`]: otherwise the
/// caller could replace an operator that a statement uses without its name, such as that of `CASE … WHEN` or IN.
pub fn as_role<T>(role: pg_sys::Oid, work: impl FnOnce() -> T) -> T {
    let before = Identity::current();
    // The server's own maintenance commands do the same. After an error the (sub)transaction's end restores all.
    guc::with(&[(c"search_path", SAFE_SEARCH_PATH)], guc::Changes::Undo, || {
        Identity { role, ..before.confined() }.restore();
        let result = work();
        before.restore();
        result
    })
}

/// The current role and its security context, which says what it may not do.
#[derive(Clone, Copy)]
pub struct Identity {
    role: pg_sys::Oid,
    context: i32,
}

impl Identity {
    /// The current identity.
    pub fn current() -> Identity {
        let (mut role, mut context) = (pg_sys::InvalidOid, 0);
        // SAFETY: both are locals.
        unsafe { pg_sys::GetUserIdAndSecContext(&mut role, &mut context) };
        Identity { role, context }
    }

    /// A role that user code cannot leave: PostgreSQL refuses SET ROLE, RESET ROLE and similar statements.
    pub fn confined_to(role: pg_sys::Oid) -> Identity {
        Identity { role, context: pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32 }
    }

    /// The same role, which user code cannot leave.
    pub fn confined(self) -> Identity {
        Identity { context: self.context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32, ..self }
    }

    /// Makes this the current identity. It cannot fail.
    pub fn restore(self) {
        // SAFETY: a role and a context that PostgreSQL returned, or a role that exists.
        unsafe { pg_sys::SetUserIdAndSecContext(self.role, self.context) }
    }
}

/// The current role.
pub fn role() -> pg_sys::Oid {
    // SAFETY: always set.
    unsafe { pg_sys::GetUserId() }
}

/// Whether a role still exists.
pub fn role_exists(role: pg_sys::Oid) -> bool {
    // SAFETY: a catalogue look-up inside a transaction.
    unsafe { !pg_sys::GetUserNameFromId(role, true).is_null() }
}

/// Whether this is a standby, where nothing can be written.
pub fn is_standby() -> bool {
    // SAFETY: reads shared memory.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// The database's OID.
pub fn database() -> pg_sys::Oid {
    // SAFETY: set when the process connected.
    unsafe { pg_sys::MyDatabaseId }
}

/// Runs `work` as the role that initdb created, to read what only superusers may see of other sessions.
pub fn as_bootstrap_superuser<T>(work: impl FnOnce() -> T) -> T {
    as_role(pg_sys::Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID), work)
}

/// The event to wait for on a file descriptor.
#[derive(Clone, Copy, Debug)]
pub enum Waiting<'a> {
    /// There are bytes to read, or the end of them.
    Readable(BorrowedFd<'a>),
    /// There is room to write.
    Writable(BorrowedFd<'a>),
}

/// Waits until one of the file descriptors can be read or written, or a signal has set the latch. An interrupt takes effect
/// where the caller checks for it. Ends this process if the server ends.
pub fn wait(fds: &[Waiting<'_>]) {
    const NO_SOCKET: i32 = -1;
    let none = std::ptr::null_mut();
    // SAFETY: the latch is this backend's; the descriptors are open through the calls. Only out of memory can raise in
    // between; then the set is freed with the current context or owner.
    unsafe {
        let set = compat::new_wait_event_set(fds.len() as i32 + 2);
        pg_sys::AddWaitEventToSet(set, pg_sys::WL_LATCH_SET, NO_SOCKET, pg_sys::MyLatch, none);
        pg_sys::AddWaitEventToSet(set, pg_sys::WL_EXIT_ON_PM_DEATH, NO_SOCKET, none.cast(), none);
        for waiting in fds {
            let (event, fd) = match waiting {
                Waiting::Readable(fd) => (pg_sys::WL_SOCKET_READABLE, fd),
                Waiting::Writable(fd) => (pg_sys::WL_SOCKET_WRITEABLE, fd),
            };
            pg_sys::AddWaitEventToSet(set, event, fd.as_raw_fd(), none.cast(), none);
        }
        let mut event = pg_sys::WaitEvent::default();
        pg_sys::WaitEventSetWait(set, -1, &mut event, 1, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::FreeWaitEventSet(set);
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
}

/// Waits until the time is over or a signal has set the latch. Ends this process if the server ends.
pub fn wait_for_latch(time: Duration) {
    // SAFETY: the latch is this backend's.
    unsafe {
        let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
        let millis = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        pg_sys::WaitLatch(pg_sys::MyLatch, events as i32, millis, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    check_for_interrupts();
}

/// Handles a pending cancel, timeout or termination: it takes effect here. So does a lack of memory.
pub fn check_for_interrupts() {
    if reserve::is_short() {
        out_of_memory();
    }
    pgrx::check_for_interrupts!();
}

#[cold]
fn out_of_memory() -> ! {
    Error::new(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, "out of memory")
        .hint("The server's machine, or a limit of its processes, has no more. Fewer or smaller statements at once need less.")
        .raise()
}

/// Makes the changes of this transaction so far visible to its next statements.
pub fn advance_command() {
    // SAFETY: inside a transaction, between statements of ours.
    unsafe { pg_sys::CommandCounterIncrement() }
}
