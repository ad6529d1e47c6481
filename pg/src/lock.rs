//! Locks of a session or of a transaction. A session holds its lock until it releases the lock, one of its transactions
//! fails, or its process ends in any way. SQL cannot take or release these locks, as it can advisory locks.

use super::compat;
use pgrx::{pg_guard, pg_sys};
use std::cell::Cell;
use std::ffi::c_int;

thread_local! {
    /// Whether the end of this process releases its locks.
    static ENDS_CLEAN: Cell<bool> = const { Cell::new(false) };
}

/// The thing that is locked: a part of an object of a catalogue or table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The catalogue or table.
    pub class: pg_sys::Oid,
    /// The object.
    pub object: u32,
    /// The part of it.
    pub part: u16,
}

impl Key {
    fn tag(self) -> pg_sys::LOCKTAG {
        pg_sys::LOCKTAG {
            // SAFETY: set when the process connected to its database.
            locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
            locktag_field2: self.class.to_u32(),
            locktag_field3: self.object,
            locktag_field4: self.part,
            locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
            locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
        }
    }

    /// Takes the lock for the session if no other session has it; does not wait.
    pub fn try_take(self) -> bool {
        release_at_exit();
        // SAFETY: a valid tag; without waiting.
        let taken = unsafe { pg_sys::LockAcquire(&self.tag(), pg_sys::ExclusiveLock as i32, true, true) };
        taken == pg_sys::LockAcquireResult::LOCKACQUIRE_OK
    }

    /// Waits for the lock, and holds it until the transaction ends.
    pub fn wait_in_transaction(self) {
        // SAFETY: a valid tag, inside a transaction. The wait can be cancelled, and PostgreSQL detects deadlocks.
        unsafe { pg_sys::LockAcquire(&self.tag(), pg_sys::ExclusiveLock as i32, false, false) };
    }

    /// Takes the lock again after a failed transaction, which releases all locks. False if another session has taken it.
    pub fn keep(self) -> bool {
        compat::holds_lock(&self.tag(), pg_sys::ExclusiveLock) || self.try_take()
    }

    /// Releases the lock if this session holds it.
    pub fn release(self) {
        if compat::holds_lock(&self.tag(), pg_sys::ExclusiveLock) {
            // SAFETY: a valid tag, of a lock that is held.
            unsafe { pg_sys::LockRelease(&self.tag(), pg_sys::ExclusiveLock as i32, true) };
        }
    }

    /// Whether no session holds the lock or waits for it. The check does not block other sessions.
    pub fn is_free(self) -> bool {
        // SAFETY: a valid tag; the call counts holders and waiters.
        unsafe { pg_sys::LockWaiterCount(&self.tag()) == 0 }
    }
}

/// Releases this process's session locks when it ends. PostgreSQL itself releases only advisory locks then, and others only
/// if a transaction is open: otherwise the lock would stay in shared memory after its process has ended.
fn release_at_exit() {
    if !ENDS_CLEAN.replace(true) {
        // SAFETY: the callback runs before the callbacks that were registered earlier, such as the server's own. So
        // everything that it needs still exists.
        unsafe { pg_sys::before_shmem_exit(Some(release_all), pg_sys::Datum::null()) }
    }
}

/// Does what `ShutdownPostgres`, which runs next, does with advisory locks.
#[pg_guard]
unsafe extern "C-unwind" fn release_all(_code: c_int, _argument: pg_sys::Datum) {
    // SAFETY: nothing else runs in this process any more.
    unsafe {
        pg_sys::AbortOutOfAnyTransaction();
        pg_sys::LockReleaseAll(pg_sys::DEFAULT_LOCKMETHOD as pg_sys::LOCKMETHODID, true);
    }
}
