//! Adds pages to a table together. From 16 on PostgreSQL does that itself (`compat::add_pages`).

use nix::fcntl::{OFlag, posix_fallocate};
use pgrx::pg_sys;
use pgrx::{IntoDatum, direct_function_call};
use std::collections::VecDeque;
use std::ffi::CString;
use std::os::fd::BorrowedFd;

const MAIN: pg_sys::ForkNumber::Type = pg_sys::ForkNumber::MAIN_FORKNUM;

/// Adds up to `count` pages, at least one, and puts them behind `pinned`, pinned but not locked. They are zero, and other
/// sessions may find them.
///
/// # Safety
/// The table is open, locked for writing, and not temporary.
pub unsafe fn add_pages(table: pg_sys::Relation, count: usize, pinned: &mut VecDeque<pg_sys::Buffer>) {
    // Before the lock: whoever holds it may wait for no other, as a look at the catalogue might.
    // SAFETY: the caller's.
    let path = unsafe { path(table) };
    // SAFETY: the caller's. The lock makes this session the only one that adds pages. Buffers of pages beyond the end of the
    // file belong to nobody else; should the file not grow, PostgreSQL takes them, all zero, for what they are.
    unsafe {
        pg_sys::LockRelationForExtension(table, pg_sys::ExclusiveLock as i32);
        let end = pg_sys::RelationGetNumberOfBlocksInFork(table, MAIN);
        // PostgreSQL makes the files of a large table, with their first pages.
        let left = pg_sys::RELSEG_SIZE - end % pg_sys::RELSEG_SIZE;
        let count = if end > 0 && left == pg_sys::RELSEG_SIZE { 1 } else { count.min(left as usize) as u32 };
        let strategy = pg_sys::GetAccessStrategy(pg_sys::BufferAccessStrategyType::BAS_BULKWRITE);
        let read = |block, mode| pg_sys::ReadBufferExtended(table, MAIN, block, mode, strategy);
        let before = pinned.len();
        if let Some(path) = path.filter(|_| count > 1) {
            for block in end..end + count {
                let buffer = read(block, pg_sys::ReadBufferMode::RBM_ZERO_AND_LOCK);
                pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_UNLOCK as i32);
                pinned.push_back(buffer);
            }
            if !grow(path, end, count) {
                pinned.drain(before..).for_each(|buffer| pg_sys::ReleaseBuffer(buffer));
            }
        }
        if pinned.len() == before {
            // Says what is wrong, if something is.
            pinned.push_back(read(pg_sys::InvalidBlockNumber, pg_sys::ReadBufferMode::RBM_NORMAL));
        }
        pg_sys::FreeAccessStrategy(strategy);
        pg_sys::UnlockRelationForExtension(table, pg_sys::ExclusiveLock as i32);
    }
}

/// The path of a table's first file.
///
/// # Safety
/// The table is open.
unsafe fn path(table: pg_sys::Relation) -> Option<String> {
    // SAFETY: the caller's; the function takes an OID.
    unsafe { direct_function_call(pg_sys::pg_relation_filepath, &[(*table).rd_id.into_datum()]) }
}

/// Makes a table longer, whose first file has this path, and which ends with page `end`. Returns whether it has room now.
///
/// # Safety
/// The last file is there, and the new pages belong to it.
unsafe fn grow(path: String, end: pg_sys::BlockNumber, count: u32) -> bool {
    let path = match end / pg_sys::RELSEG_SIZE {
        0 => path,
        number => format!("{path}.{number}"),
    };
    let Ok(path) = CString::new(path) else { return false };
    // SAFETY: the descriptor is closed here, and at the end of the transaction after an error.
    unsafe {
        let file = pg_sys::OpenTransientFile(path.as_ptr(), OFlag::O_RDWR.bits());
        if file < 0 {
            return false;
        }
        let page = i64::from(pg_sys::BLCKSZ);
        let from = i64::from(end % pg_sys::RELSEG_SIZE) * page;
        let has_grown = posix_fallocate(BorrowedFd::borrow_raw(file), from, i64::from(count) * page).is_ok();
        pg_sys::CloseTransientFile(file);
        has_grown
    }
}
