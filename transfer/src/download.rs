//! One download: a thread of its own that hands the body over.

use crate::body::Body;
use crate::error::{Failure, TransferError};
use crate::request::{Client, Response, parse};
use crate::s3::{self, Object};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow};
use std::borrow::Cow;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;
use url::Url;

/// How many pieces of a body wait to be taken.
const PIECES: usize = 8;

/// Where a body is.
#[derive(Clone, Debug)]
pub enum Origin {
    /// At a URL.
    Url(Url),
    /// In an S3 service.
    Object(Object),
}

impl Origin {
    /// An http or https URL.
    ///
    /// # Errors
    /// What is none, or has a user or password.
    pub fn url(text: &str) -> Result<Origin, TransferError> {
        parse(text).map(Origin::Url)
    }

    /// What to ask for now.
    pub(crate) fn request(&self) -> Cow<'_, Url> {
        match self {
            Origin::Url(url) => Cow::Borrowed(url),
            Origin::Object(object) => Cow::Owned(object.get()),
        }
    }

    /// What an answer that is not the body means.
    pub(crate) fn failure(&self, response: Response) -> Failure {
        match self {
            Origin::Url(_) => Failure::of_status(response.status(), response.headers()),
            Origin::Object(_) => s3::failure(response),
        }
    }
}

/// What a download has to hand over.
#[derive(Debug)]
pub enum Event {
    /// How many bytes the body has; comes before them, if the server says so.
    Length(u64),
    /// The next bytes of the body.
    Bytes(Vec<u8>),
    /// The body is whole.
    End,
    /// There is no more of it.
    Failed(TransferError),
}

/// A body on its way. Dropped, it ends its connection and its thread.
pub struct Download {
    events: Receiver<Event>,
    wake: UnixStream,
    client: Client,
}

impl Drop for Download {
    fn drop(&mut self) {
        self.client.shut_down();
    }
}

impl Download {
    /// Starts to read, with a client of its own.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn start(origin: Origin, client: Client) -> io::Result<Download> {
        let (sender, events) = sync_channel(PIECES);
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        waker.set_nonblocking(true)?;
        let of_thread = client.clone();
        // The new thread inherits the mask of the one that makes it, so it never runs a signal handler.
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let spawned = thread::Builder::new().name("fhir_bulk read".into()).spawn(move || {
            let hand = Hand { sender, waker };
            let last = match read(origin, &of_thread, &hand) {
                Ok(()) => Event::End,
                Err(error) => Event::Failed(error),
            };
            hand.over(last);
        });
        mask.thread_set_mask()?;
        spawned?;
        Ok(Download { events, wake, client })
    }

    /// Readable when [`Download::take`] may have something, and when the download is over.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// What there is to take, without waiting.
    pub fn take(&mut self) -> Option<Event> {
        // First the signal, then the channel: what comes in between is signalled again.
        let mut signals = [0; 64];
        while matches!((&self.wake).read(&mut signals), Ok(count) if count == signals.len()) {}
        match self.events.try_recv() {
            Ok(event) => Some(event),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                Some(Event::Failed(TransferError::Network("the download ended without a word".into())))
            }
        }
    }
}

/// The thread's end of the channel.
pub(crate) struct Hand {
    sender: SyncSender<Event>,
    waker: UnixStream,
}

impl Hand {
    /// Waits for room; false when nobody wants it any more.
    pub fn over(&self, event: Event) -> bool {
        let taken = self.sender.send(event).is_ok();
        // A full pipe is a signal already.
        let _ = (&self.waker).write(&[1]);
        taken
    }

    /// Whether anybody still wants more.
    pub fn is_wanted(&self) -> bool {
        self.wait(Duration::ZERO)
    }

    /// Waits; false as soon as nobody wants more.
    fn wait(&self, time: Duration) -> bool {
        // Nothing is ever written at the other end: it becomes readable when that is closed.
        let mut other_end = [PollFd::new(self.waker.as_fd(), PollFlags::POLLIN)];
        let time = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        poll(&mut other_end, time) == Ok(0)
    }
}

/// Attempts until the body is whole, nobody wants it any more, or it would not help.
fn read(origin: Origin, client: &Client, hand: &Hand) -> Result<(), TransferError> {
    let mut body = Body::new(origin);
    let mut retries = 0;
    loop {
        let Err(failure) = body.attempt(client, hand) else { return Ok(()) };
        match failure.wait(retries) {
            Some(time) if retries < client.limits.retries => {
                retries += 1;
                if !hand.wait(time) {
                    return Ok(());
                }
            }
            _ => return Err(failure.error),
        }
    }
}
