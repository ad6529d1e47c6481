//! The feed's thread, the blocks that go to it, and the events that come from it.

use crate::chunk::Chunk;
use crate::failure::Failure;
use crate::maker::{Maker, Plan};
use crate::pace::Pace;
use fhir_bulk_codec::gzip;
use fhir_bulk_codec::ndjson::{Position, ReadError};
use fhir_bulk_thread::{Hand, Thread};
use std::cell::RefCell;
use std::io::{self, Read};
use std::mem::take;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

/// How many blocks may wait to be read, and how many chunks to be taken. The backend writes a chunk's rows before it gives
/// more blocks: blocks of 64 kB are enough for one or two chunks.
const BLOCKS: usize = 32;
const CHUNKS: usize = 2;
/// How many bytes of a compressed source are read at once.
const READ_BYTES: usize = 256 << 10;

/// How often a thread that waits for its source checks whether the feed was dropped.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long Drop waits for the thread to end. A thread with a huge line or a hanging file is then left to end by itself.
const GRACE: Duration = Duration::from_millis(200);

/// An event of a feed.
#[derive(Debug)]
pub enum Event {
    /// The next lines.
    Lines(Chunk),
    /// There are no more lines; the position after the last one.
    End(Position),
    /// The source failed.
    Failed(Failure),
}

/// The source of a feed's bytes.
pub enum Source {
    /// The thread reads them, without waiting long.
    Reader(Box<dyn Read + Send>),
    /// The thread waits for them. Lines that have come so far are passed on meanwhile.
    Blocks(Box<dyn Blocks + Send>),
    /// The backend [gives](Feed::give) them, or [what the thread reads](Feed::give_rest) after some.
    Given,
}

/// Bytes that arrive over time.
pub trait Blocks {
    /// Waits for the next block for at most `wait`. An empty block is the end; `None` means that none has come yet.
    ///
    /// # Errors
    /// The source failed.
    fn next(&mut self, wait: Duration) -> Option<io::Result<Vec<u8>>>;

    /// Takes the memory of a block that has been read, for reuse.
    fn reuse(&mut self, _block: Vec<u8>) {}
}

/// Makes rows of a source on a thread. Drop ends the thread at the next block or chunk, and waits a short time for that, so
/// that its memory is free for the next feed.
pub struct Feed {
    given: Option<SyncSender<Given>>,
    /// A block for which there was no room.
    held: Option<Given>,
    /// Whether no more blocks are needed.
    at_end: bool,
    pace: Pace,
    /// Chunks whose lines the backend has taken, for their memory: new memory costs more than what is written to it.
    used: SyncSender<Chunk>,
    thread: Thread<Event>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.pace.end();
        // Who waits for a block is told that none will come.
        self.given = None;
        self.thread.dismiss(GRACE);
    }
}

impl Feed {
    /// Starts the thread.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(plan: Plan, source: Source) -> io::Result<Feed> {
        let at_end = !matches!(source, Source::Given);
        let (given, to_read) = sync_channel(BLOCKS);
        let (used, unused) = sync_channel(CHUNKS);
        let pace = Pace::default();
        let pace_of_thread = pace.clone();
        let thread = Thread::start("fhir_bulk feed", CHUNKS, move |hand| {
            let outlet = Rc::new(Outlet { chunk: RefCell::default(), unused, hand, pace: pace_of_thread });
            let arriving = |blocks: Box<dyn Blocks>| Arriving::new(blocks, outlet.clone());
            let source: Box<dyn Read> = match source {
                Source::Reader(reader) => reader,
                Source::Blocks(blocks) => Box::new(arriving(blocks)),
                Source::Given => {
                    let given = GivenBlocks { given: to_read, rest: None, outlet: outlet.clone() };
                    Box::new(arriving(Box::new(given)))
                }
            };
            let last = match run(plan, source, &outlet) {
                Ok(end) => Event::End(end),
                Err(failure) => Event::Failed(failure),
            };
            outlet.hand.over(last);
        })?;
        Ok(Feed { given: Some(given), held: None, at_end, pace, used, thread })
    }

    /// Controls how far the thread runs ahead.
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Whether the next block of the source is needed, and there is room for it.
    pub fn has_room(&mut self) -> bool {
        if let (Some(held), Some(given)) = (self.held.take(), &self.given)
            // The thread has ended: its last event has the reason.
            && let Err(TrySendError::Full(held)) = given.try_send(held)
        {
            self.held = Some(held);
        }
        self.held.is_none() && !self.at_end
    }

    /// Gives the next block of the source, or its error; an empty block is the end. There must be room.
    pub fn give(&mut self, block: io::Result<Vec<u8>>) {
        self.at_end = block.as_ref().map_or(true, Vec::is_empty);
        self.held = Some(Given::Block(block));
        self.has_room();
    }

    /// Gives what the thread reads itself after the blocks so far. There must be room.
    pub fn give_rest(&mut self, rest: Box<dyn Blocks + Send>) {
        self.at_end = true;
        self.held = Some(Given::Rest(rest));
        self.has_room();
    }

    /// Gives back a chunk whose lines are taken.
    pub fn reuse(&self, chunk: Chunk) {
        // One more than are in use is not kept.
        let _ = self.used.try_send(chunk);
    }

    /// Becomes readable when [`Feed::take`] may have an event, or [`Feed::has_room`] may have become true.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.thread.wake_fd()
    }

    /// Takes the next event, without waiting.
    pub fn take(&mut self) -> Option<Event> {
        let event = self.thread.take().unwrap_or(Some(Event::Failed(Failure::Lost)));
        if event.is_none() {
            self.pace.ask();
        }
        event
    }
}

fn run(plan: Plan, source: Box<dyn Read>, outlet: &Outlet) -> Result<Position, Failure> {
    outlet.pace.wait();
    let hand = &outlet.hand;
    let source = gzip::Reader::new(Wanted { source, hand }, READ_BYTES)
        .map_err(|error| Failure::Source { error: ReadError::Io(error), line: 1 })?;
    // A few compressed bytes may become many.
    let mut maker = Maker::new(plan, Wanted { source, hand })?;
    loop {
        // Not borrowed while lines are read: a source that waits for bytes must pass on the lines so far.
        let made = maker.take_line(&outlet.chunk);
        let go_on = matches!(made, Ok(true));
        if (!go_on || outlet.chunk.borrow().is_full()) && !outlet.flush() {
            return Ok(Position::default());
        }
        if !go_on {
            return made.map(|_| maker.position());
        }
        if outlet.chunk.borrow().is_empty() {
            outlet.pace.wait();
        }
    }
}

/// The thread's side of the events.
struct Outlet {
    /// The chunk that has not been passed on yet.
    chunk: RefCell<Chunk>,
    /// Chunks that come back.
    unused: Receiver<Chunk>,
    hand: Hand<Event>,
    pace: Pace,
}

impl Outlet {
    /// Passes on the chunk when there is room. Returns false if the feed was dropped.
    fn flush(&self) -> bool {
        if self.chunk.borrow().is_empty() {
            return true;
        }
        let mut next = self.unused.try_recv().unwrap_or_default();
        next.clear();
        let chunk = self.chunk.replace(next);
        self.pace.answer();
        self.hand.over(Event::Lines(chunk))
    }
}

/// What the backend gives.
enum Given {
    Block(io::Result<Vec<u8>>),
    Rest(Box<dyn Blocks + Send>),
}

/// The blocks that the backend gives. The backend gets a signal when one is taken.
struct GivenBlocks {
    given: Receiver<Given>,
    rest: Option<Box<dyn Blocks + Send>>,
    outlet: Rc<Outlet>,
}

impl Blocks for GivenBlocks {
    fn next(&mut self, wait: Duration) -> Option<io::Result<Vec<u8>>> {
        if let Some(rest) = &mut self.rest {
            return rest.next(wait);
        }
        let block = match self.given.recv_timeout(wait) {
            Ok(Given::Block(block)) => block,
            Ok(Given::Rest(rest)) => return self.rest.insert(rest).next(wait),
            Err(RecvTimeoutError::Timeout) => return None,
            Err(error) => Err(io::Error::other(error)),
        };
        self.outlet.hand.wake();
        Some(block)
    }

    fn reuse(&mut self, block: Vec<u8>) {
        if let Some(rest) = &mut self.rest {
            rest.reuse(block);
        }
    }
}

/// A source whose blocks arrive over time, as a reader.
struct Arriving {
    blocks: Box<dyn Blocks>,
    outlet: Rc<Outlet>,
    block: Vec<u8>,
    /// How many bytes of `block` have been read.
    at: usize,
    at_end: bool,
}

impl Arriving {
    fn new(blocks: Box<dyn Blocks>, outlet: Rc<Outlet>) -> Arriving {
        Arriving { blocks, outlet, block: Vec::new(), at: 0, at_end: false }
    }

    fn next(&mut self) -> io::Result<Vec<u8>> {
        if let Some(block) = self.blocks.next(Duration::ZERO) {
            return block;
        }
        // Pass on the lines that a slow source has sent so far.
        self.outlet.flush();
        while self.outlet.hand.is_wanted() {
            if let Some(block) = self.blocks.next(LOOK_EVERY) {
                return block;
            }
        }
        Err(unwanted())
    }
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.block.len() && !self.at_end {
            self.blocks.reuse(take(&mut self.block));
            self.block = self.next()?;
            self.at = 0;
            self.at_end = self.block.is_empty();
        }
        let count = buffer.len().min(self.block.len() - self.at);
        buffer[..count].copy_from_slice(&self.block[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

fn unwanted() -> io::Error {
    io::Error::other("the feed was dropped")
}

/// A source that returns an error once the feed is dropped.
struct Wanted<'a, R> {
    source: R,
    hand: &'a Hand<Event>,
}

impl<R: Read> Read for Wanted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.hand.is_wanted() {
            return Err(unwanted());
        }
        self.source.read(buffer)
    }
}
