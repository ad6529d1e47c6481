//! Authenticates callers: by a role and its password, which PostgreSQL checks, or by a token or API key that stands for a
//! role.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::caller::jwt::Keys;
use crate::caller::peer::{self, Network, Peer};
use crate::config::{self, Config, Switch};
use crate::error::{Problem, Result, WRONG_PASSWORD};
use crate::request::yaml;
use crate::smart::login::Smart;
use crate::smart::scopes::Scopes;
use crate::smart::tokens::Secret;

/// The caller of a request.
#[derive(Clone, PartialEq, Eq)]
pub enum Caller {
    /// A role that logs in with its own password.
    Login { role: String, password: String, from: IpAddr },
    /// A role that the proxy's own user switches to, with the claims for policies, as JSON.
    Assumed { role: String, claims: String },
    /// The proxy's own user, for requests without credentials.
    Own(String),
    /// The proxy's own user, for a file by its signed URL.
    Download(String),
}

impl Caller {
    /// The name under which its connections are counted. Downloads have their own, apart from the proxy's user.
    pub fn share(&self) -> &str {
        // No role can have this name: it has a NUL.
        if matches!(self, Caller::Download(_)) { "\0downloads" } else { self.role() }
    }

    /// The role whose rights the request has.
    pub fn role(&self) -> &str {
        match self {
            Caller::Login { role, .. } | Caller::Assumed { role, .. } | Caller::Own(role) | Caller::Download(role) => {
                role
            }
        }
    }
}

/// A caller, and how far its token opens what its role may do.
pub struct Admitted {
    /// The caller.
    pub caller: Caller,
    /// The scopes of its token, if the proxy issued it. What tokens of other issuers say about scopes narrows nothing.
    pub scopes: Option<Scopes>,
}

impl From<Caller> for Admitted {
    fn from(caller: Caller) -> Admitted {
        Admitted { caller, scopes: None }
    }
}

/// The keys and rules with which credentials are checked.
pub struct Authenticator {
    tokens: Keys,
    smart: Option<Smart>,
    api_keys: HashMap<[u8; 32], ApiKey>,
    anonymous_role: Option<String>,
    metadata_role: Option<String>,
    own_user: Option<String>,
    basic: Switch,
    basic_roles: Vec<String>,
    trusted_proxies: Vec<Network>,
    public_url: Option<String>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ApiKey {
    sha256: String,
    role: String,
    #[serde(default)]
    claims: BTreeMap<String, Value>,
}

impl Authenticator {
    /// Reads the files of keys. `own_secret` signs tokens if no file has a secret for it.
    ///
    /// # Errors
    /// An error in a file; keys without a user in --database who can switch to their roles.
    pub fn read(config: &Config, own_secret: &Secret) -> std::result::Result<Authenticator, Box<dyn Error>> {
        let api_keys = config.api_keys_file.as_deref().map(read_api_keys).transpose()?.unwrap_or_default();
        let tokens = Keys::read(config)?;
        let smart = Smart::read(config, own_secret)?;
        let anonymous_role = config.anonymous_role.clone();
        let metadata_role = config.metadata_role.clone();
        let own_user = config.database.get_user().map(str::to_owned);
        let has_roles = anonymous_role.is_some() || metadata_role.is_some();
        if own_user.is_none() && (has_roles || !tokens.is_empty() || !api_keys.is_empty() || smart.is_some()) {
            return Err("tokens, clients, API keys and callers without credentials need a user in --database".into());
        }
        Ok(Authenticator {
            tokens,
            smart,
            api_keys,
            anonymous_role,
            metadata_role,
            own_user,
            basic: config.basic,
            basic_roles: config.basic_roles.clone(),
            trusted_proxies: config.trusted_proxies.clone(),
            public_url: config.public_url.clone(),
        })
    }

    /// The clients that may log in, unless that is off.
    pub fn smart(&self) -> Option<&Smart> {
        self.smart.as_ref()
    }

    /// Checks that no page of another site made a browser send a request.
    ///
    /// # Errors
    /// 403.
    pub fn check_site(&self, headers: &HeaderMap) -> Result<()> {
        if peer::is_foreign(headers, self.public_url.as_deref()) {
            return Err(Problem::new(StatusCode::FORBIDDEN, "a page of another site may not send this request"));
        }
        Ok(())
    }

    /// The caller of a request.
    ///
    /// # Errors
    /// 401 for missing or bad credentials, 403 if a page of another site made a browser send them. A role's password is
    /// checked later, when the role logs in.
    pub fn caller(&self, headers: &HeaderMap, peer: Peer) -> Result<Admitted> {
        if has_credentials(headers) || self.anonymous_role.is_none() {
            self.check_site(headers)?;
        }
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            let value = value.to_str().map_err(|_| Problem::unauthorized("the Authorization header is not ASCII"))?;
            let (scheme, credentials) = value.split_once(' ').unwrap_or((value, ""));
            return match scheme.to_ascii_lowercase().as_str() {
                "basic" => {
                    let from = peer::address(peer.0, headers, &self.trusted_proxies);
                    self.basic(credentials.trim(), from).map(Admitted::from)
                }
                "bearer" => self.bearer(credentials.trim()),
                _ => Err(Problem::unauthorized("the Authorization header is neither Basic nor Bearer")),
            };
        }
        if let Some(key) = headers.get("x-api-key") {
            return self.api_key(key.as_bytes()).map(Admitted::from);
        }
        match &self.anonymous_role {
            Some(role) => Ok(assume(role, Map::new()).into()),
            None if self.basic == Switch::Off => {
                Err(Problem::unauthorized("this needs credentials: Bearer or x-api-key"))
            }
            None => Err(Problem::unauthorized("this needs credentials: Basic, Bearer or x-api-key")),
        }
    }

    /// The caller of a metadata request. Credentials are optional: without them it is the role that is set for this.
    ///
    /// # Errors
    /// 401 for bad credentials; also without credentials, if no role is set and the proxy has no user of its own.
    pub fn reader_of_metadata(&self, headers: &HeaderMap, peer: Peer) -> Result<Admitted> {
        let has_credentials = has_credentials(headers);
        match (&self.metadata_role, &self.own_user) {
            (Some(role), _) if !has_credentials => Ok(assume(role, Map::new()).into()),
            (None, Some(user)) if !has_credentials && self.anonymous_role.is_none() => {
                Ok(Caller::Own(user.clone()).into())
            }
            _ => self.caller(headers, peer),
        }
    }

    fn basic(&self, credentials: &str, from: IpAddr) -> Result<Caller> {
        if self.basic == Switch::Off {
            return Err(Problem::unauthorized("this server accepts no passwords"));
        }
        let (role, password) = role_and_password(credentials)?;
        if !self.basic_roles.is_empty() && !self.basic_roles.contains(&role) {
            return Err(Problem::unauthorized(WRONG_PASSWORD).because("not among --basic-roles"));
        }
        Ok(Caller::Login { role, password, from })
    }

    fn bearer(&self, token: &str) -> Result<Admitted> {
        if let Some(holder) = self.smart.as_ref().and_then(|smart| smart.holder(token)) {
            return Ok(Admitted { caller: assume(&holder.role, holder.claims), scopes: Some(holder.scopes) });
        }
        if self.tokens.is_empty() && self.smart.is_none() {
            return Err(Problem::unauthorized("this server accepts no bearer tokens"));
        }
        self.token_of_others(token).map(Admitted::from)
    }

    fn token_of_others(&self, token: &str) -> Result<Caller> {
        let refused =
            |why: &dyn ToString| Problem::unauthorized("the bearer token is not valid").because(why.to_string());
        let claims = self.tokens.claims(token).map_err(|error| refused(&error))?;
        match (claims.get("role"), &self.anonymous_role) {
            // Neither a role's name nor a text for the database can have a NUL.
            (Some(Value::String(role)), _) if role.contains('\0') => Err(refused(&"its role has a NUL")),
            (Some(Value::String(role)), _) => Ok(assume(&role.clone(), claims)),
            (None, Some(role)) => Ok(assume(role, claims)),
            _ => Err(refused(&"it has no role claim")),
        }
    }

    fn api_key(&self, key: &[u8]) -> Result<Caller> {
        // Looked up by its digest, so that the time of the look-up reveals nothing about the keys.
        let known = <[u8; 32]>::try_from(digest(&SHA256, key).as_ref()).ok().and_then(|key| self.api_keys.get(&key));
        match known {
            Some(ApiKey { role, claims, .. }) => Ok(assume(role, claims.clone().into_iter().collect())),
            None => Err(Problem::unauthorized("the x-api-key is not known")),
        }
    }
}

/// The claims of a caller, for policies: PostgREST's `request.jwt.claims`. They always have the role.
fn assume(role: &str, mut claims: Map<String, Value>) -> Caller {
    claims.insert("role".into(), role.into());
    Caller::Assumed { role: role.to_owned(), claims: Value::Object(claims).to_string() }
}

fn has_credentials(headers: &HeaderMap) -> bool {
    headers.contains_key(header::AUTHORIZATION) || headers.contains_key("x-api-key")
}

fn role_and_password(credentials: &str) -> Result<(String, String)> {
    let decoded = BASE64_STANDARD.decode(credentials).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    match decoded.as_deref().and_then(|text| text.split_once(':')) {
        // An empty password counts as none; a NUL would cut the name short.
        Some((role, password)) if !role.is_empty() && !password.is_empty() && !role.contains('\0') => {
            Ok((role.to_owned(), password.to_owned()))
        }
        _ => Err(Problem::unauthorized("Basic credentials are base64 of role:password")),
    }
}

fn read_api_keys(path: &Path) -> std::result::Result<HashMap<[u8; 32], ApiKey>, Box<dyn Error>> {
    let in_file = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = fs::read_to_string(path).map_err(|error| in_file(&error))?;
    let json = yaml::to_json(&text, config::MOST_YAML).map_err(|error| in_file(&error))?;
    let keys: Vec<ApiKey> = serde_json::from_str(&json).map_err(|error| in_file(&error))?;
    if keys.iter().any(|key| key.role.contains('\0')) {
        return Err(in_file(&"a role has a NUL in its name").into());
    }
    let with_digest = |key: ApiKey| match sha256_from_hex(&key.sha256) {
        Some(digest) => Ok((digest, key)),
        None => Err(in_file(&"sha256 is not 64 hexadecimal digits: printf %s KEY | sha256sum").into()),
    };
    keys.into_iter().map(with_digest).collect()
}

fn sha256_from_hex(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(digest)
}
