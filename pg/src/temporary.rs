//! Temporary files of a transaction: in temp_tablespaces, within temp_file_limit, gone at its end.

use super::compat;
use pgrx::callbacks::{PgXactCallbackEvent, register_xact_callback};
use pgrx::pg_sys;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;

thread_local! {
    /// Those of the current transaction. PostgreSQL gives their numbers to other files later; ours are given once.
    static OPEN: RefCell<BTreeMap<u64, pg_sys::File>> = const { RefCell::new(BTreeMap::new()) };
    static CREATED: Cell<u64> = const { Cell::new(0) };
}

/// A file that whoever has it may write and read until the transaction ends; then every use of it is an error.
#[derive(Debug)]
pub struct TemporaryFile(u64);

impl TemporaryFile {
    /// An empty file of the current transaction, also when it is made in a subtransaction.
    pub fn create() -> TemporaryFile {
        if OPEN.with_borrow(BTreeMap::is_empty) {
            // PostgreSQL warns of files that a transaction leaves open when it commits; an abort closes them itself.
            register_xact_callback(PgXactCallbackEvent::PreCommit, close_all);
            register_xact_callback(PgXactCallbackEvent::PrePrepare, close_all);
            register_xact_callback(PgXactCallbackEvent::Abort, || OPEN.take().clear());
        }
        // SAFETY: inside a transaction, whose own resource owner lives to its end. An error of opening ends the
        // (sub)transaction, which sets the current owner anew.
        let file = unsafe {
            let owner = pg_sys::CurrentResourceOwner;
            pg_sys::CurrentResourceOwner = pg_sys::TopTransactionResourceOwner;
            pg_sys::PrepareTempTablespaces();
            let file = pg_sys::OpenTemporaryFile(false);
            pg_sys::CurrentResourceOwner = owner;
            file
        };
        let number = CREATED.replace(CREATED.get() + 1);
        OPEN.with_borrow_mut(|open| open.insert(number, file));
        TemporaryFile(number)
    }

    /// Whether the transaction that made it still runs.
    pub fn is_open(&self) -> bool {
        self.file().is_ok()
    }

    /// Writes all of `bytes` at an offset. Beyond temp_file_limit PostgreSQL's own error is raised.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (file, mut offset) = (self.file()?, position(offset)?);
        for piece in bytes.chunks(1 << 20) {
            // SAFETY: the file is open.
            let written = unsafe { compat::write_file(file, piece, offset) };
            match usize::try_from(written) {
                Ok(count) if count == piece.len() => offset += piece.len() as i64,
                Ok(_) => return Err(io::ErrorKind::StorageFull.into()),
                Err(_) => return Err(io::Error::last_os_error()),
            }
        }
        Ok(())
    }

    /// Reads some bytes at an offset; none at the end of the file.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let (file, offset) = (self.file()?, position(offset)?);
        let most = buffer.len().min(1 << 20);
        // SAFETY: the file is open.
        let read = unsafe { compat::read_file(file, &mut buffer[..most], offset) };
        usize::try_from(read).map_err(|_| io::Error::last_os_error())
    }

    /// Gives its space back before the transaction ends.
    pub fn close(&self) {
        if let Some(file) = OPEN.with_borrow_mut(|open| open.remove(&self.0)) {
            close(file);
        }
    }

    fn file(&self) -> io::Result<pg_sys::File> {
        let file = OPEN.with_borrow(|open| open.get(&self.0).copied());
        file.ok_or_else(|| io::Error::other("the transaction that the file belongs to has ended"))
    }
}

fn position(offset: u64) -> io::Result<i64> {
    i64::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

fn close_all() {
    OPEN.take().into_values().for_each(close);
}

fn close(file: pg_sys::File) {
    // SAFETY: a file of the current transaction that nobody has closed.
    unsafe { pg_sys::FileClose(file) }
}
