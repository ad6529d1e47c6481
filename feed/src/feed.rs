//! The thread, and what goes to it and comes from it.

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

/// How many blocks of the source wait to be read, and how many chunks to be taken. Who gives blocks writes a chunk's
/// rows in between: blocks of 64 kB are enough for a chunk or two.
const BLOCKS: usize = 32;
const CHUNKS: usize = 2;
/// How much of a compressed source is read at once.
const READ_BYTES: usize = 256 << 10;

/// How often a thread that waits for its source looks whether anybody still wants it.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long a feed that nobody wants any more may take to end; a huge line or a file that hangs is left alone then.
const GRACE: Duration = Duration::from_millis(200);

/// What a feed has to hand over.
#[derive(Debug)]
pub enum Event {
    /// The next lines.
    Lines(Chunk),
    /// There are no more; how far the last ones reached.
    End(Position),
    /// There is no more to be had.
    Failed(Failure),
}

/// Where a feed's bytes come from.
pub enum Source {
    /// The thread reads them, without waiting long.
    Reader(Box<dyn Read + Send>),
    /// The thread waits for them; what has come so far is not kept back meanwhile.
    Blocks(Box<dyn Blocks + Send>),
    /// They are [given](Feed::give) by who takes the rows.
    Given,
}

/// Bytes that come when they come.
pub trait Blocks {
    /// Waits for the next ones, none at their end, for at most so long; `None` when they have yet to come.
    ///
    /// # Errors
    /// Why there are no more.
    fn next(&mut self, wait: Duration) -> Option<io::Result<Vec<u8>>>;

    /// Takes back the memory of one that is read.
    fn reuse(&mut self, _block: Vec<u8>) {}
}

/// A source on its way into rows. Dropped, it ends its thread at the next block or chunk, and waits for that if it does
/// not take long, so that the next feed finds its memory free.
pub struct Feed {
    blocks: Option<SyncSender<io::Result<Vec<u8>>>>,
    /// One that found no room.
    held: Option<io::Result<Vec<u8>>>,
    /// No more blocks are wanted.
    at_end: bool,
    pace: Pace,
    thread: Thread<Event>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.pace.end();
        // Who waits for a block is told that none will come.
        self.blocks = None;
        self.thread.dismiss(GRACE);
    }
}

impl Feed {
    /// Starts the thread.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn start(plan: Plan, source: Source) -> io::Result<Feed> {
        let at_end = !matches!(source, Source::Given);
        let (blocks, to_read) = sync_channel(BLOCKS);
        let pace = Pace::default();
        let pace_of_thread = pace.clone();
        let thread = Thread::start("fhir_bulk feed", CHUNKS, move |hand| {
            let outlet = Rc::new(Outlet { chunk: RefCell::default(), hand, pace: pace_of_thread });
            let arriving = |blocks: Box<dyn Blocks>| Arriving::new(blocks, outlet.clone());
            let source: Box<dyn Read> = match source {
                Source::Reader(reader) => reader,
                Source::Blocks(blocks) => Box::new(arriving(blocks)),
                Source::Given => Box::new(arriving(Box::new(Given { blocks: to_read, outlet: outlet.clone() }))),
            };
            let last = match run(plan, source, &outlet) {
                Ok(end) => Event::End(end),
                Err(failure) => Event::Failed(failure),
            };
            outlet.hand.over(last);
        })?;
        Ok(Feed { blocks: Some(blocks), held: None, at_end, pace, thread })
    }

    /// How far ahead the thread runs.
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Whether the next block of the source is wanted, and there is room for it.
    pub fn has_room(&mut self) -> bool {
        if let (Some(held), Some(blocks)) = (self.held.take(), &self.blocks)
            // A thread that has ended says why.
            && let Err(TrySendError::Full(block)) = blocks.try_send(held)
        {
            self.held = Some(block);
        }
        self.held.is_none() && !self.at_end
    }

    /// Gives the next block of the source, or why there is none; an empty one is its end. Only when there is room.
    pub fn give(&mut self, block: io::Result<Vec<u8>>) {
        self.at_end = block.as_ref().map_or(true, Vec::is_empty);
        self.held = Some(block);
        self.has_room();
    }

    /// Readable when [`Feed::take`] may have something or [`Feed::has_room`] may have become true.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.thread.wake_fd()
    }

    /// What there is to take, without waiting.
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
    // Little may come to much once it is decompressed.
    let mut maker = Maker::new(plan, Wanted { source, hand })?;
    loop {
        // Not held while lines are read: who waits for the source hands over what there is.
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

/// The thread's end of the events.
struct Outlet {
    /// What is made and not yet handed over.
    chunk: RefCell<Chunk>,
    hand: Hand<Event>,
    pace: Pace,
}

impl Outlet {
    /// Hands over what is made, when there is room; false when nobody wants it any more.
    fn flush(&self) -> bool {
        let chunk = self.chunk.take();
        if chunk.is_empty() {
            return true;
        }
        self.pace.answer();
        self.hand.over(Event::Lines(chunk))
    }
}

/// The blocks that the taker gives, who hears of each that is taken.
struct Given {
    blocks: Receiver<io::Result<Vec<u8>>>,
    outlet: Rc<Outlet>,
}

impl Blocks for Given {
    fn next(&mut self, wait: Duration) -> Option<io::Result<Vec<u8>>> {
        let block = match self.blocks.recv_timeout(wait) {
            Ok(block) => block,
            Err(RecvTimeoutError::Timeout) => return None,
            Err(error) => Err(io::Error::other(error)),
        };
        self.outlet.hand.wake();
        Some(block)
    }
}

/// A source, as its blocks come.
struct Arriving {
    blocks: Box<dyn Blocks>,
    outlet: Rc<Outlet>,
    block: Vec<u8>,
    /// How far `block` is read.
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
        // What a slow source has given so far is not kept back.
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
    io::Error::other("nobody wants more of it")
}

/// A source that ends with an error when nobody wants it any more.
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
