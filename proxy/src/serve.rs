//! Listening: TCP or TLS, HTTP/1.1, and an end that lets running requests finish.

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

/// How long a client may take to shake hands, and to send the head of a request.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);
/// How long cancelled queries have to end when the process does.
const LAST_CANCELS: Duration = Duration::from_secs(2);

/// Serves until SIGTERM or SIGINT; at SIGHUP, files are read anew.
///
/// # Errors
/// An address that cannot be listened at; certificates that cannot be used.
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
                    // Out of file descriptors, mostly: others must be closed before this gets better.
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
                        tracing::info!("keys, passwords and certificates have been read anew");
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
        // Every piece leaves at once.
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

/// What a connection is at, for whoever wonders if anybody still waits at its other end.
#[derive(Default)]
struct Pulse {
    /// A request of HTTP/1.1 has come, and its answer has not begun.
    waits: AtomicBool,
    /// Requests that have come, and bytes that were sent.
    requests: AtomicU64,
    sent: AtomicU64,
    /// Something is to be sent that the other end has no room for.
    is_blocked: AtomicBool,
}

/// An interim answer, which clients take any number of (RFC 9110, 15.2). To one that is gone it brings out that it is.
const PROCESSING: &[u8] = b"HTTP/1.1 102 Processing\r\n\r\n";
/// How long nothing may move on a connection whose other end has ended its side, before it counts as gone.
const QUIET: Duration = Duration::from_secs(5);
/// When it is first looked whether such a one is gone.
const FIRST_LOOK: Duration = Duration::from_millis(100);

/// Waits until the other end of a connection is gone. hyper looks for its end only while it holds no bytes that it has not
/// used: what a client sends behind its request would hide that it has gone. So this looks at the socket itself, by a
/// descriptor of its own, and reads nothing.
///
/// A client that ended its own side may still read (`nc -N` does), or be gone: which it is, only what is sent to it shows.
/// While its request waits for an answer that is [`PROCESSING`]; nothing else is written then. With TLS (`plain` is false)
/// nothing can be sent beside, and an end is an end.
fn hung_up(stream: &TcpStream, plain: bool, pulse: Arc<Pulse>) -> impl Future<Output = ()> + use<> {
    let own = stream.as_fd().try_clone_to_owned().and_then(|own| TcpStream::from_std(own.into()));
    async move {
        let own = match own {
            Ok(own) => own,
            Err(error) => {
                tracing::warn!(%error, "whether a client hangs up cannot be watched");
                return std::future::pending().await;
            }
        };
        read_closed(&own).await;
        // Most answers are there before anybody would ask.
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

/// Waits until the other end will send nothing more.
async fn read_closed(own: &TcpStream) {
    while let Ok(ready) = own.ready(Interest::READABLE).await {
        if ready.is_read_closed() {
            return;
        }
        // What has come is not for us: wait until there is more, each arrival being told once.
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
        // hyper has answered it with a status and no more.
        Err(error) if error.is_parse() => {
            tracing::info!(error = printable(&error.to_string()), "something that is not HTTP/1.1 was refused");
        }
        Err(error) => tracing::debug!(%error, "a connection broke off"),
        Ok(()) => {}
    }
}

/// Some clients escape the `$` of an operation's name, as they may; the routes are written with it.
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

/// What shakes hands, if there is a certificate.
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

/// A stream whose other end must take something within a time when there is something to take.
struct WriteTimeout<S> {
    stream: S,
    limit: Duration,
    /// Runs while the other end takes nothing.
    timer: Option<Pin<Box<Sleep>>>,
    /// Is told of what it takes.
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
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
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
