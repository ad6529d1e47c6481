//! Locks that a session holds until it gives them up, a transaction of it fails, or it ends, however it ends; or until
//! its transaction ends. SQL has no way to take or to release them, as it has for advisory ones.

use super::compat;
use pgrx::{pg_guard, pg_sys};
use std::cell::Cell;
use std::ffi::c_int;

thread_local! {
    /// Whether the end of this process gives up what it holds.
    static ENDS_CLEAN: Cell<bool> = const { Cell::new(false) };
}

/// What is locked: a number within an object of a catalogue or table.
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

    /// Takes the lock if nobody has it.
    pub fn try_take(self) -> bool {
        release_at_exit();
        // SAFETY: a valid tag; without waiting.
        let taken = unsafe { pg_sys::LockAcquire(&self.tag(), pg_sys::ExclusiveLock as i32, true, true) };
        taken == pg_sys::LockAcquireResult::LOCKACQUIRE_OK
    }

    /// Waits for the lock and keeps it until the transaction ends.
    pub fn wait_in_transaction(self) {
        // SAFETY: a valid tag, inside a transaction. Waiting can be cancelled, and deadlocks are found.
        unsafe { pg_sys::LockAcquire(&self.tag(), pg_sys::ExclusiveLock as i32, false, false) };
    }

    /// Takes the lock again after a transaction failed, which gives all of them up; false when somebody else was
    /// faster.
    pub fn keep(self) -> bool {
        compat::holds_lock(&self.tag(), pg_sys::ExclusiveLock) || self.try_take()
    }

    /// Gives the lock up, if it is held.
    pub fn release(self) {
        if compat::holds_lock(&self.tag(), pg_sys::ExclusiveLock) {
            // SAFETY: a valid tag, of a lock that is held.
            unsafe { pg_sys::LockRelease(&self.tag(), pg_sys::ExclusiveLock as i32, true) };
        }
    }

    /// Whether nobody has it; asking keeps nobody from taking it.
    pub fn is_free(self) -> bool {
        // SAFETY: a valid tag; counts holders and those who wait.
        unsafe { pg_sys::LockWaiterCount(&self.tag()) == 0 }
    }
}

/// Has this process give up its session locks when it ends. PostgreSQL does so only for advisory ones, and for others if a
/// transaction is open then: else the entry would stay in shared memory, with a process behind it that is no more.
fn release_at_exit() {
    if !ENDS_CLEAN.replace(true) {
        // SAFETY: the callback needs nothing that could be gone by then: it runs before those that were there first, the
        // server's own among them.
        unsafe { pg_sys::before_shmem_exit(Some(release_all), pg_sys::Datum::null()) }
    }
}

/// As `ShutdownPostgres`, which comes next, does with advisory locks.
#[pg_guard]
unsafe extern "C-unwind" fn release_all(_code: c_int, _argument: pg_sys::Datum) {
    // SAFETY: nothing runs any more in this process.
    unsafe {
        pg_sys::AbortOutOfAnyTransaction();
        pg_sys::LockReleaseAll(pg_sys::DEFAULT_LOCKMETHOD as pg_sys::LOCKMETHODID, true);
    }
}
