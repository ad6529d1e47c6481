//! A request of an authenticated caller, as handlers use it.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Version, header};

use crate::app::App;
use crate::caller::auth::{Admitted, Caller};
use crate::caller::peer::{self, Peer};
use crate::database::session::{Access, Session};
use crate::error::{Blame, Problem, Result, printable};
use crate::request::id::RequestId;
use crate::request::need::{Narrowing, Need};
use crate::request::parameters::Parameters;
use crate::request::parse::{self, Object};
use crate::smart::scopes::Scopes;

/// A request, as handlers use it.
pub struct Call {
    pub app: Arc<App>,
    pub headers: HeaderMap,
    pub parameters: Parameters,
    pub id: RequestId,
    caller: Caller,
    narrowing: Narrowing,
    version: Version,
}

impl FromRequestParts<Arc<App>> for Call {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Call> {
        let Admitted { caller, scopes } = app.authenticator().caller(&parts.headers, peer(parts)?)?;
        tracing::Span::current().record("role", printable(caller.role()));
        let Some(scopes) = scopes else { return Call::of(parts, app, caller, Narrowing::Done) };
        let need = parts.extensions.get().copied().unwrap_or(Need::Closed);
        let path = RawPathParams::from_request_parts(parts, app).await;
        let path = path.map_err(|error| Problem::bad_request("the path is not UTF-8").because(error))?;
        let resource_type = path.iter().find_map(|(name, value)| (name == "type").then_some(value));
        Call::of(parts, app, caller, need.check(scopes, resource_type)?)
    }
}

/// A request with a signed URL as its credentials, and its address.
pub struct Download(pub Call, pub IpAddr);

impl FromRequestParts<Arc<App>> for Download {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Download> {
        let why = "signed URLs need a user in --database, who may EXECUTE bulk_export_file";
        let user = app.pool.own_user().ok_or_else(|| Problem::unavailable(why))?;
        let address = peer::address(peer(parts)?.0, &parts.headers, &app.config.trusted_proxies);
        Ok(Download(Call::of(parts, app, Caller::Download(user.to_owned()), Narrowing::Done)?, address))
    }
}

/// A request for metadata. Credentials are optional.
pub struct Metadata(pub Call);

impl FromRequestParts<Arc<App>> for Metadata {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Metadata> {
        let Admitted { caller, scopes } = app.authenticator().reader_of_metadata(&parts.headers, peer(parts)?)?;
        Call::of(parts, app, caller, scopes.map_or(Narrowing::Done, Narrowing::Due)).map(Metadata)
    }
}

/// The other end of a request's connection.
///
/// # Errors
/// 503 if it is not known.
pub fn peer(parts: &Parts) -> Result<Peer> {
    parts.extensions.get().copied().ok_or_else(|| Problem::unavailable("a connection without an address"))
}

impl Call {
    fn of(parts: &Parts, app: &Arc<App>, caller: Caller, narrowing: Narrowing) -> Result<Call> {
        Ok(Call {
            app: app.clone(),
            headers: parts.headers.clone(),
            parameters: Parameters::parse(parts.uri.query().unwrap_or_default()),
            id: parts.extensions.get().cloned().unwrap_or_default(),
            caller,
            narrowing,
            version: parts.version,
        })
    }

    /// Checks that no parameter is left, and that the caller accepts the response's type, under any of its names.
    ///
    /// # Errors
    /// 400, 406.
    pub fn answers(&mut self, types: &[&str]) -> Result<()> {
        std::mem::take(&mut self.parameters).finish()?;
        parse::accepts(&self.headers, types)
    }

    /// Checks that the caller can notice an incomplete body. In HTTP/1.0 it cannot.
    ///
    /// # Errors
    /// 505.
    pub fn streams(&self) -> Result<()> {
        if self.version >= Version::HTTP_11 {
            return Ok(());
        }
        let why = "this needs HTTP/1.1: in HTTP/1.0 an incomplete body looks like a complete one";
        Err(Problem::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, why))
    }

    /// Reads the JSON or YAML object in a body.
    ///
    /// # Errors
    /// 400, 413, 415.
    pub async fn object(&self, body: Body) -> Result<Object> {
        let object = parse::object(&self.headers, body, self.app.config.max_body);
        let too_slow = |_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the body came too slowly");
        tokio::time::timeout(self.app.config.idle_timeout, object).await.map_err(too_slow)?
    }

    /// The scopes to which the handler must narrow its work; `None` if there are none, or if they have been checked already.
    pub fn narrow(&mut self) -> Option<Scopes> {
        match std::mem::replace(&mut self.narrowing, Narrowing::Done) {
            Narrowing::Done => None,
            Narrowing::Due(scopes) => Some(scopes),
        }
    }

    /// Begins a transaction of the caller.
    ///
    /// # Errors
    /// 401, 403, 429, 503.
    pub async fn begin(&self, access: Access, blame: Blame) -> Result<Session> {
        if matches!(self.narrowing, Narrowing::Due(_)) {
            let why = "a token with scopes does not open this address";
            return Err(
                Problem::new(StatusCode::FORBIDDEN, why).because("the handler does not narrow its work to them")
            );
        }
        let connection = self.app.pool.get(&self.caller).await?;
        Session::begin(connection, &self.caller, access, blame, self.id.as_str(), &self.url(&["export"])).await
    }

    /// The role whose rights the request has.
    pub fn role(&self) -> &str {
        self.caller.role()
    }

    /// How many requests the caller's role may have running, and how many more it may start now.
    pub fn limits(&self) -> (u32, usize) {
        self.app.pool.limits(self.caller.role())
    }

    /// The value of a preference in the Prefer headers, empty if it has none.
    pub fn preference(&self, name: &str) -> Option<String> {
        parse::preference(&self.headers, name)
    }

    /// The URL with which this caller reaches a path of the proxy.
    pub fn url(&self, path: &[&str]) -> String {
        let base = match self.app.config.base_url() {
            Some(url) => url.to_owned(),
            None => {
                let scheme = if self.app.config.tls_cert.is_some() { "https" } else { "http" };
                let host = self.headers.get(header::HOST).and_then(|host| host.to_str().ok());
                host.map(|host| format!("{scheme}://{host}")).unwrap_or_default()
            }
        };
        path.iter().fold(base, |url, part| url + "/" + &encoded(part))
    }
}

/// One segment of a path, or a value of a parameter. Characters with a meaning in URLs are escaped.
pub fn encoded(part: &str) -> String {
    part.bytes().fold(String::new(), |mut text, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'$' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
        text
    })
}
