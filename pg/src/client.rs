//! The client's connection while a COPY runs: CopyData messages in and out, between which an interrupt takes effect.
//!
//! PostgreSQL's own COPY waits inside of a message read, where a cancel must wait too. Here nothing is read before its first
//! byte is there, and nothing is written that the connection does not take: what waits, waits for the latch as well.

use crate::compat;
use crate::error::{Error, Result};
use crate::memory::in_context;
use crate::session::{self, Waiting};
use crate::whole::call_for_client as call;
use pgrx::{PgSqlErrorCode, pg_sys};
use std::ffi::{CStr, c_char, c_int};
use std::os::fd::BorrowedFd;

/// libpq.h: the longest CopyData, and the longest of the messages that say little.
const LONGEST_DATA: c_int = 0x3fff_ffff - 1;
const LONGEST_OTHER: c_int = 10_000;
/// A message buffer larger than this is not kept.
const KEEP_BYTES: c_int = 1 << 20;
/// What libpq's functions return for a connection that is gone.
const EOF: c_int = -1;
/// The overall format (1: binary), one column, and its format: clients pass the bytes through as they are.
const ONE_STREAM_OF_BYTES: [u8; 5] = [1, 0, 1, 0, 1];

unsafe extern "C-unwind" {
    // libpq.h, which pgrx does not bind; called through `whole`, as they may raise.
    fn pq_startmsgread();
    fn pq_endmsgread();
    fn pq_getbyte_if_available(byte: *mut u8) -> c_int;
    fn pq_getmessage(message: *mut pg_sys::StringInfoData, longest: c_int) -> c_int;
}

/// Whether this session has a client that a COPY can speak with.
///
/// # Errors
/// 0A000 when it has none, as in a background worker.
fn check_client() -> Result<()> {
    // SAFETY: reads a global of this process.
    if unsafe { pg_sys::whereToSendOutput } == pg_sys::CommandDest::DestRemote {
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

/// What has come from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// Bytes, which were appended.
    Bytes,
    /// Nothing so far.
    Nothing,
    /// The client has said that there is no more.
    End,
}

/// A COPY from the client.
pub struct CopyIn {
    /// That of the statement, in which messages are read.
    context: pg_sys::MemoryContext,
    message: pg_sys::StringInfoData,
    /// How far the message is taken.
    taken: usize,
    /// The client knows that it is to send.
    is_asked: bool,
    at_end: bool,
}

impl CopyIn {
    /// Prepares to ask the client for its data, at the first [`CopyIn::take`]: what is found before that to be in the way, a
    /// client is told before it sends anything.
    ///
    /// # Errors
    /// 0A000 without a client.
    pub fn new() -> Result<CopyIn> {
        check_client()?;
        let mut message = pg_sys::StringInfoData::default();
        // SAFETY: an empty buffer of the current context, which lives as long as the statement.
        let context = unsafe {
            pg_sys::initStringInfo(&mut message);
            pg_sys::CurrentMemoryContext
        };
        Ok(CopyIn { context, message, taken: 0, is_asked: false, at_end: false })
    }

    /// Readable when [`CopyIn::take`] may have something.
    pub fn fd(&self) -> BorrowedFd<'_> {
        socket()
    }

    /// Appends what has come to `out`, until that has `enough` bytes; does not wait for the beginning of a message.
    ///
    /// # Errors
    /// 57014 when the client gives up (CopyFail), 08006 when it is gone, 08P01 for a message that has no place here.
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
            if self.at_end || !self.read_message()? {
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

    /// Reads the next message if its beginning is there; false when it is not, or the data has ended.
    fn read_message(&mut self) -> Result<bool> {
        let mut kind = 0u8;
        // SAFETY: a message is begun only to look; with no byte of it read, it is as well not begun, and an interrupt leaves
        // the connection as it is. A cancel waits until a message that is begun is whole, else the protocol were out of step;
        // PostgreSQL resets the count with every error.
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
            let longest = if kind == b'd' { LONGEST_DATA } else { LONGEST_OTHER };
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
            // Flush and Sync: what a client that pipelines may send at any time.
            b'H' | b'S' => {
                self.forget_message();
                return Ok(true);
            }
            b'f' => {
                let why = CStr::from_bytes_until_nul(self.bytes()).unwrap_or_default().to_string_lossy().into_owned();
                let message = format!("COPY from stdin failed: {why}");
                return Err(Error::new(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, message));
            }
            other => {
                return Err(Error::new(
                    PgSqlErrorCode::ERRCODE_PROTOCOL_VIOLATION,
                    format!("unexpected message type 0x{other:02X} during COPY from stdin"),
                ));
            }
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

    /// Sends bytes. Waits until the connection has taken them; an interrupt takes effect meanwhile.
    pub fn send(&mut self, bytes: &[u8]) {
        put_message(b'd', bytes);
        drain();
    }

    /// Says that there is no more.
    pub fn end(self) {
        put_message(b'c', &[]);
    }
}

/// Puts a message behind those that are to be sent.
fn put_message(kind: u8, bytes: &[u8]) {
    // SAFETY: the bytes are copied into a buffer that grows as it must.
    unsafe {
        let put = (*compat::PqCommMethods).putmessage_noblock;
        call(|| put(kind as c_char, bytes.as_ptr().cast(), bytes.len()));
    }
}

/// Sends what is to be sent.
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
        say_nothing_to_a_client_that_does_not_read();
        session::check_for_interrupts();
        session::wait(&[Waiting::Writable(socket())]);
    }
}

/// A process that is to end would wait for its client to read why, as `ProcessClientWriteInterrupt` (postgres.c) knows.
fn say_nothing_to_a_client_that_does_not_read() {
    // SAFETY: globals of this process, which has one thread that runs PostgreSQL.
    unsafe {
        if pg_sys::ProcDiePending != 0 {
            pg_sys::whereToSendOutput = pg_sys::CommandDest::DestNone;
        }
    }
}

/// The client's socket.
fn socket() -> BorrowedFd<'static> {
    // SAFETY: there is a client, so there is a port, whose socket is open as long as the process lives.
    unsafe { BorrowedFd::borrow_raw(compat::socket(pg_sys::MyProcPort)) }
}
