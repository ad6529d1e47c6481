//! Writes rows as lines on threads of their own, without PostgreSQL, while the backend reads the rows after them: what
//! `fhir_bulk_feed` does for loads, the other way round.
//!
//! The backend [gives](Drain::give) pieces of rows and [takes](Drain::take) their lines, in the same order. Where it would have to
//! wait, it can write some itself, and have the drain [keep](Drain::keep) them until their turn. Few pieces are under way, so that
//! memory does not depend on the table. No call waits: [`Drain::wake_fd`] becomes readable when there is something to take.
#![forbid(unsafe_code)]

mod piece;

pub use piece::{Failed, Piece, Why};

use fhir_bulk_codec::resource::Writer;
use fhir_bulk_thread::Thread;
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

/// How many pieces of each thread are under way. A busy system wakes a thread milliseconds late: until then there is work.
const AHEAD: usize = 8;
/// How many bytes of each thread may be under way before the next piece is given.
const AHEAD_BYTES: usize = AHEAD * piece::FULL_BYTES;
/// How long Drop waits for each thread to end. One with a huge row is then left to end by itself.
const GRACE: Duration = Duration::from_millis(200);

/// The threads.
pub struct Drain {
    threads: Vec<One>,
    /// Where the pieces are that were not taken yet, in their order.
    order: VecDeque<Place>,
    /// The bytes of those that threads have.
    bytes: usize,
}

enum Place {
    /// A thread has it.
    Thread(usize),
    /// It is done.
    Here(Piece),
}

struct One {
    to_write: Option<SyncSender<Piece>>,
    thread: Thread<Piece>,
    /// How many pieces it has.
    pieces: usize,
}

/// A thread has ended because of a bug.
#[derive(Clone, Copy, Debug)]
pub struct Lost;

impl Drain {
    /// Starts threads, as many as the system allows, each with a writer of its own.
    pub fn start(threads: usize, mut writer: impl FnMut() -> Writer) -> Drain {
        let started = (0..threads).map_while(|_| One::start(writer()));
        Drain { threads: started.collect(), order: VecDeque::new(), bytes: 0 }
    }

    /// How many there are.
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Whether a thread has room for another piece.
    pub fn has_room(&self) -> bool {
        self.bytes < self.threads.len() * AHEAD_BYTES && self.threads.iter().any(|one| one.pieces < AHEAD)
    }

    /// Whether no piece is left to be taken.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Gives rows, for which there must be room.
    pub fn give(&mut self, piece: Piece) {
        let threads = self.threads.iter_mut().enumerate();
        let Some((at, one)) = threads.min_by_key(|(_, one)| one.pieces) else { return };
        self.bytes += piece.bytes();
        one.pieces += 1;
        self.order.push_back(Place::Thread(at));
        if let Some(to_write) = &one.to_write {
            // A thread that is gone is noticed when its lines are to be taken.
            let _ = to_write.send(piece);
        }
    }

    /// Whether the owner may write a piece itself instead of waiting: few such pieces wait to be taken.
    pub fn may_keep(&self) -> bool {
        self.order.iter().filter(|place| matches!(place, Place::Here(_))).count() < AHEAD
    }

    /// Adds a piece whose lines the owner has written.
    pub fn keep(&mut self, piece: Piece) {
        self.order.push_back(Place::Here(piece));
    }

    /// Takes the piece that was added first, with its lines, if it is done.
    ///
    /// # Errors
    /// [`Lost`] if it never will be.
    pub fn take(&mut self) -> Result<Option<Piece>, Lost> {
        let at = match self.order.pop_front() {
            None => return Ok(None),
            Some(Place::Here(piece)) => return Ok(Some(piece)),
            Some(Place::Thread(at)) => at,
        };
        let one = &mut self.threads[at];
        let piece = one.thread.take().map_err(|_| Lost)?;
        match &piece {
            Some(piece) => {
                one.pieces -= 1;
                self.bytes -= piece.bytes();
            }
            None => self.order.push_front(Place::Thread(at)),
        }
        Ok(piece)
    }

    /// Becomes readable when [`Drain::take`] may have a piece; `None` if it has one already, or never will.
    pub fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        match self.order.front() {
            Some(Place::Thread(at)) => Some(self.threads[*at].thread.wake_fd()),
            Some(Place::Here(_)) | None => None,
        }
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.threads.iter_mut().for_each(|one| one.to_write = None);
        self.threads.iter_mut().for_each(|one| one.thread.dismiss(GRACE));
    }
}

impl One {
    fn start(writer: Writer) -> Option<One> {
        // There is always room: no more are under way.
        let (to_write, pieces) = sync_channel::<Piece>(AHEAD);
        let thread = Thread::start("fhir_bulk drain", AHEAD, move |hand| {
            while let Ok(mut piece) = pieces.recv() {
                piece.write(&writer);
                if !hand.over(piece) {
                    break;
                }
            }
        });
        Some(One { to_write: Some(to_write), thread: thread.ok()?, pieces: 0 })
    }
}
