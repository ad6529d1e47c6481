//! Sends one request to an allowed server. It checks the name, then the address, and both again after each redirect.

use crate::connect::Strict;
use crate::error::TransferError;
use crate::failure::Failure;
use crate::headers::Headers;
use crate::policy::{Policy, host_text};
use crate::tls::Authorities;
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use ureq::Agent;
use ureq::config::Config;
use ureq::http::{HeaderName, HeaderValue, Method, Request, Uri, header};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Connector as _, DefaultConnector, NextTimeout};
use url::{Position, Url};

pub(crate) use ureq::http::StatusCode as Status;

/// The response of a server.
pub(crate) type Response = ureq::http::Response<ureq::Body>;

/// The limits of a transfer.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The timeout for a connection.
    pub connect: Duration,
    /// The timeout for the next bytes.
    pub idle: Duration,
    /// How many redirects are followed.
    pub redirects: usize,
    /// How many retries there are in all after temporary failures.
    pub retries: u32,
}

/// Who has access tokens for requests.
pub(crate) trait Bearer: fmt::Debug + Send + Sync {
    /// Whether a token may be sent to a URL.
    fn is_for(&self, url: &Url) -> bool;

    /// The error for a URL that needs a token and may have none.
    fn not_for(&self, url: &str) -> TransferError;

    /// The header with a token that is valid now, and other than one that a server has refused. A client like this one asks
    /// for it.
    fn header(&self, refused: Option<&HeaderValue>, client: &Client) -> Result<(HeaderName, HeaderValue), Failure>;
}

/// Sends requests to servers. Clones share one client.
#[derive(Clone, Debug)]
pub struct Client {
    agent: Agent,
    pinned: Pinned,
    policy: Policy,
    authorities: Authorities,
    headers: Headers,
    bearer: Option<Arc<dyn Bearer>>,
    pub(crate) limits: Limits,
}

impl Client {
    /// A client that sends requests where `policy` allows, within `limits`, and trusts `authorities`.
    pub fn new(policy: Policy, limits: Limits, authorities: Authorities) -> Client {
        let config = Config::builder()
            .proxy(None)
            .tls_config(authorities.clone().config())
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            // A kept connection would be used again without a check of its address.
            .max_idle_connections(0)
            .timeout_connect(Some(limits.connect))
            .timeout_recv_response(Some(limits.idle))
            .timeout_per_read(Some(limits.idle))
            .timeout_per_write(Some(limits.idle))
            .user_agent("fhir_bulk")
            .build();
        let pinned = Pinned::default();
        let agent = Agent::with_parts(config, DefaultConnector::default().chain(Strict), pinned.clone());
        Client { agent, pinned, policy, authorities, headers: Headers::default(), bearer: None, limits }
    }

    /// Also sends these headers, to the server of each URL that it reads, but not to another one that this redirects to.
    pub fn with_headers(self, headers: Headers) -> Client {
        Client { headers, ..self }
    }

    /// Also sends an access token, as these headers.
    pub(crate) fn with_bearer(self, bearer: Option<Arc<dyn Bearer>>) -> Client {
        Client { bearer, ..self }
    }

    /// The same client under another policy, with nothing that it was given to send.
    pub(crate) fn under(&self, policy: &Policy) -> Client {
        Client { policy: policy.clone(), headers: Headers::default(), bearer: None, ..self.clone() }
    }

    /// Ends the running requests of all threads, and lets further ones fail.
    pub(crate) fn shut_down(&self) {
        self.agent.clone().shutdown();
    }

    /// Another client with the same rules, for cleaning up after this one is shut down.
    pub fn renewed(&self) -> Client {
        Client::new(self.policy.clone(), self.limits, self.authorities.clone())
            .with_headers(self.headers.clone())
            .with_bearer(self.bearer.clone())
    }

    /// Tries until an attempt succeeds or a retry would not help. `wait` gets the time to wait before the next attempt.
    /// `None` if `wait` returns that the result is no longer wanted.
    pub(crate) fn again<T>(
        &self,
        wait: impl Fn(Duration) -> bool,
        mut attempt: impl FnMut() -> Result<T, Failure>,
    ) -> Result<Option<T>, TransferError> {
        let mut retries = 0;
        loop {
            let failure = match attempt() {
                Ok(done) => return Ok(Some(done)),
                Err(failure) => failure,
            };
            match failure.wait(retries) {
                Some(time) if retries < self.limits.retries => {
                    retries += 1;
                    if !wait(time) {
                        return Ok(None);
                    }
                }
                _ => return Err(failure.error),
            }
        }
    }

    /// Requests `url` and follows redirects: 1. check the URL by name; 2. resolve it and keep the allowed addresses; 3. send
    /// the request to one of these; 4. a redirect starts again with 1, with only these headers, and those that the client was
    /// given if scheme, host and port are still the same.
    pub(crate) fn get(&self, url: &Url, headers: &[(HeaderName, HeaderValue)]) -> Result<Response, Failure> {
        let with_given = [headers, self.headers.all()].concat();
        let origin = url.origin();
        if let Some(bearer) = self.bearer.as_ref().filter(|bearer| !bearer.is_for(url)) {
            return Err(bearer.not_for(&shown(url)).into());
        }
        let mut url = url.clone();
        for _ in 0..=self.limits.redirects {
            let is_there = url.origin() == origin;
            let sent = if is_there { &with_given } else { headers };
            let bearer = self.bearer.as_deref().filter(|bearer| is_there && bearer.is_for(&url));
            let response = self.get_with(bearer, &url, sent)?;
            match redirect(&url, response.status(), response.headers())? {
                Some(next) => url = next,
                None => return Ok(response),
            }
        }
        Err(TransferError::Network(match self.limits.redirects {
            0 => "it was redirected, which is not followed".to_owned(),
            most => format!("more than {most} redirects"),
        })
        .into())
    }

    /// Requests a URL with a token, if there are tokens for it, and once more with another one after a 401.
    fn get_with(
        &self,
        bearer: Option<&dyn Bearer>,
        url: &Url,
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<Response, Failure> {
        let Some(bearer) = bearer else { return self.send(Method::GET, url, headers, None) };
        let token = bearer.header(None, self)?;
        let response = self.send(Method::GET, url, &[headers, std::slice::from_ref(&token)].concat(), None)?;
        if response.status() != Status::UNAUTHORIZED {
            return Ok(response);
        }
        drop(response);
        let other = bearer.header(Some(&token.1), self)?;
        self.send(Method::GET, url, &[headers, &[other]].concat(), None)
    }

    /// The allowed addresses of a URL's host.
    fn resolve(&self, url: &Url) -> Result<Vec<SocketAddr>, Failure> {
        let host = host_text(url);
        // A caller who may not read the URL must not learn the addresses of internal names.
        let refused = || refused(url);
        let by_name = self.policy.by_name(url);
        if !self.policy.may_allow(by_name) {
            return Err(refused().into());
        }
        let port = url.port_or_known_default().unwrap_or(443);
        // The library does not tell which failures of name servers are temporary.
        let resolved = (host.trim_matches(['[', ']']), port)
            .to_socket_addrs()
            .map_err(|error| Failure::passing(format!("host \"{host}\" cannot be resolved: {error}")))?;
        let allowed: Vec<_> = resolved.filter(|address| self.policy.allows(by_name, address.ip())).collect();
        if allowed.is_empty() { Err(refused().into()) } else { Ok(allowed) }
    }

    /// Sends one request, without redirects, to an allowed address.
    pub(crate) fn send(
        &self,
        method: Method,
        url: &Url,
        headers: &[(HeaderName, HeaderValue)],
        body: Option<&[u8]>,
    ) -> Result<Response, Failure> {
        self.send_to(self.resolve(url)?, method, url, headers, body)
    }

    /// Sends a request to one of these addresses. The host is not resolved again.
    fn send_to(
        &self,
        addresses: Vec<SocketAddr>,
        method: Method,
        url: &Url,
        headers: &[(HeaderName, HeaderValue)],
        body: Option<&[u8]>,
    ) -> Result<Response, Failure> {
        *self.pinned.addresses() = addresses;
        let mut request = Request::builder().method(method).uri(url.as_str());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let sent = match body {
            Some(body) => request.body(body).map_err(ureq::Error::from).and_then(|request| self.agent.run(request)),
            None => request.body(()).map_err(ureq::Error::from).and_then(|request| self.agent.run(request)),
        };
        sent.map_err(|error| Failure::of_transport("", &error))
    }
}

/// Parses a URL that can be requested.
pub(crate) fn parse(url: &str) -> Result<Url, TransferError> {
    let url = Url::parse(url).map_err(|error| TransferError::BadUrl(format!("not a URL: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(TransferError::BadUrl(format!("{}:// cannot be read", url.scheme())));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(TransferError::BadUrl("a URL with a user or password is not read; use a signed URL".into()));
    }
    Ok(url)
}

/// A URL as messages may show it: without user, password and query.
fn shown(url: &Url) -> String {
    format!("{}{}", &url[..Position::BeforeUsername], &url[Position::BeforeHost..Position::AfterPath])
}

/// The error for a URL that a policy does not allow.
fn refused(url: &Url) -> TransferError {
    TransferError::Refused(format!("{} is not among the allowed sources", shown(url)))
}

/// Checks a URL by its names, without resolving its host.
///
/// # Errors
/// It cannot be requested, or a policy does not allow it at any address.
pub fn check_name(url: &str, policy: &Policy) -> Result<(), TransferError> {
    let url = parse(url)?;
    if policy.may_allow(policy.by_name(&url)) { Ok(()) } else { Err(refused(&url)) }
}

/// The URL that a text means in a document that was read from `base`.
///
/// # Errors
/// It is not a URL that can be requested.
pub fn join(base: &str, text: &str) -> Result<String, TransferError> {
    let joined = parse(base)?.join(text).map_err(|error| TransferError::BadUrl(format!("not a URL: {error}")))?;
    parse(joined.as_str()).map(String::from)
}

fn redirect(url: &Url, status: Status, headers: &header::HeaderMap) -> Result<Option<Url>, TransferError> {
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    let Some(location) = location else {
        return Err(TransferError::Network(format!("{status} without a location")));
    };
    let next = url
        .join(location)
        .map_err(|error| TransferError::BadUrl(format!("redirected to something that is not a URL: {error}")))?;
    parse(next.as_str()).map(Some)
}

/// The addresses that were checked. The name server is not asked a second time.
#[derive(Clone, Debug, Default)]
struct Pinned(Arc<Mutex<Vec<SocketAddr>>>);

impl Pinned {
    fn addresses(&self) -> MutexGuard<'_, Vec<SocketAddr>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resolver for Pinned {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        for address in self.addresses().iter().take(16) {
            addresses.push(*address);
        }
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write as _};
    use std::net::TcpListener;
    use std::thread;

    /// If the name server were asked twice, a different second answer would bypass the check.
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
        let limits =
            Limits { connect: Duration::from_secs(10), idle: Duration::from_secs(10), redirects: 0, retries: 0 };
        let client = Client::new(Policy::default(), limits, Authorities::default());
        let body =
            client.send_to(vec![address], Method::GET, &url, &[], None).unwrap().into_body().read_to_string().unwrap();
        assert_eq!(body, "ok");
        assert_eq!(served.join().unwrap(), format!("name.invalid:{}", address.port()));
    }
}
