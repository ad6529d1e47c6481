//! Public keys of a JWK set, and tokens that one key has signed.

use std::collections::HashSet;

use jsonwebtoken::errors::{Error as JwtError, ErrorKind};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::printable;

/// The claims of a token.
pub type Claims = Map<String, Value>;

/// A key with its own algorithm. It verifies with no other, so that a public key cannot be used as an HMAC secret.
#[derive(Clone)]
pub struct Key {
    /// Its `kid`.
    pub id: Option<String>,
    /// Its algorithm.
    pub algorithm: Algorithm,
    key: DecodingKey,
}

/// A JWK set. Its keys may be of unknown kinds.
#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

impl Key {
    /// A secret for HS256.
    ///
    /// # Errors
    /// An empty secret.
    pub fn of_secret(secret: &[u8]) -> Result<Key, JwtError> {
        Ok(Key { id: None, algorithm: Algorithm::HS256, key: DecodingKey::from_secret(secret)? })
    }

    /// The keys of a set that can verify tokens with one of these algorithms. A key that is unknown, incomplete or for
    /// another use is skipped (RFC 7517, 5).
    ///
    /// # Errors
    /// The text is not a JWK set, or has no such key.
    pub fn of_set(text: &str, algorithms: &[Algorithm]) -> Result<Vec<Key>, String> {
        let set: KeySet = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let keys: Vec<Key> = set.keys.into_iter().filter_map(|jwk| Key::of_jwk(jwk, algorithms)).collect();
        if keys.is_empty() {
            return Err(format!("there is no key for {} in it", names(algorithms)));
        }
        Ok(keys)
    }

    fn of_jwk(jwk: Value, algorithms: &[Algorithm]) -> Option<Key> {
        let is_for_signatures = jwk.get("use").is_none_or(|used| used == "sig");
        let may_verify =
            jwk.get("key_ops").is_none_or(|all| all.as_array().is_some_and(|all| all.contains(&"verify".into())));
        let id = jwk.get("kid").and_then(Value::as_str).map(str::to_owned);
        let found = algorithms.iter().copied().find(|algorithm| is_for(&jwk, *algorithm));
        let key = Jwk::deserialize(jwk).ok().and_then(|jwk| DecodingKey::from_jwk(&jwk).ok());
        match (key, found) {
            (Some(key), Some(algorithm)) if is_for_signatures && may_verify => Some(Key { id, algorithm, key }),
            _ => {
                let kid = id.as_deref().map(printable);
                let kinds = names(algorithms);
                tracing::warn!(kid, "a key of the JWK set is not for {kinds} signatures, and is skipped");
                None
            }
        }
    }

    /// The claims of a token that this key has signed. What they say is not checked, but for `aud` if `audience` is given.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn claims(&self, token: &str, audience: Option<&str>) -> Result<Claims, JwtError> {
        let mut validation = Validation::new(self.algorithm);
        // The library would read times as whole numbers.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.required_spec_claims = HashSet::new();
        match audience {
            Some(name) => {
                validation.set_audience(&[name]);
                validation.required_spec_claims.insert("aud".into());
            }
            None => validation.validate_aud = false,
        }
        jsonwebtoken::decode(token, &self.key, &validation).map(|token| token.claims)
    }
}

/// Whether a JWK is of the kind that an algorithm needs, and not for another algorithm.
fn is_for(jwk: &Value, algorithm: Algorithm) -> bool {
    let has = |member: &str, text: &str| jwk.get(member).is_some_and(|value| value == text);
    let is_of_kind = match algorithm {
        Algorithm::RS256 | Algorithm::RS384 => has("kty", "RSA"),
        Algorithm::ES256 => has("kty", "EC") && has("crv", "P-256"),
        Algorithm::ES384 => has("kty", "EC") && has("crv", "P-384"),
        _ => false,
    };
    is_of_kind && jwk.get("alg").is_none_or(|name| *name == *name_of(algorithm))
}

/// An algorithm's name in JOSE.
pub fn name_of(algorithm: Algorithm) -> String {
    format!("{algorithm:?}")
}

fn names(algorithms: &[Algorithm]) -> String {
    algorithms.iter().map(|algorithm| name_of(*algorithm)).collect::<Vec<_>>().join(" or ")
}

/// A claim that is a time, in seconds since 1970, perhaps with a fraction (RFC 7519, 2).
///
/// # Errors
/// It is no number.
pub fn second(claims: &Claims, name: &str) -> Result<Option<f64>, JwtError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let second = value.as_f64().filter(|second| second.is_finite());
    second.map(Some).ok_or(JwtError::from(ErrorKind::InvalidClaimFormat(name.to_owned())))
}
