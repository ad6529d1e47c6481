//! Reads the messages of a COPY from a client's plain connection. It calls nothing of PostgreSQL, so any thread may read.
//!
//! A connection has no way back: bytes that were read cannot be returned to PostgreSQL. So nothing is read beyond the data's last
//! message. After a CopyData another message must follow, so its head is read together with the CopyData.

use nix::errno::Errno;
use nix::unistd::read;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The type of a message and its length.
const HEAD_BYTES: usize = 5;
/// libpq.h: the longest CopyData message, and the longest of small messages.
pub(super) const LONGEST_DATA: usize = 0x3fff_ffff - 1;
pub(super) const LONGEST_OTHER: usize = 10_000;
/// The field of a length counts itself.
const LENGTH_BYTES: usize = 4;

/// The result of a read from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// Bytes have been appended.
    Bytes,
    /// Nothing has come so far.
    Nothing,
    /// The client has ended the data.
    End,
}

/// Why the data ends early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The connection is lost, or out of step.
    Lost,
    /// The client aborts the data (CopyFail), for a reason in its own encoding.
    GivenUp(Vec<u8>),
    /// A message of a type that has no place in a COPY.
    Unexpected(u8),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Broken::Lost => "the connection is lost",
            Broken::GivenUp(_) => "the client has given up",
            Broken::Unexpected(_) => "the client has sent an unexpected message",
        })
    }
}

impl std::error::Error for Broken {}

/// The data of a COPY on a plain connection. Clones share it.
#[derive(Clone)]
pub struct Stream {
    messages: Arc<Mutex<Messages>>,
    socket: BorrowedFd<'static>,
}

/// Whether the connection is between two messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Between,
    /// The rest of a message has not come yet.
    Within,
    /// It cannot be known: a message had an impossible length.
    Unknown,
}

impl Stream {
    /// Data that begins with the next byte of a socket that does not wait.
    pub(super) fn new(socket: BorrowedFd<'static>) -> Stream {
        let (head, text) = ([0; HEAD_BYTES], Vec::new());
        let messages = Messages { socket, head, known: 0, message: None, text, state: State::Open };
        Stream { messages: Arc::new(Mutex::new(messages)), socket }
    }

    /// Becomes readable when [`Stream::take`] may have bytes.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket
    }

    /// Appends the bytes that have come to `out`, until it has `enough` bytes. Never waits.
    ///
    /// # Errors
    /// The data ends early.
    pub fn take(&mut self, out: &mut Vec<u8>, enough: usize) -> Result<Arrived, Broken> {
        self.messages().take(out, enough)
    }

    /// Reads the rest of a message that has begun, as far as it has come, and drops it. Later calls of [`Stream::take`] find the end.
    pub(super) fn end(&self) -> Step {
        self.messages().end()
    }

    fn messages(&self) -> MutexGuard<'_, Messages> {
        // A panic cannot leave a message half counted.
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Messages {
    socket: BorrowedFd<'static>,
    /// The head of the next message, of which so many bytes are known.
    head: [u8; HEAD_BYTES],
    known: usize,
    /// The message that has begun, once its head is known.
    message: Option<Message>,
    /// The content of a message other than CopyData.
    text: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy)]
struct Message {
    kind: u8,
    /// How many bytes of it are still to be read.
    left: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Nothing more is to be taken.
    Ended,
    /// The connection is lost.
    Lost,
    /// The connection is there, but not what a message on it begins with.
    OutOfStep,
}

impl Messages {
    fn take(&mut self, out: &mut Vec<u8>, enough: usize) -> Result<Arrived, Broken> {
        match self.state {
            State::Open => {}
            State::Ended => return Ok(Arrived::End),
            State::Lost | State::OutOfStep => return Err(Broken::Lost),
        }
        let before = out.len();
        let grow = enough.saturating_sub(before);
        // Without memory the data cannot go on; the client is told that the connection is lost.
        out.try_reserve(grow).map_err(|_| Broken::Lost)?;
        out.resize(before + grow, 0);
        let taken = self.fill(&mut out[before..]);
        out.truncate(before + *taken.as_ref().unwrap_or(&0));
        Ok(match (taken? > 0, self.state) {
            (true, _) => Arrived::Bytes,
            (false, State::Open) => Arrived::Nothing,
            (false, _) => Arrived::End,
        })
    }

    /// Reads data into `buffer` until it is full, or no more has come, or the data ends. Returns how many bytes it is.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Broken> {
        let mut filled = 0;
        while filled < buffer.len() && self.state == State::Open {
            let Some(Message { kind, left }) = self.message else {
                if !self.read_head()? {
                    break;
                }
                continue;
            };
            if kind == b'd' {
                let room = buffer.len() - filled;
                let Some(count) = self.read_data(&mut buffer[filled..], left.saturating_add(HEAD_BYTES).min(room))?
                else {
                    break;
                };
                filled += count;
            } else if !self.read_text(left)? {
                break;
            }
        }
        Ok(filled)
    }

    /// Reads so many bytes of a CopyData, and of the head that follows it. Returns how many are data; `None` if nothing has come.
    fn read_data(&mut self, buffer: &mut [u8], most: usize) -> Result<Option<usize>, Broken> {
        let Some(Message { kind, left }) = self.message else { return Ok(None) };
        let count = match left {
            0 => 0,
            _ => match self.receive(&mut buffer[..most])? {
                Some(count) => count,
                None => return Ok(None),
            },
        };
        let (data, next) = buffer[..count].split_at(count.min(left));
        self.head[..next.len()].copy_from_slice(next);
        self.known = next.len();
        self.message = (data.len() < left).then_some(Message { kind, left: left - data.len() });
        if self.known == HEAD_BYTES {
            self.begin_message()?;
        }
        Ok(Some(data.len()))
    }

    /// Reads the head of the next message. False if it has not come.
    fn read_head(&mut self) -> Result<bool, Broken> {
        let mut head = self.head;
        while self.known < HEAD_BYTES {
            let Some(count) = self.receive(&mut head[self.known..])? else {
                self.head = head;
                return Ok(false);
            };
            self.known += count;
        }
        self.head = head;
        self.begin_message()?;
        Ok(true)
    }

    fn begin_message(&mut self) -> Result<(), Broken> {
        let [kind, length @ ..] = self.head;
        let longest = if kind == b'd' { LONGEST_DATA } else { LONGEST_OTHER };
        let left = (u32::from_be_bytes(length) as usize).checked_sub(LENGTH_BYTES).filter(|left| *left <= longest);
        let Some(left) = left else {
            self.state = State::OutOfStep;
            return Err(Broken::Lost);
        };
        self.known = 0;
        self.message = Some(Message { kind, left });
        self.text.clear();
        Ok(())
    }

    /// Reads a message other than CopyData. False if the rest of it has not come.
    fn read_text(&mut self, mut left: usize) -> Result<bool, Broken> {
        let Some(Message { kind, .. }) = self.message else { return Ok(true) };
        let mut piece = [0; 1024];
        while left > 0 {
            let most = left.min(piece.len());
            let Some(count) = self.receive(&mut piece[..most])? else { return Ok(false) };
            self.text.extend_from_slice(&piece[..count]);
            left -= count;
            self.message = Some(Message { kind, left });
        }
        self.message = None;
        match kind {
            // Flush and Sync: a client in pipeline mode may send them at any time.
            b'H' | b'S' => return Ok(true),
            _ => self.state = State::Ended,
        }
        match kind {
            b'c' => Ok(true),
            b'f' => Err(Broken::GivenUp(std::mem::take(&mut self.text))),
            other => Err(Broken::Unexpected(other)),
        }
    }

    fn end(&mut self) -> Step {
        let done = self.drop_message();
        match (self.state, done) {
            (State::OutOfStep, _) => Step::Unknown,
            (State::Lost, _) | (_, Ok(true) | Err(_)) => Step::Between,
            (_, Ok(false)) => Step::Within,
        }
    }

    /// False if the rest of the message has not come.
    fn drop_message(&mut self) -> Result<bool, Broken> {
        if self.state == State::Open {
            self.state = State::Ended;
        }
        if self.known > 0 && !self.read_head()? {
            return Ok(false);
        }
        let mut piece = [0; 8192];
        while let Some(Message { kind, left }) = self.message.filter(|message| message.left > 0) {
            let most = left.min(piece.len());
            let Some(count) = self.receive(&mut piece[..most])? else { return Ok(false) };
            self.message = Some(Message { kind, left: left - count });
        }
        self.message = None;
        Ok(true)
    }

    /// Reads what has come, at most a bufferful; `None` if nothing has.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, Broken> {
        loop {
            match read(self.socket, buffer) {
                Ok(count @ 1..) => return Ok(Some(count)),
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => {}
                Ok(0) | Err(_) => {
                    self.state = State::Lost;
                    return Err(Broken::Lost);
                }
            }
        }
    }
}
