//! A thread of its own for what takes its time, and how it and its owner hear of each other.
//!
//! The owner [takes](Thread::take) what the thread [hands over](Hand::over), through a bounded channel. It never waits
//! inside: [`Thread::wake_fd`] becomes readable when there is something to take, which a backend waits for together with
//! its latch. The thread knows [whether anybody still wants more](Hand::is_wanted).
#![forbid(unsafe_code)]

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow};
use std::hint::black_box;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// As much as a backend's own stack.
const STACK_BYTES: usize = 8 << 20;
/// More than a thread takes before its work begins.
const FIRST_BYTES: usize = 512 << 10;

/// The owner's end. Dropped, it tells the thread that nobody wants more, and does not wait for it.
pub struct Thread<E> {
    events: Receiver<E>,
    wake: UnixStream,
    thread: Option<JoinHandle<()>>,
}

/// The thread is over, without a last event or after it.
#[derive(Clone, Copy, Debug)]
pub struct Gone;

impl<E: Send + 'static> Thread<E> {
    /// Starts one that runs none of the process's signal handlers, and runs ahead of its owner by so many events.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn start(name: &str, events: usize, work: impl FnOnce(Hand<E>) + Send + 'static) -> io::Result<Thread<E>> {
        let (sender, events) = sync_channel(events);
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        waker.set_nonblocking(true)?;
        // The new thread inherits the mask of the one that makes it.
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        // glibc ends the process when there is no memory to note what a new thread frees at its end. So there is some, held
        // back while the thread is made, and nobody else takes it before the thread has had its share.
        let (begun, begins) = sync_channel::<()>(1);
        let mut held = Vec::<u8>::new();
        let spawned =
            held.try_reserve_exact(FIRST_BYTES).map_err(|_| io::ErrorKind::OutOfMemory.into()).and_then(|()| {
                black_box(&mut held);
                Builder::new().name(name.into()).stack_size(STACK_BYTES).spawn(move || {
                    drop(begun);
                    work(Hand { sender, waker });
                })
            });
        drop(held);
        // An end of the channel, for nothing is sent.
        let _ = begins.recv();
        mask.thread_set_mask()?;
        Ok(Thread { events, wake, thread: Some(spawned?) })
    }
}

impl<E> Thread<E> {
    /// Readable when there may be something new, and when the thread is over.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// What there is to take, without waiting.
    ///
    /// # Errors
    /// [`Gone`] when there will be nothing more.
    pub fn take(&mut self) -> Result<Option<E>, Gone> {
        // First the signal, then the channel: what comes in between is signalled again.
        let mut signals = [0; 64];
        while matches!((&self.wake).read(&mut signals), Ok(count) if count == signals.len()) {}
        match self.events.try_recv() {
            Ok(event) => Ok(Some(event)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Gone),
        }
    }

    /// The next event, once it is there; `None` when it takes longer than so.
    ///
    /// # Errors
    /// [`Gone`] when there will be none.
    pub fn wait(&self, time: Duration) -> Result<Option<E>, Gone> {
        match self.events.recv_timeout(time) {
            Ok(event) => Ok(Some(event)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Gone),
        }
    }

    /// Tells the thread that nobody wants more, and gives it some time to end. What it held is dropped then.
    pub fn dismiss(&mut self, time: Duration) {
        let until = Instant::now() + time;
        let _ = self.wake.shutdown(Shutdown::Write);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.wait(left) {
                // Who waits for room finds it.
                Ok(Some(_)) if !left.is_zero() => {}
                Ok(_) => return,
                Err(Gone) => break,
            }
        }
        if let Some(thread) = self.thread.take() {
            // It has nothing left to do. Of a panic its owner hears as [`Gone`].
            let _ = thread.join();
        }
    }
}

/// The thread's end.
pub struct Hand<E> {
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
        // In whole milliseconds, not less.
        let time = PollTimeout::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(PollTimeout::MAX);
        poll(&mut other_end, time) == Ok(0)
    }
}
