//! Listening: TCP or TLS, HTTP/1.1, and an end that lets running requests finish.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Uri};
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

use crate::config::Config;
use crate::error::printable;
use crate::peer::Peer;

/// How long a client may take to shake hands, and to send the head of a request.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);
/// How long cancelled queries have to end when the process does.
const LAST_CANCELS: Duration = Duration::from_secs(2);

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// An address that cannot be listened at; certificates that cannot be used.
pub async fn serve(config: &Config, router: Router) -> Result<(), Box<dyn Error>> {
    let tls = match (&config.tls_cert, &config.tls_key) {
        (Some(cert), Some(key)) => Some(acceptor(cert, key)?),
        _ => None,
    };
    let listener = TcpListener::bind(config.listen).await.map_err(|error| format!("{}: {error}", config.listen))?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
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
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        // Every piece leaves at once.
        let _ = stream.set_nodelay(true);
        let (tls, router, watcher, idle) = (tls.clone(), router.clone(), graceful.watcher(), config.idle_timeout);
        connections.spawn(async move {
            let gone = hung_up(&stream);
            let served = async {
                let peer = match stream.peer_addr() {
                    Ok(peer) => Peer(peer.ip()),
                    Err(error) => return tracing::debug!(%error, "a client hung up at once"),
                };
                let Some(tls) = tls else {
                    return handle(stream, peer, router, watcher, idle).await;
                };
                match timeout(HEAD_PATIENCE, tls.accept(stream)).await {
                    Ok(Ok(stream)) => handle(stream, peer, router, watcher, idle).await,
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
    if timeout(config.shutdown_timeout, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests are still running; their queries are cancelled");
        connections.shutdown().await;
        sleep(LAST_CANCELS).await;
    }
    Ok(())
}

/// Waits until the other end of a connection will send nothing more. hyper looks for that only while it holds no bytes
/// that it has not used: what a client sends behind its request would hide that it has gone. So this looks at the
/// socket itself, by a descriptor of its own, and reads nothing.
fn hung_up(stream: &TcpStream) -> impl Future<Output = ()> + use<> {
    let own = stream.as_fd().try_clone_to_owned().and_then(|own| TcpStream::from_std(own.into()));
    async move {
        match own {
            Ok(own) => {
                while let Ok(ready) = own.ready(Interest::READABLE).await {
                    if ready.is_read_closed() {
                        return;
                    }
                    // What has come is not for us: wait until there is more, each arrival being told once.
                    let _ = own.try_io(Interest::READABLE, || io::Result::<()>::Err(io::ErrorKind::WouldBlock.into()));
                }
            }
            Err(error) => tracing::warn!(%error, "whether a client hangs up cannot be watched"),
        }
        std::future::pending().await
    }
}

async fn handle<S>(stream: S, peer: Peer, router: Router, watcher: Watcher, idle: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        let mut request = plain(request);
        request.extensions_mut().insert(peer);
        async move { Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|never| match never {})) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .serve_connection(TokioIo::new(WriteTimeout { stream, limit: idle, timer: None }), service);
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

fn acceptor(cert: &Path, key: &Path) -> Result<TlsAcceptor, Box<dyn Error>> {
    let in_file = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect).map_err(|e| in_file(cert, &e))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| in_file(key, &e))?;
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|e| in_file(cert, &e))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A stream whose other end must take something within a time when there is something to take.
struct WriteTimeout<S> {
    stream: S,
    limit: Duration,
    /// Runs while the other end takes nothing.
    timer: Option<Pin<Box<Sleep>>>,
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
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.timed(context, |stream, context| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.timed(context, |stream, context| stream.poll_write_vectored(context, pieces))
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
