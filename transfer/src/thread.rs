//! A thread of its own for what waits for the network, and how it and its owner hear of each other.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow};
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// How many events wait to be taken. With those of a body, its taker may be away for some milliseconds without the
/// network having to wait for it.
const EVENTS: usize = 32;

/// The owner's end.
pub(crate) struct Thread<E> {
    events: Receiver<E>,
    wake: UnixStream,
}

/// The thread ended without a last event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gone;

impl<E: Send + 'static> Thread<E> {
    /// Starts one that runs none of the process's signal handlers.
    pub fn start(name: &str, work: impl FnOnce(&Hand<E>) + Send + 'static) -> io::Result<Thread<E>> {
        let (sender, events) = sync_channel(EVENTS);
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        waker.set_nonblocking(true)?;
        // The new thread inherits the mask of the one that makes it.
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let spawned = thread::Builder::new().name(name.into()).spawn(move || work(&Hand { sender, waker }));
        mask.thread_set_mask()?;
        spawned?;
        Ok(Thread { events, wake })
    }
}

impl<E> Thread<E> {
    /// Readable when there may be something new, and when the thread is over.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// What there is to take, without waiting.
    pub fn take(&mut self) -> Result<Option<E>, Gone> {
        // First the signal, then the channel: what comes in between is signalled again.
        self.hush();
        match self.events.try_recv() {
            Ok(event) => Ok(Some(event)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Gone),
        }
    }

    /// The next event, once it is there; `None` when it takes longer than so.
    pub fn wait(&self, time: Duration) -> Result<Option<E>, Gone> {
        match self.events.recv_timeout(time) {
            Ok(event) => Ok(Some(event)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Gone),
        }
    }

    /// Tells the thread that nobody wants more, and gives it some time to end.
    pub fn dismiss(&self, time: Duration) {
        let until = Instant::now() + time;
        let _ = self.wake.shutdown(Shutdown::Write);
        while !self.hush() {
            let left = until.saturating_duration_since(Instant::now());
            let mut wake = [PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
            if left.is_zero() || poll(&mut wake, timeout(left)) == Ok(0) {
                return;
            }
        }
    }

    /// Takes the signals off; true when the other end is closed.
    fn hush(&self) -> bool {
        let mut signals = [0; 64];
        loop {
            match (&self.wake).read(&mut signals) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }
}

/// The thread's end.
pub(crate) struct Hand<E> {
    sender: SyncSender<E>,
    waker: UnixStream,
}

impl<E> Hand<E> {
    /// Waits for room; false when nobody wants it any more.
    pub fn over(&self, event: E) -> bool {
        let taken = self.sender.send(event).is_ok();
        self.wake();
        taken
    }

    /// Has the owner look.
    pub fn wake(&self) {
        // A full pipe is a signal already.
        let _ = (&self.waker).write(&[1]);
    }

    /// Whether anybody still wants more.
    pub fn is_wanted(&self) -> bool {
        self.wait(Duration::ZERO)
    }

    /// Waits; false as soon as nobody wants more.
    pub fn wait(&self, time: Duration) -> bool {
        // Nothing is ever written at the other end: it becomes readable when that is closed.
        let mut other_end = [PollFd::new(self.waker.as_fd(), PollFlags::POLLIN)];
        poll(&mut other_end, timeout(time)) == Ok(0)
    }
}

/// In whole milliseconds, not less.
fn timeout(time: Duration) -> PollTimeout {
    PollTimeout::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(PollTimeout::MAX)
}
