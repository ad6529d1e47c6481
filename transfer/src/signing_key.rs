//! Private keys that a client logs in with, and the tokens that it signs with them (RFC 7523, as SMART narrows it).

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA384, RsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// How long an assertion is valid, in seconds. Servers allow five minutes, and their clocks may be behind.
const VALID_FOR: u64 = 240;
/// The bytes of a `jti`.
const RANDOM_BYTES: usize = 24;

/// A private key for RS384 or ES384, with its `kid`. Nothing shows it.
pub struct SigningKey {
    id: String,
    pair: Pair,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Elliptic(Box<EcdsaKeyPair>),
}

/// Why a text is no key that can sign. It never has any of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidKey(&'static str);

impl fmt::Display for InvalidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidKey {}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Reads a key in PEM: PKCS #8, or PKCS #1 for RSA. RSA has 2048 to 4096 bits, an elliptic curve is P-384.
    ///
    /// # Errors
    /// It is no such key.
    pub fn parse(pem: &str, id: &str) -> Result<SigningKey, InvalidKey> {
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| InvalidKey("it is not a private key in PEM: -----BEGIN PRIVATE KEY----- ..."))?;
        let pair = match &key {
            PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()).ok().map(Pair::rsa),
            PrivateKeyDer::Pkcs8(key) => {
                let (der, algorithm) = (key.secret_pkcs8_der(), &ECDSA_P384_SHA384_FIXED_SIGNING);
                let elliptic = || EcdsaKeyPair::from_pkcs8(algorithm, der, &SystemRandom::new()).ok();
                RsaKeyPair::from_pkcs8(der).ok().map(Pair::rsa).or_else(|| elliptic().map(Box::new).map(Pair::Elliptic))
            }
            _ => None,
        };
        let unknown = InvalidKey("it is neither an RSA key of 2048 to 4096 bits nor one of the curve P-384 in PKCS #8");
        Ok(SigningKey { id: id.to_owned(), pair: pair.ok_or(unknown)? })
    }

    /// An assertion that this client asks `audience` for a token now. `None` if the system has no random numbers.
    pub(crate) fn assertion(&self, client: &str, audience: &str) -> Option<String> {
        let mut random = [0; RANDOM_BYTES];
        SystemRandom::new().fill(&mut random).ok()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        self.sign(&json!({
            "iss": client, "sub": client, "aud": audience, "exp": now + VALID_FOR,
            "jti": BASE64_URL_SAFE_NO_PAD.encode(random),
        }))
    }

    fn sign(&self, claims: &Value) -> Option<String> {
        let algorithm = match &self.pair {
            Pair::Rsa(_) => "RS384",
            Pair::Elliptic(_) => "ES384",
        };
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&json!({"alg": algorithm, "typ": "JWT", "kid": self.id})), part(claims));
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA384, &random, signed.as_bytes(), &mut signature).ok()?;
                signature
            }
            Pair::Elliptic(pair) => pair.sign(&random, signed.as_bytes()).ok()?.as_ref().to_vec(),
        };
        Some(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }
}

impl Pair {
    fn rsa(pair: RsaKeyPair) -> Pair {
        Pair::Rsa(Box::new(pair))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::prelude::BASE64_STANDARD;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED, KeyPair as _, UnparsedPublicKey};

    fn pem(label: &str, der: &[u8]) -> String {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der))
    }

    fn elliptic() -> Vec<u8> {
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        made.as_ref().to_vec()
    }

    #[test]
    fn an_assertion_is_for_one_endpoint_for_less_than_five_minutes_and_never_twice_the_same() {
        let der = elliptic();
        let key = SigningKey::parse(&pem("PRIVATE KEY", &der), "k-1").unwrap();
        let made = || key.assertion("client", "https://as.example/token").unwrap();
        let (one, other) = (made(), made());
        let parts: Vec<&str> = one.split('.').collect();
        let json =
            |part: &str| -> Value { serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap() };
        assert_eq!(json(parts[0]), json!({"alg": "ES384", "typ": "JWT", "kid": "k-1"}));
        let claims = json(parts[1]);
        assert_eq!((&claims["iss"], &claims["sub"]), (&json!("client"), &json!("client")));
        assert_eq!(claims["aud"], "https://as.example/token");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let end = claims["exp"].as_u64().unwrap();
        assert!(end > now && end <= now + 300, "{claims}");
        assert!(claims["jti"].as_str().unwrap().len() >= 22, "{claims}");
        assert_ne!(claims["jti"], json(other.split('.').nth(1).unwrap())["jti"]);
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &der, &SystemRandom::new()).unwrap();
        let public = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, pair.public_key().as_ref());
        let (signed, signature) = one.rsplit_once('.').unwrap();
        public.verify(signed.as_bytes(), &BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    }

    #[test]
    fn what_is_no_key_that_can_sign_is_refused_without_showing_it() {
        let small = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        for text in [
            String::new(),
            "geheim".to_owned(),
            pem("CERTIFICATE", b"geheim"),
            pem("PRIVATE KEY", b"geheim"),
            pem("RSA PRIVATE KEY", b"geheim"),
            pem("EC PRIVATE KEY", b"geheim"),
            pem("PRIVATE KEY", small.as_ref()),
        ] {
            let refused = SigningKey::parse(&text, "k").unwrap_err().to_string();
            assert!(!refused.contains("geheim"), "{refused}");
        }
        let key = SigningKey::parse(&pem("PRIVATE KEY", &elliptic()), "k").unwrap();
        assert_eq!(format!("{key:?}"), "SigningKey { id: \"k\", .. }");
    }
}
