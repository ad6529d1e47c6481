//! Listens on TCP or TLS, serves HTTP/1.1, and stops gracefully: running requests may finish.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::io;
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Uri, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tower::ServiceExt as _;

use crate::app::App;
use crate::caller::peer::Peer;
use crate::config::Config;
use crate::error::printable;

/// The timeout for the TLS handshake, and for the head of a request.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);
/// How long cancelled queries have to end before the process ends.
const LAST_CANCELS: Duration = Duration::from_secs(2);

/// Serves until SIGTERM or SIGINT. SIGHUP reloads files.
///
/// # Errors
/// The address cannot be used; a certificate cannot be used.
pub async fn serve(app: Arc<App>, router: Router) -> Result<(), Box<dyn Error>> {
    let config = &app.config;
    let mut tls = acceptor(config)?;
    let listener = TcpListener::bind(config.listen).await.map_err(|error| format!("{}: {error}", config.listen))?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    tracing::info!("listening at {scheme}://{}", listener.local_addr()?);

    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Usually out of file descriptors: wait until other connections close.
                    tracing::warn!(%error, "a connection was not accepted");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
            _ = hangup.recv() => {
                match acceptor(config).and_then(|new| app.reload().map(|()| new)) {
                    Ok(new) => {
                        tls = new;
                        tracing::info!("keys, passwords and certificates have been reloaded");
                    }
                    Err(error) => tracing::error!(
                        error = printable(&error.to_string()),
                        "keys, passwords and certificates stay as they were"
                    ),
                }
                continue;
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        // Send every chunk at once.
        let _ = stream.set_nodelay(true);
        let (tls, router, watcher, idle) = (tls.clone(), router.clone(), graceful.watcher(), config.idle_timeout);
        connections.spawn(async move {
            let pulse = Arc::<Pulse>::default();
            let gone = hung_up(&stream, tls.is_none(), pulse.clone());
            let served = async {
                let peer = match stream.peer_addr() {
                    Ok(peer) => Peer(peer.ip()),
                    Err(error) => return tracing::debug!(%error, "a client hung up at once"),
                };
                let Some(tls) = tls else {
                    return handle(stream, peer, router, watcher, idle, pulse).await;
                };
                match timeout(HEAD_PATIENCE, tls.accept(stream)).await {
                    Ok(Ok(stream)) => handle(stream, peer, router, watcher, idle, pulse).await,
                    Ok(Err(error)) => tracing::debug!(%error, "no TLS handshake"),
                    Err(_) => tracing::debug!("no TLS handshake in time"),
                }
            };
            tokio::select! {
                biased;
                () = served => {}
                () = gone => tracing::debug!("a client hung up"),
            }
        });
    }

    drop(listener);
    tracing::info!("stopping: running requests have {:?} to finish", config.shutdown_timeout);
    let is_done = tokio::select! {
        done = timeout(config.shutdown_timeout, graceful.shutdown()) => done.is_ok(),
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
    };
    if !is_done {
        tracing::warn!("requests are still running; their queries are cancelled");
        connections.shutdown().await;
        let cancelled = async {
            while app.pool.counts().0 > 0 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = timeout(LAST_CANCELS, cancelled).await;
    }
    Ok(())
}

/// The state of a connection, to find out whether its client still waits.
#[derive(Default)]
struct Pulse {
    /// Whether an HTTP/1.1 request has come and its response has not begun.
    waits: AtomicBool,
    /// Requests that have come, and bytes that were sent.
    requests: AtomicU64,
    sent: AtomicU64,
    /// Whether there are bytes to send that the client does not take.
    is_blocked: AtomicBool,
}

/// An interim response. Clients accept any number of them (RFC 9110, 15.2). Sending it shows whether the client is still
/// there.
const PROCESSING: &[u8] = b"HTTP/1.1 102 Processing\r\n\r\n";
/// How long a connection may be idle after the client has closed its sending side. Then the client counts as gone.
const QUIET: Duration = Duration::from_secs(5);
/// The time before the first check whether such a client is gone.
const FIRST_LOOK: Duration = Duration::from_millis(100);

/// Waits until the client of a connection is gone. hyper notices the end of a connection only while it has no unread bytes:
/// bytes that a client sends after its request would hide that it is gone. So this watches the socket itself, through a
/// second descriptor, and reads nothing.
///
/// A client that has closed its sending side may still read (`nc -N` does), or be gone; only sending something shows which.
/// While its request waits for a response, this sends [`PROCESSING`]; nothing else is written then. With TLS (`plain` is
/// false) nothing can be sent outside of hyper, so a closed sending side counts as gone.
fn hung_up(stream: &TcpStream, plain: bool, pulse: Arc<Pulse>) -> impl Future<Output = ()> + use<> {
    let own = stream.as_fd().try_clone_to_owned().and_then(|own| TcpStream::from_std(own.into()));
    async move {
        let own = match own {
            Ok(own) => own,
            Err(error) => {
                tracing::warn!(%error, "cannot watch whether a client disconnects");
                return std::future::pending().await;
            }
        };
        read_closed(&own).await;
        // Most responses come before the first check.
        if !plain || timeout(FIRST_LOOK, own.ready(Interest::ERROR)).await.is_ok() {
            return;
        }
        loop {
            let before = (pulse.requests.load(Relaxed), pulse.sent.load(Relaxed));
            let waits = pulse.waits.load(Relaxed) && !pulse.is_blocked.load(Relaxed);
            if waits && own.try_write(PROCESSING).is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock) {
                return;
            }
            if timeout(QUIET, own.ready(Interest::ERROR)).await.is_ok() {
                return;
            }
            if !waits && before == (pulse.requests.load(Relaxed), pulse.sent.load(Relaxed)) {
                return;
            }
        }
    }
}

/// Waits until the client has closed its sending side.
async fn read_closed(own: &TcpStream) {
    while let Ok(ready) = own.ready(Interest::READABLE).await {
        if ready.is_read_closed() {
            return;
        }
        // These bytes are for hyper. Wait for the next event; each arrival is reported once.
        let _ = own.try_io(Interest::READABLE, || io::Result::<()>::Err(io::ErrorKind::WouldBlock.into()));
    }
    std::future::pending().await
}

async fn handle<S>(stream: S, peer: Peer, router: Router, watcher: Watcher, idle: Duration, pulse: Arc<Pulse>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let of_requests = pulse.clone();
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (router, pulse) = (router.clone(), of_requests.clone());
        let mut request = plain(request);
        request.extensions_mut().insert(peer);
        pulse.requests.fetch_add(1, Relaxed);
        pulse.waits.store(request.version() == Version::HTTP_11, Relaxed);
        async move {
            let response = router.oneshot(request).await.unwrap_or_else(|never| match never {});
            pulse.waits.store(false, Relaxed);
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .half_close(true)
        .serve_connection(TokioIo::new(WriteTimeout { stream, limit: idle, timer: None, pulse }), service);
    match watcher.watch(connection).await {
        // hyper has answered it with a bare status.
        Err(error) if error.is_parse() => {
            tracing::info!(error = printable(&error.to_string()), "a request that is not HTTP/1.1 was refused");
        }
        Err(error) => tracing::debug!(%error, "a connection broke off"),
        Ok(()) => {}
    }
}

/// Replaces `%24` by `$` in the path: some clients escape the `$` of an operation's name, and routes have it unescaped.
fn plain(request: Request<Incoming>) -> Request<Body> {
    let mut request = request.map(Body::new);
    if request.uri().path().contains("%24") {
        let mut parts = request.uri().clone().into_parts();
        let path = request.uri().path().replace("%24", "$");
        let path = request.uri().query().map_or(path.clone(), |query| format!("{path}?{query}"));
        parts.path_and_query = path.parse().ok();
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request
}

/// The TLS acceptor, if there is a certificate.
fn acceptor(config: &Config) -> Result<Option<TlsAcceptor>, Box<dyn Error>> {
    let (Some(cert), Some(key)) = (&config.tls_cert, &config.tls_key) else { return Ok(None) };
    let in_file = |path: &std::path::Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect).map_err(|e| in_file(cert, &e))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| in_file(key, &e))?;
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|e| in_file(cert, &e))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

/// A stream with a timeout for writing: the client must take some bytes within this time.
struct WriteTimeout<S> {
    stream: S,
    limit: Duration,
    /// The timer that runs while the client takes nothing.
    timer: Option<Pin<Box<Sleep>>>,
    /// Records what the client takes.
    pulse: Arc<Pulse>,
}

impl<S: AsyncWrite + Unpin> WriteTimeout<S> {
    fn timed<T>(
        &mut self,
        context: &mut Context<'_>,
        work: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let result = work(Pin::new(&mut self.stream), context);
        if result.is_ready() {
            self.timer = None;
            return result;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + self.limit)));
        std::task::ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not take the response")))
    }

    fn count(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.pulse.is_blocked.store(written.is_pending(), Relaxed);
        if let Poll::Ready(Ok(bytes)) = &written {
            self.pulse.sent.fetch_add(*bytes as u64, Relaxed);
        }
        written
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = self.timed(context, |stream, context| stream.poll_write(context, bytes));
        self.count(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = self.timed(context, |stream, context| stream.poll_write_vectored(context, pieces));
        self.count(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.timed(context, |stream, context| stream.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.timed(context, |stream, context| stream.poll_shutdown(context))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeout<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}
