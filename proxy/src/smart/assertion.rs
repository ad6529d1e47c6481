//! Assertions: tokens that clients sign with their own keys to log in (RFC 7523, as SMART narrows it).

use std::time::SystemTime;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::Value;

use super::clients::Client;
use super::key_set::ALGORITHMS;
use crate::jose::keys::{Claims, name_of, second};

/// How far ahead an assertion may end, in seconds.
const LONGEST: f64 = 300.0;
/// By how much a client's clock may be ahead, in seconds.
const AHEAD: f64 = 10.0;
/// The longest `jti`.
const MOST_JTI: usize = 255;
/// Members of the header that would bring a key, or say where to get one. Keys are those of the file of clients only.
const FOREIGN_KEYS: [&str; 3] = ["jku", "x5u", "jwk"];

/// What an assertion says of itself, before its signature is checked.
pub struct Assertion<'a> {
    text: &'a str,
    /// The client, by `iss` and `sub`.
    pub client: String,
    key_id: String,
    algorithm: Algorithm,
}

/// A verified assertion, which may be used once.
pub struct Ticket {
    /// Its `jti`.
    pub id: String,
    /// Until when it is valid, in seconds since 1970.
    pub end: f64,
}

/// Why an assertion is refused.
#[derive(Debug)]
pub struct Refused {
    /// The reason.
    pub why: String,
    /// Whether the client has proved who it is, and so may hear the reason.
    pub is_proved: bool,
}

impl Refused {
    fn before(why: impl Into<String>) -> Refused {
        Refused { why: why.into(), is_proved: false }
    }

    fn after(why: impl Into<String>) -> Refused {
        Refused { why: why.into(), is_proved: true }
    }
}

impl<'a> Assertion<'a> {
    /// Reads the header, and who the assertion says it is from.
    ///
    /// # Errors
    /// It is no token, is not signed with one of the algorithms, says where its key is, or is from nobody.
    pub fn parse(text: &'a str) -> Result<Assertion<'a>, Refused> {
        let mut parts = text.split('.');
        let (header, claims) = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(header), Some(claims), Some(_), None) => (json(header)?, json(claims)?),
            _ => return Err(Refused::before("it is no signed token")),
        };
        if let Some(name) = FOREIGN_KEYS.into_iter().find(|name| header.contains_key(*name)) {
            return Err(Refused::before(format!("its header has {name}")));
        }
        if header.contains_key("crit") {
            // It lists extensions that must be understood; none is understood here (RFC 7515, 4.1.11).
            return Err(Refused::before("its header has crit"));
        }
        let named = header.get("alg").and_then(Value::as_str);
        let algorithm = ALGORITHMS.into_iter().find(|algorithm| named == Some(&name_of(*algorithm)));
        let algorithm = algorithm.ok_or_else(|| Refused::before("its alg is neither RS384 nor ES384"))?;
        let key_id = header.get("kid").and_then(Value::as_str).ok_or_else(|| Refused::before("it has no kid"))?;
        match (claims.get("iss").and_then(Value::as_str), claims.get("sub").and_then(Value::as_str)) {
            (Some(issuer), Some(subject)) if issuer == subject => {
                Ok(Assertion { text, client: issuer.to_owned(), key_id: key_id.to_owned(), algorithm })
            }
            _ => Err(Refused::before("its iss and sub are not one client")),
        }
    }

    /// Verifies the signature with the keys of the client, then what it says, for a token endpoint.
    ///
    /// # Errors
    /// Why it is refused.
    pub async fn verify(&self, client: Option<&Client>, endpoint: &str) -> Result<Ticket, Refused> {
        let client = client.ok_or_else(|| Refused::before("the client is not known"))?;
        let keys = client.keys.keys(&self.key_id, self.algorithm).await;
        let claims = keys.iter().find_map(|key| key.claims(self.text, None).ok());
        let claims = claims.ok_or_else(|| {
            let why =
                if keys.is_empty() { "no key of the client has its kid and alg" } else { "its signature is wrong" };
            Refused::before(why)
        })?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
        ticket(&claims, endpoint, now).map_err(Refused::after)
    }
}

/// Checks the claims of an assertion whose signature is right.
fn ticket(claims: &Claims, endpoint: &str, now: f64) -> Result<Ticket, String> {
    let audience = match claims.get("aud") {
        Some(Value::Array(names)) if names.len() == 1 => &names[0],
        Some(name) => name,
        None => &Value::Null,
    };
    if audience != endpoint {
        return Err(format!("its aud is not {endpoint}"));
    }
    let end = second(claims, "exp").map_err(|error| error.to_string())?.ok_or("it has no exp")?;
    let start = second(claims, "nbf").map_err(|error| error.to_string())?;
    if end <= now {
        return Err("it has expired".to_owned());
    }
    if end > now + LONGEST + AHEAD {
        return Err(format!("its exp is more than {LONGEST} seconds ahead"));
    }
    if start.is_some_and(|start| start > now + AHEAD) {
        return Err("it is not valid yet".to_owned());
    }
    match claims.get("jti").and_then(Value::as_str) {
        Some(id) if (1..=MOST_JTI).contains(&id.len()) => Ok(Ticket { id: id.to_owned(), end }),
        _ => Err(format!("its jti is no text of 1 to {MOST_JTI} bytes")),
    }
}

/// A part of a token: an object in base64.
fn json(part: &str) -> Result<Claims, Refused> {
    let wrong = || Refused::before("it is no token");
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| wrong())?;
    serde_json::from_slice(&bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ENDPOINT: &str = "https://fhir.example.org/auth/token";
    const NOW: f64 = 1_800_000_000.5;

    fn refusal(change: impl FnOnce(&mut Claims)) -> Option<String> {
        let claims = json!({"aud": ENDPOINT, "exp": NOW + 300.0, "jti": "1"});
        let Value::Object(mut claims) = claims else { panic!("an object") };
        change(&mut claims);
        ticket(&claims, ENDPOINT, NOW).err()
    }

    #[test]
    fn an_assertion_is_for_this_endpoint_and_for_five_minutes_at_most() {
        assert_eq!(refusal(|_| ()), None);
        assert_eq!(refusal(|claims| drop(claims.insert("aud".into(), json!([ENDPOINT])))), None);
        assert_eq!(refusal(|claims| drop(claims.insert("exp".into(), json!(NOW + 0.1)))), None);
        for (name, value) in [
            ("aud", json!("https://fhir.example.org/auth/token/")),
            ("aud", json!("https://fhir.example.org")),
            ("aud", json!([ENDPOINT, ENDPOINT])),
            ("aud", json!([])),
            ("aud", Value::Null),
            ("exp", json!(NOW)),
            ("exp", json!(NOW + 311.0)),
            ("exp", json!("1800000100")),
            ("exp", Value::Null),
            ("nbf", json!(NOW + 60.0)),
            ("nbf", json!("soon")),
            ("jti", json!("")),
            ("jti", json!(1)),
            ("jti", json!("x".repeat(256))),
        ] {
            assert!(refusal(|claims| drop(claims.insert(name.into(), value.clone()))).is_some(), "{name} {value}");
        }
        for name in ["aud", "exp", "jti"] {
            assert!(refusal(|claims| drop(claims.remove(name))).is_some(), "{name}");
        }
    }
}
