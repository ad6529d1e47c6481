//! Locks that a session holds until it gives them up, a transaction of it fails, or it ends, however it ends; or until
//! its transaction ends. SQL has no way to take or to release them, as it has for advisory ones.

use super::compat;
use pgrx::pg_sys;

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
