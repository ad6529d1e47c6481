//! Verifies bearer tokens: HS256 with a shared secret, RS256 and ES256 with the public keys of a JWK set.

use std::error::Error;
use std::fs;
use std::time::SystemTime;

use jsonwebtoken::Algorithm;
use jsonwebtoken::errors::{Error as JwtError, ErrorKind};

use crate::config::{Config, read_hmac_secret};
use crate::jose::keys::{Claims, Key, second};
use crate::jose::provider;

/// The allowed difference between clocks, in seconds, as in PostgREST.
const LEEWAY: f64 = 30.0;

/// The keys that tokens are checked with.
pub struct Keys {
    keys: Vec<Key>,
    audience: Option<String>,
}

impl Keys {
    /// Reads the secret and the JWK set, if they are configured.
    ///
    /// # Errors
    /// An error in a file; a secret that is too short; a set without a usable key.
    pub fn read(config: &Config) -> Result<Keys, Box<dyn Error>> {
        provider::install();
        let mut keys = Vec::new();
        if let Some(path) = &config.jwt_secret_file {
            keys.push(Key::of_secret(read_hmac_secret(path)?.as_bytes())?);
        }
        if let Some(path) = &config.jwks_file {
            let in_file = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
            let text = fs::read_to_string(path).map_err(|e| in_file(&e))?;
            keys.extend(Key::of_set(&text, &[Algorithm::RS256, Algorithm::ES256]).map_err(|e| in_file(&e))?);
        }
        Ok(Keys { keys, audience: config.jwt_audience.clone() })
    }

    /// Whether any token can be valid.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Verifies a token: its signature, time and audience. Returns its claims.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn claims(&self, token: &str) -> Result<Claims, JwtError> {
        let header = jsonwebtoken::decode_header(token)?;
        if header.crit.is_some() {
            // `crit` lists extensions that must be understood; none is understood here (RFC 7515, 4.1.11).
            return Err(ErrorKind::InvalidToken.into());
        }
        let mut refused = ErrorKind::InvalidAlgorithm.into();
        // A key is used only with its own algorithm, so that a public key cannot be used as an HMAC secret.
        for key in self.keys.iter().filter(|key| key.algorithm == header.alg) {
            if header.kid.is_some() && key.id.is_some() && header.kid != key.id {
                continue;
            }
            match key.claims(token, self.audience.as_deref()) {
                Ok(claims) => return in_time(&claims).map(|()| claims),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }
}

/// Whether a token is valid now, by `nbf` and `exp`. As in PostgREST, one without `exp` is valid as long as its key.
fn in_time(claims: &Claims) -> Result<(), JwtError> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
    if second(claims, "exp")?.is_some_and(|exp| exp + LEEWAY < now) {
        return Err(ErrorKind::ExpiredSignature.into());
    }
    if second(claims, "nbf")?.is_some_and(|nbf| nbf - LEEWAY > now) {
        return Err(ErrorKind::ImmatureSignature.into());
    }
    Ok(())
}
