//! One download: requests, redirects and the body, on a thread of its own.

use crate::policy::{Policy, host_text};
use nix::sys::signal::{SigSet, SigmaskHow};
use std::fmt;
use std::io::{self, Read, Write as _};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;
use ureq::Agent;
use ureq::config::Config;
use ureq::http::{StatusCode, Uri, header};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use url::Url;

/// A body is handed over in pieces of at most this many bytes, of which at most [`PIECES`] wait.
const PIECE_BYTES: usize = 256 << 10;
const PIECES: usize = 8;

/// How long and how far a download may go.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For a connection to be made.
    pub connect: Duration,
    /// For the next bytes to come.
    pub idle: Duration,
    /// How many redirects are followed.
    pub redirects: usize,
}

/// Why there is no (more) body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchError {
    /// Not a URL that can be read.
    BadUrl(String),
    /// The allowlist does not allow it; says what.
    Refused(String),
    /// The server answered, but not with the body.
    Status {
        /// The status code.
        code: u16,
        /// Its standard phrase.
        reason: String,
    },
    /// No connection, or one that broke.
    Network(String),
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FetchError::BadUrl(why) | FetchError::Refused(why) | FetchError::Network(why) => f.write_str(why),
            FetchError::Status { code, reason } => write!(f, "{code}: {reason}"),
        }
    }
}

impl std::error::Error for FetchError {}

/// What a download has to hand over.
#[derive(Debug)]
pub enum Event {
    /// The next bytes of the body.
    Bytes(Vec<u8>),
    /// The body is whole.
    End,
    /// There is no more of it.
    Failed(FetchError),
}

/// A body on its way. Dropped, it ends its thread as soon as that comes back from the network.
pub struct Download {
    events: Receiver<Event>,
    wake: UnixStream,
}

impl Download {
    /// Starts to read `url`.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn start(url: &str, policy: Policy, limits: Limits) -> io::Result<Download> {
        let (sender, events) = sync_channel(PIECES);
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        waker.set_nonblocking(true)?;
        let url = url.to_owned();
        // The new thread inherits the mask of the one that makes it, so it never runs a signal handler.
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let spawned = thread::Builder::new().name("fhir_bulk fetch".into()).spawn(move || {
            let hand = Hand { sender, waker };
            let last = match read(&url, &policy, limits, &hand) {
                Ok(()) => Event::End,
                Err(error) => Event::Failed(error),
            };
            hand.over(last);
        });
        mask.thread_set_mask()?;
        spawned?;
        Ok(Download { events, wake })
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
                Some(Event::Failed(FetchError::Network("the download ended without a word".into())))
            }
        }
    }
}

/// The thread's end of the channel.
struct Hand {
    sender: SyncSender<Event>,
    waker: UnixStream,
}

impl Hand {
    /// Waits for room; false when nobody wants it any more.
    fn over(&self, event: Event) -> bool {
        let taken = self.sender.send(event).is_ok();
        // A full pipe is a signal already.
        let _ = (&self.waker).write(&[1]);
        taken
    }
}

/// 1. check the URL by name; 2. resolve it and keep the addresses that are allowed; 3. ask one of those;
/// 4. a redirect starts anew, without anything of the request before; 5. hand the body over.
fn read(url: &str, policy: &Policy, limits: Limits, hand: &Hand) -> Result<(), FetchError> {
    let mut url = parse(url)?;
    for _ in 0..=limits.redirects {
        let response = ask(&url, resolve(&url, policy)?, limits)?;
        let status = response.status();
        if let Some(next) = redirect(&url, status, response.headers())? {
            url = next;
            continue;
        }
        if status != StatusCode::OK {
            let reason = status.canonical_reason().unwrap_or("no reason given").to_owned();
            return Err(FetchError::Status { code: status.as_u16(), reason });
        }
        let mut body = response.into_body().into_reader();
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            match body.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    piece.truncate(count);
                    if !hand.over(Event::Bytes(piece)) {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(FetchError::Network(format!("the connection broke: {error}"))),
            }
        }
    }
    Err(FetchError::Network(format!("more than {} redirects", limits.redirects)))
}

fn parse(url: &str) -> Result<Url, FetchError> {
    let url = Url::parse(url).map_err(|error| FetchError::BadUrl(format!("not a URL: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(FetchError::BadUrl(format!("{}:// cannot be read", url.scheme())));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(FetchError::BadUrl("a URL with a user or password is not read; use a signed URL".into()));
    }
    Ok(url)
}

/// The addresses of a URL's host that may be used.
fn resolve(url: &Url, policy: &Policy) -> Result<Vec<SocketAddr>, FetchError> {
    let host = host_text(url);
    let by_name = policy.by_name(url);
    let port = url.port_or_known_default().unwrap_or(443);
    let resolved = (host.trim_matches(['[', ']']), port)
        .to_socket_addrs()
        .map_err(|error| FetchError::Network(format!("host \"{host}\" cannot be resolved: {error}")))?;
    let (allowed, refused): (Vec<_>, Vec<_>) = resolved.partition(|address| policy.allows(by_name, address.ip()));
    if allowed.is_empty() {
        let addresses = refused.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(", ");
        let of_host = if addresses == host { host } else { format!("{host} ({addresses})") };
        return Err(FetchError::Refused(format!("{}://{of_host} is not among the allowed sources", url.scheme())));
    }
    Ok(allowed)
}

/// Asks one of these addresses, and nobody else what the host's address is.
fn ask(url: &Url, addresses: Vec<SocketAddr>, limits: Limits) -> Result<ureq::http::Response<ureq::Body>, FetchError> {
    let config = Config::builder()
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .timeout_connect(Some(limits.connect))
        .timeout_recv_response(Some(limits.idle))
        .timeout_per_read(Some(limits.idle))
        .user_agent("fhir_bulk")
        .build();
    let agent = Agent::with_parts(config, DefaultConnector::default(), Pinned(addresses));
    agent.get(url.as_str()).call().map_err(|error| FetchError::Network(error.to_string()))
}

fn redirect(url: &Url, status: StatusCode, headers: &header::HeaderMap) -> Result<Option<Url>, FetchError> {
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    let Some(location) = location else {
        return Err(FetchError::Network(format!("{status} without a location")));
    };
    let next = url.join(location).map_err(|error| FetchError::BadUrl(format!("redirected to no URL: {error}")))?;
    parse(next.as_str()).map(Some)
}

/// The addresses that were checked: a second answer of the name server is never asked for.
#[derive(Debug)]
struct Pinned(Vec<SocketAddr>);

impl Resolver for Pinned {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        for address in self.0.iter().take(16) {
            addresses.push(*address);
        }
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    /// A name server that answers a second question otherwise would lead past the check.
    #[test]
    fn the_checked_address_is_asked_whatever_the_name_stands_for_by_then() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let served = thread::spawn(move || {
            let (mut client, _) = server.accept().unwrap();
            let mut host = String::new();
            for line in BufReader::new(client.try_clone().unwrap()).lines() {
                let line = line.unwrap();
                if line.is_empty() {
                    break;
                }
                if let Some(name) = line.to_ascii_lowercase().strip_prefix("host: ") {
                    host = name.to_owned();
                }
            }
            write!(client, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").unwrap();
            host
        });
        // This name never resolves (RFC 6761).
        let url = Url::parse(&format!("http://name.invalid:{}/", address.port())).unwrap();
        let limits = Limits { connect: Duration::from_secs(10), idle: Duration::from_secs(10), redirects: 0 };
        let body = ask(&url, vec![address], limits).unwrap().into_body().read_to_string().unwrap();
        assert_eq!(body, "ok");
        assert_eq!(served.join().unwrap(), format!("name.invalid:{}", address.port()));
    }
}
