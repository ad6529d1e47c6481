//! Access tokens of OAuth 2.0 that requests take with them: asked for when one is needed, by the grant of client credentials
//! (RFC 6749, 4.4; RFC 7523), kept in memory only, asked for anew before they expire and after a 401.

use crate::error::TransferError;
use crate::failure::Failure;
use crate::policy::{InvalidPolicy, Policy};
use crate::request::{Bearer, Client, Response, Status, parse};
use crate::signing_key::SigningKey;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use std::fmt;
use std::io::Read as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use ureq::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use ureq::http::{HeaderName, HeaderValue, Method};
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

/// The largest answer of a token endpoint.
const MOST_BYTES: u64 = 64 << 10;
/// The longest token.
const MOST_TOKEN: usize = 16 << 10;
/// A token is not used in the last part of its life, but at most this long.
const MARGIN: Duration = Duration::from_secs(30);
/// The longest life of a token that counts, in seconds.
const LONGEST: u64 = 24 * 60 * 60;
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// With what a client asks for tokens.
pub struct Grant {
    /// The URL of the token endpoint, as assertions name it.
    pub endpoint: String,
    /// Who the client is there.
    pub client_id: String,
    /// What proves it.
    pub proof: Proof,
    /// The scopes that it asks for, if it names any.
    pub scope: Option<String>,
}

/// What proves who a client is.
pub enum Proof {
    /// A secret, sent as RFC 6749, 2.3.1 has it.
    Secret(String),
    /// A key, which signs an assertion each time.
    Key(SigningKey),
}

/// Tokens for some URLs. Clones share them. Nothing shows them.
#[derive(Clone)]
pub struct Tokens(Arc<Shared>);

struct Shared {
    grant: Grant,
    endpoint: Url,
    /// Which token endpoints may be asked.
    policy: Policy,
    /// Which URLs a token may be sent to.
    sources: Policy,
    held: Mutex<Option<Held>>,
}

/// A token, as the value of the header, and until when it is used.
#[derive(Clone)]
struct Held {
    value: HeaderValue,
    until: Option<Instant>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("endpoint", &self.0.grant.endpoint).finish_non_exhaustive()
    }
}

/// Why no tokens can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidGrant {
    /// The token endpoint is not a URL that can be requested.
    Endpoint(TransferError),
    /// A source is not the beginning of a URL.
    Source(InvalidPolicy),
}

impl fmt::Display for InvalidGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InvalidGrant::Endpoint(error) => error.fmt(f),
            InvalidGrant::Source(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for InvalidGrant {}

impl Tokens {
    /// Tokens of a grant, whose endpoint is asked if `policy` allows it. They are sent to URLs that begin with one of
    /// `sources` (see [`Policy::within`]), and to no others.
    ///
    /// # Errors
    /// An endpoint that is no URL, a source that is no beginning of one.
    pub fn new(grant: Grant, policy: Policy, sources: &[String]) -> Result<Tokens, InvalidGrant> {
        let endpoint = parse(&grant.endpoint).map_err(InvalidGrant::Endpoint)?;
        let sources = Policy::default().within(sources).map_err(InvalidGrant::Source)?;
        Ok(Tokens(Arc::new(Shared { grant, endpoint, policy, sources, held: Mutex::default() })))
    }

    /// Asks the endpoint for a token, once, and follows no redirect.
    fn ask(&self, client: &Client) -> Result<Held, Failure> {
        let Grant { endpoint, client_id, proof, scope } = &self.0.grant;
        let failed = |why: String| TransferError::NoToken(format!("{endpoint} gave no access token: {why}"));
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if let Some(scope) = scope {
            form.append_pair("scope", scope);
        }
        let fixed = HeaderValue::from_static;
        let mut headers =
            vec![(CONTENT_TYPE, fixed("application/x-www-form-urlencoded")), (ACCEPT, fixed("application/json"))];
        match proof {
            Proof::Secret(secret) => {
                let escaped = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
                let both = format!("{}:{}", escaped(client_id), escaped(secret));
                headers
                    .push((AUTHORIZATION, hidden(&format!("Basic {}", BASE64_STANDARD.encode(both))).expect("ASCII")));
            }
            Proof::Key(key) => {
                let assertion = key.assertion(client_id, endpoint);
                let assertion = assertion.ok_or_else(|| failed("there is no random number to sign with".to_owned()))?;
                form.append_pair("client_assertion_type", ASSERTION_TYPE).append_pair("client_assertion", &assertion);
            }
        }
        let asker = client.under(&self.0.policy);
        let asked = Instant::now();
        let response = asker.send(Method::POST, &self.0.endpoint, &headers, Some(form.finish().as_bytes()));
        let response = response.map_err(|failure| {
            failure.explained(|error| match error {
                TransferError::Refused(_) => error,
                error => failed(error.to_string()),
            })
        })?;
        let (status, again) = (response.status(), Failure::of_status(response.status(), response.headers()));
        let body = body(response).map_err(|failure| failure.explained(|error| failed(error.to_string())))?;
        let answer: Option<Value> = serde_json::from_slice(&body).ok();
        if status != Status::OK {
            let code = answer.as_ref().and_then(|answer| answer["error"].as_str()).and_then(code).unwrap_or_default();
            return Err(again.explained(|error| failed(format!("{error}{code}"))));
        }
        let answer = answer.ok_or_else(|| failed("its answer is not JSON".to_owned()))?;
        if !answer["token_type"].as_str().is_some_and(|name| name.eq_ignore_ascii_case("bearer")) {
            return Err(failed("its answer has no token of type Bearer".to_owned()).into());
        }
        let token = answer["access_token"].as_str().filter(|token| (1..=MOST_TOKEN).contains(&token.len()));
        let value = token.and_then(|token| hidden(&format!("Bearer {token}")));
        let value = value.ok_or_else(|| failed("its answer has no token that can be sent".to_owned()))?;
        Ok(Held { value, until: life(&answer["expires_in"]).map(|life| asked + life - MARGIN.min(life / 2)) })
    }
}

impl Bearer for Tokens {
    fn is_for(&self, url: &Url) -> bool {
        self.0.sources.is_within(url)
    }

    fn not_for(&self, url: &str) -> TransferError {
        TransferError::NoToken(format!("{url} is none of the sources that tokens of {} are for", self.0.grant.endpoint))
    }

    fn header(&self, refused: Option<&HeaderValue>, client: &Client) -> Result<(HeaderName, HeaderValue), Failure> {
        // Others wait for the answer, and use the same token.
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        let usable = held
            .as_ref()
            .filter(|held| refused != Some(&held.value) && held.until.is_none_or(|until| Instant::now() < until));
        if let Some(usable) = usable {
            return Ok((AUTHORIZATION, usable.value.clone()));
        }
        *held = None;
        let new = self.ask(client)?;
        let value = new.value.clone();
        *held = Some(new);
        Ok((AUTHORIZATION, value))
    }
}

impl Client {
    /// Also sends an access token, to the server of each URL that it reads, as headers that it is given. A URL that tokens are
    /// not for is an error.
    pub fn with_tokens(self, tokens: Option<Tokens>) -> Client {
        self.with_bearer(tokens.map(|tokens| Arc::new(tokens) as Arc<dyn Bearer>))
    }
}

/// A value of a header that nothing shows; `None` if it cannot be sent.
fn hidden(text: &str) -> Option<HeaderValue> {
    let mut value =
        HeaderValue::from_str(text).ok().filter(|_| text.bytes().all(|byte| matches!(byte, b' '..=b'~')))?;
    value.set_sensitive(true);
    Some(value)
}

/// How long a token is valid by its `expires_in`, which some servers write as a string; `None` if it does not say.
fn life(expires_in: &Value) -> Option<Duration> {
    let seconds = expires_in.as_u64().or_else(|| expires_in.as_str()?.trim().parse().ok())?;
    Some(Duration::from_secs(seconds.min(LONGEST)))
}

/// The code of an error as RFC 6749, 5.2 has it, for a message: nothing else of an answer is shown.
fn code(text: &str) -> Option<String> {
    let is_code = (1..=40).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'_'));
    is_code.then(|| format!(" ({text})"))
}

fn body(response: Response) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let mut body = response.into_body().into_reader().take(MOST_BYTES + 1);
    body.read_to_end(&mut bytes)
        .map_err(|error| Failure::of_transport("the connection broke: ", &ureq::Error::Io(error)))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(TransferError::Network(format!("its answer has more than {MOST_BYTES} bytes")).into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_token_is_for_its_sources_only_and_shown_nowhere() {
        let proof = Proof::Secret("geheim".to_owned());
        let endpoint = "https://as.example/token".to_owned();
        let grant = Grant { endpoint, client_id: "c".to_owned(), proof, scope: None };
        let tokens = Tokens::new(grant, Policy::default(), &["https://fhir.example/bulk/".to_owned()]).unwrap();
        let is_for = |url: &str| tokens.is_for(&Url::parse(url).unwrap());
        assert!(is_for("https://fhir.example/bulk/m.json?x=1"));
        for url in [
            "https://fhir.example/other",
            "http://fhir.example/bulk/m",
            "https://fhir.example:8443/bulk/m",
            "https://fhir.example.evil/bulk/m",
            "https://fhir.example/bulk/..%2Fm",
        ] {
            assert!(!is_for(url), "{url}");
        }
        assert!(!format!("{tokens:?}").contains("geheim"));
        assert!(hidden("Bearer a\r\nHost: x").is_none() && hidden("Bearer ä").is_none());
        assert!(!format!("{:?}", hidden("Bearer geheim")).contains("geheim"));
    }

    #[test]
    fn only_the_code_of_an_error_is_shown() {
        assert_eq!(code("invalid_client").as_deref(), Some(" (invalid_client)"));
        for text in ["", "token eyJ", "a\nb", &"x".repeat(41)] {
            assert_eq!(code(text), None, "{text}");
        }
    }

    #[test]
    fn a_life_may_be_a_number_or_a_string() {
        assert_eq!(life(&json!(300)), Some(Duration::from_secs(300)));
        assert_eq!(life(&json!("300")), Some(Duration::from_secs(300)));
        assert_eq!(life(&json!(u64::MAX)), Some(Duration::from_secs(LONGEST)));
        for none in [json!(null), json!("soon"), json!(-1)] {
            assert_eq!(life(&none), None, "{none}");
        }
    }
}
