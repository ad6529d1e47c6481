//! Verifies bearer tokens: HS256 with a shared secret, RS256 and ES256 with the public keys of a JWK set.

use std::collections::HashSet;
use std::error::Error;
use std::fs;
use std::time::SystemTime;

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error as JwtError, ErrorKind};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, Validation};
use ring::hmac;
use ring::signature::{ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256};
use ring::signature::{RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::config::{Config, read_secret};
use crate::error::printable;

/// The allowed difference between clocks, in seconds, as in PostgREST.
const LEEWAY: f64 = 30.0;
/// The shortest HS256 secret: it must be as long as the hash (RFC 7518, 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// The keys that tokens are checked with.
pub struct Keys {
    keys: Vec<Key>,
    audience: Option<String>,
}

struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// A JWK set. Its keys may be of unknown kinds.
#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

impl Key {
    /// A key of a set, if it can verify tokens. A key that is unknown, incomplete or for another use is skipped (RFC 7517,
    /// 5).
    fn of_set(jwk: Value) -> Option<Key> {
        let is_for_signatures = jwk.get("use").is_none_or(|used| used == "sig");
        let may_verify =
            jwk.get("key_ops").is_none_or(|all| all.as_array().is_some_and(|all| all.contains(&"verify".into())));
        let id = jwk.get("kid").and_then(Value::as_str).map(str::to_owned);
        let named = jwk.get("alg").cloned();
        let is_other_curve = jwk.get("crv").is_some_and(|curve| curve != "P-256");
        let key = Jwk::deserialize(jwk).ok().and_then(|jwk| DecodingKey::from_jwk(&jwk).ok());
        let algorithm = key.as_ref().and_then(|key| match (key.family(), named.as_ref().map(|name| name.as_str())) {
            (AlgorithmFamily::Rsa, None | Some(Some("RS256"))) => Some(Algorithm::RS256),
            (AlgorithmFamily::Ec, None | Some(Some("ES256"))) if !is_other_curve => Some(Algorithm::ES256),
            _ => None,
        });
        match (key, algorithm) {
            (Some(key), Some(algorithm)) if is_for_signatures && may_verify => Some(Key { id, algorithm, key }),
            _ => {
                let kid = id.as_deref().map(printable);
                tracing::warn!(kid, "a key of the JWK set is not for RS256 or ES256 signatures, and is skipped");
                None
            }
        }
    }
}

impl Keys {
    /// Reads the secret and the JWK set, if they are configured.
    ///
    /// # Errors
    /// An error in a file; a secret that is too short; a set without a usable key.
    pub fn read(config: &Config) -> Result<Keys, Box<dyn Error>> {
        // Fails only if it has been done already.
        let _ = PROVIDER.install_default();
        let mut keys = Vec::new();
        if let Some(path) = &config.jwt_secret_file {
            let secret = read_secret(path)?;
            if secret.len() < MIN_SECRET_BYTES {
                return Err(format!("{}: the secret has fewer than {MIN_SECRET_BYTES} bytes", path.display()).into());
            }
            let key = DecodingKey::from_secret(secret.as_bytes())?;
            keys.push(Key { id: None, algorithm: Algorithm::HS256, key });
        }
        if let Some(path) = &config.jwks_file {
            let in_file = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
            let text = fs::read_to_string(path).map_err(|e| in_file(&e))?;
            let set: KeySet = serde_json::from_str(&text).map_err(|e| in_file(&e))?;
            let before = keys.len();
            keys.extend(set.keys.into_iter().filter_map(Key::of_set));
            if keys.len() == before {
                return Err(in_file(&"there is no key for RS256 or ES256 in it").into());
            }
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
    pub fn claims(&self, token: &str) -> Result<Map<String, Value>, JwtError> {
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
            match jsonwebtoken::decode(token, &key.key, &self.validation(key.algorithm)) {
                Ok(token) => return in_time(&token.claims).map(|()| token.claims),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        // `in_time` checks the times, because the library would read them as whole numbers.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        // As in PostgREST, a token without `exp` is valid as long as its key.
        validation.required_spec_claims = HashSet::new();
        match &self.audience {
            Some(name) => {
                validation.set_audience(&[name]);
                validation.required_spec_claims.insert("aud".into());
            }
            None => validation.validate_aud = false,
        }
        validation
    }
}

/// Whether a token is valid now, by `nbf` and `exp`. Seconds may have a fraction (RFC 7519, 2).
fn in_time(claims: &Map<String, Value>) -> Result<(), JwtError> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
    let second = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(value) => {
            let second = value.as_f64().filter(|second| second.is_finite());
            second.map(Some).ok_or(JwtError::from(ErrorKind::InvalidClaimFormat(name.to_owned())))
        }
    };
    if second("exp")?.is_some_and(|exp| exp + LEEWAY < now) {
        return Err(ErrorKind::ExpiredSignature.into());
    }
    if second("nbf")?.is_some_and(|nbf| nbf - LEEWAY > now) {
        return Err(ErrorKind::ImmatureSignature.into());
    }
    Ok(())
}

/// `jsonwebtoken` with the cryptography library that TLS needs anyway.
static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    verifier_factory: |algorithm, key| match algorithm {
        Algorithm::HS256 | Algorithm::RS256 | Algorithm::ES256 => {
            Ok(Box::new(RingVerifier { algorithm: *algorithm, key: key.clone() }))
        }
        _ => Err(ErrorKind::UnsupportedAlgorithm.into()),
    },
    key_utils: KeyUtils::new_unimplemented(),
};

struct RingVerifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let verified = match (self.algorithm, self.key.family(), self.key.kind()) {
            (Algorithm::HS256, AlgorithmFamily::Hmac, DecodingKeyKind::SecretOrDer(secret)) => {
                hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, secret), message, signature)
            }
            (Algorithm::RS256, AlgorithmFamily::Rsa, DecodingKeyKind::RsaModulusExponent { n, e }) => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            (Algorithm::ES256, AlgorithmFamily::Ec, DecodingKeyKind::SecretOrDer(point)) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            _ => Err(ring::error::Unspecified),
        };
        verified.map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
