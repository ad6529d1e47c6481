//! Access tokens that the proxy itself signs.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use ring::rand::SecureRandom as _;
use serde_json::json;

use crate::jose::keys::{Claims, Key, second};

/// How long a token is valid, in seconds.
pub const LIFETIME: u64 = 300;
/// The `typ` of access tokens (RFC 9068).
const TYPE: &str = "at+jwt";

/// A secret of the process's own.
pub type Secret = [u8; 32];

/// A new random secret.
///
/// # Errors
/// The system has no random numbers.
pub fn random() -> Result<Secret, String> {
    let mut secret = Secret::default();
    ring::rand::SystemRandom::new().fill(&mut secret).map_err(|_| "the system has no random numbers".to_owned())?;
    Ok(secret)
}

/// Signs tokens, and knows them again.
pub struct Tokens {
    signs: EncodingKey,
    verifies: Key,
    issuer: String,
}

impl Tokens {
    /// With a secret, for an address of the proxy.
    ///
    /// # Errors
    /// An empty secret.
    pub fn new(secret: &[u8], issuer: &str) -> Result<Tokens, jsonwebtoken::errors::Error> {
        let (signs, verifies) = (EncodingKey::from_secret(secret)?, Key::of_secret(secret)?);
        Ok(Tokens { signs, verifies, issuer: issuer.to_owned() })
    }

    /// A token of a client with these scopes.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn issue(&self, client: &str, scopes: &str) -> Result<String, String> {
        let id: String = random()?[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        let now = now() as u64;
        let header = Header { typ: Some(TYPE.to_owned()), ..Header::new(Algorithm::HS256) };
        let claims =
            json!({"iss": self.issuer, "sub": client, "scope": scopes, "iat": now, "exp": now + LIFETIME, "jti": id});
        jsonwebtoken::encode(&header, &claims, &self.signs).map_err(|error| error.to_string())
    }

    /// The claims of a token that was issued here and has not expired; `None` for any other.
    pub fn claims(&self, token: &str) -> Option<Claims> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        if header.typ.as_deref() != Some(TYPE) || header.alg != Algorithm::HS256 {
            return None;
        }
        let claims = self.verifies.claims(token, None).ok()?;
        let is_own = claims.get("iss").is_some_and(|issuer| *issuer == *self.issuer);
        let end = second(&claims, "exp").ok()??;
        (is_own && now() < end).then_some(claims)
    }
}

/// The time, in seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jose::provider;

    #[test]
    fn a_token_is_known_again_by_who_has_its_secret_and_address() {
        provider::install();
        let of = |secret: u8, issuer| Tokens::new(&[secret; 32], issuer).unwrap();
        let (here, token) = (of(1, "https://a"), of(1, "https://a").issue("client", "system/*.rs").unwrap());
        let claims = here.claims(&token).unwrap();
        assert_eq!((claims["sub"].as_str(), claims["scope"].as_str()), (Some("client"), Some("system/*.rs")));
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 300);
        assert_ne!(here.issue("client", "system/*.rs").unwrap(), token);
        assert!(of(2, "https://a").claims(&token).is_none() && of(1, "https://b").claims(&token).is_none());
        let past = json!({"iss": "https://a", "sub": "client", "scope": "", "exp": 1_000_000_000});
        let typed = Header { typ: Some(TYPE.to_owned()), ..Header::new(Algorithm::HS256) };
        let signed = |header: &Header, claims| jsonwebtoken::encode(header, &claims, &here.signs).unwrap();
        assert!(here.claims(&signed(&typed, past)).is_none());
        // A token that somebody else signed with the same secret for other purposes is none of these.
        let other = json!({"iss": "https://a", "sub": "client", "scope": "system/*.*", "exp": 4_000_000_000_u64});
        assert!(here.claims(&signed(&typed, other.clone())).is_some());
        assert!(here.claims(&signed(&Header::new(Algorithm::HS256), other)).is_none());
    }
}
