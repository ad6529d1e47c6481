//! Sends and receives CopyData messages on the client's connection while a COPY runs. Between messages an interrupt takes
//! effect.
//!
//! PostgreSQL's own COPY waits inside the read of a message, and a cancel must wait with it. Here a read begins only when
//! the first byte has come, and a write only if the connection can take it. Every wait also waits for the latch.
//!
//! On a plain connection another thread can [read the data](Stream) while this one stores rows. PostgreSQL reads every other
//! connection, and all that it had in its buffer when the COPY began.

use crate::compat;
use crate::copy_data::{LONGEST_DATA, LONGEST_OTHER, Step};
use crate::error::{Error, Result};
use crate::memory::in_context;
use crate::session::{self, Waiting};
use crate::whole::call_for_client as call;
use pgrx::{PgSqlErrorCode, pg_sys};
use std::cell::OnceCell;
use std::ffi::{CStr, c_char, c_int};
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

pub use crate::copy_data::{Arrived, Broken, Stream};

/// A message buffer larger than this is not kept.
const KEEP_BYTES: c_int = 1 << 20;
/// The result of libpq's functions for a lost connection.
const EOF: c_int = -1;
/// The overall format (1: binary), one column, and its format: clients pass the bytes through as they are.
const ONE_STREAM_OF_BYTES: [u8; 5] = [1, 0, 1, 0, 1];

unsafe extern "C-unwind" {
    // libpq.h, which pgrx does not bind; called through `whole`, as they may raise.
    fn pq_startmsgread();
    fn pq_endmsgread();
    fn pq_getbyte_if_available(byte: *mut u8) -> c_int;
    fn pq_getmessage(message: *mut pg_sys::StringInfoData, longest: c_int) -> c_int;
    // pg_wchar.h.
    fn pg_client_to_server(text: *const c_char, length: c_int) -> *mut c_char;
}

/// Checks that this session has a client for a COPY.
///
/// # Errors
/// 0A000 if it has none, as in a background worker.
fn check_client() -> Result<()> {
    // SAFETY: reads a global of this process.
    if unsafe { pg_sys::whereToSendOutput == pg_sys::CommandDest::DestRemote && !pg_sys::MyProcPort.is_null() } {
        return Ok(());
    }
    Err(Error::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, "there is no client to copy from or to")
        .hint("In a background process, use bulk_load() and bulk_export(), or COPY with a file."))
}

fn lost() -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE,
        "unexpected EOF on client connection with an open transaction",
    )
}

/// The error for data that ends early.
pub fn failure(why: &Broken) -> Error {
    match why {
        Broken::Lost => lost(),
        Broken::GivenUp(reason) => {
            let message = format!("COPY from stdin failed: {}", in_our_encoding(reason));
            Error::new(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, message)
        }
        Broken::Unexpected(kind) => Error::new(
            PgSqlErrorCode::ERRCODE_PROTOCOL_VIOLATION,
            format!("unexpected message type 0x{kind:02X} during COPY from stdin"),
        ),
    }
}

/// A text in the client's encoding, up to its first NUL.
fn in_our_encoding(bytes: &[u8]) -> String {
    let text: Vec<u8> = bytes.iter().copied().take_while(|byte| *byte != 0).chain([0]).collect();
    // SAFETY: converts so many bytes into a palloc'd string, or returns them as they are if nothing is to convert; a NUL ends
    // both.
    let ours = unsafe { call(|| CStr::from_ptr(pg_client_to_server(text.as_ptr().cast(), text.len() as c_int - 1))) };
    ours.to_string_lossy().into_owned()
}

/// Runs `work` with the data of a COPY from the client. However `work` ends, the connection is between two messages afterwards.
/// Only a process that ends stops waiting for the rest of a message; a cancel waits with it.
///
/// # Errors
/// 0A000 without a client.
pub fn copy_in<T>(work: impl FnOnce(CopyIn) -> T) -> Result<T> {
    let copy = CopyIn::new()?;
    let stream = copy.stream.clone();
    let done = catch_unwind(AssertUnwindSafe(|| work(copy)));
    if let Some(stream) = stream.get() {
        if done.is_err() {
            // SAFETY: the transaction, or the savepoint, can only be rolled back now, which begins with this. Others must not wait
            // for these locks while this session waits for its client.
            unsafe { pg_sys::LWLockReleaseAll() };
        }
        finish_message(stream);
    }
    Ok(done.unwrap_or_else(|panic| resume_unwind(panic)))
}

fn finish_message(stream: &Stream) {
    loop {
        match stream.end() {
            Step::Between => return,
            Step::Within => {}
            Step::Unknown => {
                // SAFETY: sets a flag of the connection. PostgreSQL ends a session that reads on while it is set.
                unsafe { pq_startmsgread() };
                return;
            }
        }
        hold_cancel(session::check_for_interrupts);
        session::wait(&[Waiting::Readable(socket())]);
    }
}

/// A COPY from the client.
pub struct CopyIn {
    /// The statement's context, for messages.
    context: pg_sys::MemoryContext,
    message: pg_sys::StringInfoData,
    /// How many bytes of the message have been taken.
    taken: usize,
    /// Whether the client has been asked for its data.
    is_asked: bool,
    at_end: bool,
    /// The rest of the data, once another thread reads it.
    stream: Rc<OnceCell<Stream>>,
}

impl CopyIn {
    /// Prepares to ask the client for its data at the first [`CopyIn::take`]. So an error before that reaches the client
    /// before it sends data.
    fn new() -> Result<CopyIn> {
        check_client()?;
        let mut message = pg_sys::StringInfoData::default();
        // SAFETY: an empty buffer of the current context, which lives as long as the statement.
        let context = unsafe {
            pg_sys::initStringInfo(&mut message);
            pg_sys::CurrentMemoryContext
        };
        Ok(CopyIn { context, message, taken: 0, is_asked: false, at_end: false, stream: Rc::default() })
    }

    /// The rest of the data, for another thread to read. `None` if PostgreSQL must read on: the connection is encrypted, or its
    /// next bytes are in PostgreSQL's buffer. After `Some` nothing else may be called.
    pub fn rest(&mut self) -> Option<Stream> {
        self.has_rest().then(|| self.stream.get_or_init(|| Stream::new(socket())).clone())
    }

    fn has_rest(&self) -> bool {
        let is_between = self.is_asked && !self.at_end && self.taken == self.bytes().len();
        is_between && !is_encrypted() && !compat::has_buffered_bytes()
    }

    /// Becomes readable when [`CopyIn::take`] may have bytes.
    pub fn fd(&self) -> BorrowedFd<'_> {
        socket()
    }

    /// Appends the bytes that have come to `out`, until it has `enough` bytes, or there is a [`CopyIn::rest`]. Does not wait for the
    /// beginning of a message.
    ///
    /// # Errors
    /// 57014 if the client aborts the data (CopyFail), 08006 if the connection is lost, 08P01 for an unexpected message.
    pub fn take(&mut self, out: &mut Vec<u8>, enough: usize) -> Result<Arrived> {
        if !std::mem::replace(&mut self.is_asked, true) {
            put_message(b'G', &ONE_STREAM_OF_BYTES);
            drain();
        }
        let before = out.len();
        while out.len() < enough {
            let left = &self.bytes()[self.taken..];
            if !left.is_empty() {
                let count = left.len().min(enough - out.len());
                let reserved = out.try_reserve(count);
                reserved.map_err(|_| Error::new(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, "out of memory"))?;
                out.extend_from_slice(&self.bytes()[self.taken..self.taken + count]);
                self.taken += count;
                continue;
            }
            self.forget_message();
            if self.at_end || self.has_rest() || !self.read_message()? {
                break;
            }
        }
        Ok(match (out.len() > before, self.at_end) {
            (true, _) => Arrived::Bytes,
            (false, true) => Arrived::End,
            (false, false) => Arrived::Nothing,
        })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: a string info has `len` bytes.
        unsafe { std::slice::from_raw_parts(self.message.data.cast(), self.message.len as usize) }
    }

    fn forget_message(&mut self) {
        (self.message.len, self.taken) = (0, 0);
        if self.message.maxlen > KEEP_BYTES {
            // SAFETY: its own memory, palloc'd; the context is live.
            unsafe {
                pg_sys::pfree(self.message.data.cast());
                in_context(self.context, || pg_sys::initStringInfo(&mut self.message));
            }
        }
    }

    /// Reads the next message if its first byte has come. False if it has not, or if the data has ended.
    fn read_message(&mut self) -> Result<bool> {
        let mut kind = 0u8;
        // SAFETY: pq_startmsgread and pq_endmsgread frame the look: if no byte is read, an interrupt leaves the connection
        // unchanged. Once a message has begun, a cancel waits until it is complete, or the protocol would lose
        // synchronization; PostgreSQL resets this count with every error.
        unsafe {
            let found = call(|| {
                pq_startmsgread();
                let found = pq_getbyte_if_available(&mut kind);
                if found == 0 {
                    pq_endmsgread();
                }
                found
            });
            match found {
                0 => return Ok(false),
                EOF => return Err(lost()),
                _ => {}
            }
            let longest = if kind == b'd' { LONGEST_DATA } else { LONGEST_OTHER } as c_int;
            pg_sys::QueryCancelHoldoffCount += 1;
            let message = &raw mut self.message;
            let read = call(|| pq_getmessage(message, longest));
            pg_sys::QueryCancelHoldoffCount -= 1;
            if read == EOF {
                return Err(lost());
            }
        }
        match kind {
            b'd' => return Ok(true),
            b'c' => self.at_end = true,
            // Flush and Sync: a client in pipeline mode may send them at any time.
            b'H' | b'S' => {
                self.forget_message();
                return Ok(true);
            }
            b'f' => return Err(failure(&Broken::GivenUp(self.bytes().to_vec()))),
            other => return Err(failure(&Broken::Unexpected(other))),
        }
        self.forget_message();
        Ok(false)
    }
}

/// A COPY to the client.
pub struct CopyOut(());

impl CopyOut {
    /// Announces the data.
    ///
    /// # Errors
    /// 0A000 without a client.
    pub fn begin() -> Result<CopyOut> {
        check_client()?;
        put_message(b'H', &ONE_STREAM_OF_BYTES);
        Ok(CopyOut(()))
    }

    /// Sends bytes, and waits until the connection has taken them. An interrupt takes effect meanwhile.
    pub fn send(&mut self, bytes: &[u8]) {
        put_message(b'd', bytes);
        drain();
    }

    /// Ends the data.
    pub fn end(self) {
        put_message(b'c', &[]);
    }
}

/// Adds a message to the send buffer.
fn put_message(kind: u8, bytes: &[u8]) {
    // SAFETY: the bytes are copied into a buffer that grows as it must.
    unsafe {
        let put = (*compat::PqCommMethods).putmessage_noblock;
        call(|| put(kind as c_char, bytes.as_ptr().cast(), bytes.len()));
    }
}

/// Sends the send buffer.
fn drain() {
    loop {
        // SAFETY: a connection that is lost is an interrupt.
        let waits = unsafe {
            let methods = &*compat::PqCommMethods;
            call(|| (methods.flush_if_writable)());
            call(|| (methods.is_send_pending)())
        };
        if !waits {
            session::check_for_interrupts();
            return;
        }
        let_end_take_effect();
        session::wait(&[Waiting::Writable(socket())]);
    }
}

/// Lets a terminate take effect while the client does not read, but no cancel. A cancel raises an error, and its report would wait
/// for the client, inside the transaction; then even a terminate would have to wait. So the cancel takes effect when the client has
/// read the data. A process that terminates reports nothing, as in `ProcessClientWriteInterrupt` (postgres.c).
fn let_end_take_effect() {
    // SAFETY: globals of this process, which has one thread that runs PostgreSQL.
    unsafe {
        if pg_sys::ProcDiePending != 0 {
            pg_sys::whereToSendOutput = pg_sys::CommandDest::DestNone;
        }
    }
    hold_cancel(session::check_for_interrupts);
}

/// Runs `work`, in which a cancel does not take effect.
fn hold_cancel(work: impl FnOnce()) {
    // SAFETY: a global of this process, which has one thread that runs PostgreSQL. An error resets the count.
    unsafe {
        pg_sys::QueryCancelHoldoffCount += 1;
        work();
        pg_sys::QueryCancelHoldoffCount -= 1;
    }
}

/// Whether the client's bytes are encrypted, or may be.
fn is_encrypted() -> bool {
    // SAFETY: this process's own entry, which says since authentication how its client is connected; with GSS it may be either.
    unsafe { pg_sys::MyBEEntry.as_ref().is_none_or(|entry| entry.st_ssl || entry.st_gss) }
}

/// The client's socket.
fn socket() -> BorrowedFd<'static> {
    // SAFETY: there is a client, so there is a port. Its socket is open as long as the process lives.
    unsafe { BorrowedFd::borrow_raw(compat::socket(pg_sys::MyProcPort)) }
}
