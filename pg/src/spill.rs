//! Temporary files that the processes of a parallel operation share. They lie in PostgreSQL's temporary tablespaces, count
//! for `temp_file_limit`, and go with the transaction of the process that made the set, however it ends.

use pgrx::pg_sys;
use std::ffi::CString;

/// `O_RDONLY` and `SEEK_SET` of POSIX.
const READ_ONLY: i32 = 0;
const FROM_START: i32 = 0;

/// A set of temporary files. Processes that [`SpillSet::join`] it see the files of all.
#[derive(Clone, Copy)]
pub struct SpillSet {
    segment: *mut pg_sys::dsm_segment,
    files: *mut pg_sys::SharedFileSet,
}

/// A file that is written. It is closed at the end of the transaction.
pub struct SpillWriter(*mut pg_sys::BufFile);

/// A file that another process, or this one, has finished. It is closed at the end of the transaction.
pub struct SpillReader(*mut pg_sys::BufFile);

/// A position in a file, which [`SpillWriter::place`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    segment: i32,
    offset: i64,
}

impl Place {
    /// As bytes that can be stored.
    pub fn to_bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&self.segment.to_ne_bytes());
        bytes[4..].copy_from_slice(&self.offset.to_ne_bytes());
        bytes
    }

    /// From the bytes of [`Place::to_bytes`].
    pub fn from_bytes(bytes: [u8; 12]) -> Place {
        let (segment, offset) = bytes.split_at(4);
        Place {
            segment: i32::from_ne_bytes(segment.try_into().expect("4 bytes")),
            offset: i64::from_ne_bytes(offset.try_into().expect("8 bytes")),
        }
    }
}

impl SpillSet {
    /// Makes an empty set, which belongs to this transaction.
    pub fn new() -> SpillSet {
        lasting(|| {
            // SAFETY: the segment has room for the set, and PostgreSQL maps it aligned for any type. It belongs to the
            // transaction's resource owner: at the transaction's end, or this process's, it is detached, which deletes the
            // files.
            unsafe {
                let segment = pg_sys::dsm_create(size_of::<pg_sys::SharedFileSet>(), 0);
                let files = pg_sys::dsm_segment_address(segment).cast::<pg_sys::SharedFileSet>();
                pg_sys::SharedFileSetInit(files, segment);
                SpillSet { segment, files }
            }
        })
    }

    /// What another process joins it by.
    pub fn handle(&self) -> u32 {
        // SAFETY: this process is attached to the segment.
        unsafe { pg_sys::dsm_segment_handle(self.segment) }
    }

    /// Joins the set of a process that waits for this one. Raises an error if it is gone.
    pub fn join(handle: u32) -> SpillSet {
        lasting(|| {
            // SAFETY: the handle is of a segment that `new` made, whose process lives until this one has ended.
            unsafe {
                let segment = pg_sys::dsm_attach(handle);
                if segment.is_null() {
                    pgrx::error!("the shared temporary files are gone");
                }
                SpillSet { segment, files: pg_sys::dsm_segment_address(segment).cast() }
            }
        })
    }

    /// Creates a file, whose name no other file of the set has.
    pub fn create(&self, name: &str) -> SpillWriter {
        let name = c_name(name);
        // SAFETY: the set lives in the segment, which is attached.
        lasting(|| unsafe { SpillWriter(pg_sys::BufFileCreateFileSet(&raw mut (*self.files).fs, name.as_ptr())) })
    }

    /// Opens a finished file, at its start. `None` if there is none of this name.
    pub fn open(&self, name: &str) -> Option<SpillReader> {
        let name = c_name(name);
        // SAFETY: as for `create`.
        let file = lasting(|| unsafe {
            pg_sys::BufFileOpenFileSet(&raw mut (*self.files).fs, name.as_ptr(), READ_ONLY, true)
        });
        (!file.is_null()).then_some(SpillReader(file))
    }

    /// Leaves the set. If this process made it, its files are deleted.
    pub fn close(self) {
        // SAFETY: this process is attached to the segment.
        unsafe { pg_sys::dsm_detach(self.segment) }
    }
}

impl Default for SpillSet {
    fn default() -> SpillSet {
        SpillSet::new()
    }
}

impl SpillWriter {
    /// Appends bytes. Raises PostgreSQL's errors: 53100 if the disk is full, 53400 beyond `temp_file_limit`.
    pub fn write(&mut self, bytes: &[u8]) {
        // SAFETY: PostgreSQL copies the bytes, and does not change them, although the older signature says so.
        unsafe { pg_sys::BufFileWrite(self.0, bytes.as_ptr().cast_mut().cast(), bytes.len()) }
    }

    /// Where the next bytes will be.
    pub fn place(&self) -> Place {
        let mut place = Place { segment: 0, offset: 0 };
        // SAFETY: both results are written.
        unsafe { pg_sys::BufFileTell(self.0, &raw mut place.segment, &raw mut place.offset) }
        place
    }

    /// Ends the file, so that it can be opened.
    pub fn finish(self) {
        // SAFETY: the file is open, and not used after this.
        unsafe {
            pg_sys::BufFileExportFileSet(self.0);
            pg_sys::BufFileClose(self.0);
        }
    }
}

impl SpillReader {
    /// Fills a buffer with the next bytes. False at the end of the file, if not a byte is left. Raises an error for a file
    /// that ends within the buffer.
    pub fn read(&mut self, bytes: &mut [u8]) -> bool {
        // SAFETY: the buffer has room for as many bytes.
        let read = unsafe { pg_sys::BufFileRead(self.0, bytes.as_mut_ptr().cast(), bytes.len()) };
        if read != bytes.len() && read != 0 {
            pgrx::error!("a temporary file ends too early");
        }
        read == bytes.len()
    }

    /// Goes to a place that the writer told.
    pub fn seek(&mut self, place: Place) {
        // SAFETY: the file is open.
        let failed = unsafe { pg_sys::BufFileSeek(self.0, place.segment, place.offset, FROM_START) };
        if failed != 0 {
            pgrx::error!("a temporary file has no such place");
        }
    }

    /// Closes the file.
    pub fn close(self) {
        // SAFETY: the file is open, and not used after this.
        unsafe { pg_sys::BufFileClose(self.0) }
    }
}

/// Runs `make` where what it makes lasts until the transaction ends, wherever it is called: within a query, memory and files
/// would go with the query.
fn lasting<T>(make: impl FnOnce() -> T) -> T {
    // SAFETY: both exist in every transaction. After an error PostgreSQL sets them anew.
    unsafe {
        let owner = pg_sys::CurrentResourceOwner;
        let memory = pg_sys::MemoryContextSwitchTo(pg_sys::TopTransactionContext);
        pg_sys::CurrentResourceOwner = pg_sys::TopTransactionResourceOwner;
        let made = make();
        pg_sys::CurrentResourceOwner = owner;
        pg_sys::MemoryContextSwitchTo(memory);
        made
    }
}

fn c_name(name: &str) -> CString {
    CString::new(name).expect("a name without NUL")
}
