//! The public keys of a client: given in the file of clients, or read from a URL that the file names.

use std::error::Error;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use fhir_bulk_transfer::{Authorities, Client, Document, Limits, Origin, Policy, TransferError};
use jsonwebtoken::Algorithm;

use crate::error::printable;
use crate::jose::keys::Key;

/// The algorithms of assertions.
pub const ALGORITHMS: [Algorithm; 2] = [Algorithm::RS384, Algorithm::ES384];

/// The most bytes of a key set that is read from a URL.
const MOST_BYTES: u64 = 64 << 10;
/// How long reading it may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a URL is read at most: nobody can make the proxy ask more often by naming keys that do not exist.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// How long keys are used if the server of the URL does not say.
const FRESH: Duration = Duration::from_secs(5 * 60);
/// How long keys are used at most, whatever the server says.
const MOST_FRESH: Duration = Duration::from_secs(60 * 60);

/// The public keys of a client.
pub enum KeySet {
    /// Those in the file.
    Fixed(Vec<Key>),
    /// Those at a URL.
    Remote(Arc<Remote>),
}

impl KeySet {
    /// The keys that may have signed an assertion with this `kid` and algorithm. A key without a `kid` may have signed any.
    pub async fn keys(&self, id: &str, algorithm: Algorithm) -> Vec<Key> {
        match self {
            KeySet::Fixed(keys) => fitting(keys, id, algorithm),
            KeySet::Remote(remote) => remote.clone().keys(id, algorithm).await,
        }
    }
}

fn fitting(keys: &[Key], id: &str, algorithm: Algorithm) -> Vec<Key> {
    let fits = |key: &&Key| key.algorithm == algorithm && key.id.as_deref().is_none_or(|own| own == id);
    keys.iter().filter(fits).cloned().collect()
}

/// Keys that are read from a URL when they are needed.
pub struct Remote {
    url: String,
    client: Client,
    known: RwLock<Known>,
    /// When the URL was last asked. Locked while it is.
    asked: tokio::sync::Mutex<Option<Instant>>,
}

/// What was read.
#[derive(Default)]
struct Known {
    keys: Vec<Key>,
    until: Option<Instant>,
}

impl Remote {
    /// The keys at an https URL, at whatever address its host has. Redirects are not followed.
    ///
    /// # Errors
    /// It is no such URL.
    pub fn new(url: &str, authorities: Authorities) -> Result<Remote, Box<dyn Error>> {
        let policy = match Origin::url(url)? {
            Origin::Url(parsed) if parsed.scheme() == "https" => Policy::default().and_below(&parsed),
            _ => return Err("it is not https".into()),
        };
        let limits = Limits { connect: PATIENCE, idle: PATIENCE, redirects: 0, retries: 0 };
        let client = Client::new(policy, limits, authorities);
        Ok(Remote { url: url.to_owned(), client, known: RwLock::default(), asked: tokio::sync::Mutex::default() })
    }

    async fn keys(self: Arc<Remote>, id: &str, algorithm: Algorithm) -> Vec<Key> {
        let known = self.known(id, algorithm, Instant::now());
        if !known.is_empty() {
            return known;
        }
        // A task of its own, which goes on if the caller disconnects: otherwise the only attempt of a minute could be wasted.
        let (remote, name) = (self.clone(), id.to_owned());
        let asked = async move { remote.ask(&name, algorithm, Instant::now(), async || remote.read().await).await };
        let _ = tokio::spawn(asked).await;
        self.known(id, algorithm, Instant::now())
    }

    /// The fitting keys of those that are fresh.
    fn known(&self, id: &str, algorithm: Algorithm, now: Instant) -> Vec<Key> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        match known.until {
            Some(until) if now < until => fitting(&known.keys, id, algorithm),
            _ => Vec::new(),
        }
    }

    /// Reads the URL, unless another request has just done it.
    async fn ask(
        &self,
        id: &str,
        algorithm: Algorithm,
        now: Instant,
        read: impl AsyncFnOnce() -> Result<Document, TransferError>,
    ) {
        let mut asked = self.asked.lock().await;
        let is_soon = asked.is_some_and(|at| now.duration_since(at) < ASK_AGAIN);
        if is_soon || !self.known(id, algorithm, now).is_empty() {
            return;
        }
        *asked = Some(now);
        let result = read().await.map_err(|error| error.to_string()).and_then(|document| {
            let text = String::from_utf8(document.bytes).map_err(|error| error.to_string())?;
            Ok((Key::of_set(&text, &ALGORITHMS)?, fresh(document.cache_control.as_deref())))
        });
        match result {
            Ok((keys, time)) => {
                let new = Known { keys, until: Some(now + time) };
                *self.known.write().unwrap_or_else(PoisonError::into_inner) = new;
            }
            Err(why) => tracing::warn!(url = self.url, why = printable(&why), "the keys of a client cannot be read"),
        }
    }

    async fn read(&self) -> Result<Document, TransferError> {
        let (url, client) = (self.url.clone(), self.client.renewed());
        let read = tokio::task::spawn_blocking(move || Document::fetch(&url, client, MOST_BYTES, PATIENCE)).await;
        read.unwrap_or_else(|error| Err(TransferError::Network(error.to_string())))
    }
}

/// How long keys may be used, by Cache-Control (RFC 9111, 5.2.2): never shorter than the time between two requests.
fn fresh(cache_control: Option<&str>) -> Duration {
    let mut time = FRESH;
    for directive in cache_control.unwrap_or_default().split(',').map(str::trim) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => return ASK_AGAIN,
            "max-age" => time = value.trim_matches('"').parse().map_or(ASK_AGAIN, Duration::from_secs),
            _ => {}
        }
    }
    time.clamp(ASK_AGAIN, MOST_FRESH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_fresh_for_as_long_as_their_server_says_within_reason() {
        for (cache_control, seconds) in [
            (None, 300),
            (Some("public"), 300),
            (Some("max-age=120"), 120),
            (Some("public, Max-Age=\"120\", must-revalidate"), 120),
            (Some("max-age=5"), 60),
            (Some("max-age=999999"), 3600),
            (Some("max-age=many"), 60),
            (Some("max-age=600, no-cache"), 60),
            (Some("no-store"), 60),
        ] {
            assert_eq!(fresh(cache_control), Duration::from_secs(seconds), "{cache_control:?}");
        }
    }

    #[tokio::test]
    async fn an_unknown_key_is_looked_for_once_a_minute_and_old_keys_are_forgotten() {
        let remote = Remote::new("https://example.org/jwks", Authorities::default()).unwrap();
        let set = |id: &str| {
            let key = format!(r#"{{"kty": "RSA", "kid": "{id}", "n": "AQAB", "e": "AQAB"}}"#);
            let bytes = format!(r#"{{"keys": [{key}]}}"#).into_bytes();
            Ok(Document { bytes, cache_control: Some("max-age=100".to_owned()) })
        };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        // Whether the URL is asked, and whether the key is known then.
        let ask = async |id: &str, seconds, answer: Result<Document, TransferError>| {
            let mut is_asked = false;
            remote
                .ask(id, Algorithm::RS384, at(seconds), async || {
                    is_asked = true;
                    answer
                })
                .await;
            (is_asked, !remote.known(id, Algorithm::RS384, at(seconds)).is_empty())
        };
        assert_eq!(ask("old", 0, Err(TransferError::UnknownAuthority)).await, (true, false));
        assert_eq!(ask("old", 59, set("old")).await, (false, false));
        assert_eq!(ask("old", 60, set("old")).await, (true, true));
        assert_eq!(ask("new", 100, set("new")).await, (false, false));
        // A failure does not forget what is known.
        assert_eq!(ask("new", 130, Err(TransferError::Changed)).await, (true, false));
        assert_eq!(ask("old", 135, set("new")).await, (false, true));
        assert_eq!(ask("old", 159, set("new")).await, (false, true));
        assert_eq!(ask("old", 161, set("new")).await, (false, false));
        assert_eq!(ask("old", 191, set("new")).await, (true, false));
        assert_eq!(ask("new", 192, set("old")).await, (false, true));
    }

    #[test]
    fn keys_are_read_over_https_only() {
        for url in ["http://example.org/jwks", "ftp://example.org", "https://", "https://u:p@example.org/", "jwks", ""]
        {
            assert!(Remote::new(url, Authorities::default()).is_err(), "{url}");
        }
        assert!(Remote::new("https://10.0.0.1:8443/jwks?a=b", Authorities::default()).is_ok());
    }
}
