//! Tokens: nobody without the secret has one that is accepted, whatever he writes; and sets of keys are read or refused.

use fhir_bulk_proxy::jose::keys::{Key, second};
use fhir_bulk_proxy::jose::provider;
use fhir_bulk_proxy::smart::assertion::Assertion;
use fhir_bulk_proxy::smart::key_set::ALGORITHMS;
use fhir_bulk_proxy::smart::tokens::Tokens;
use std::sync::LazyLock;

/// A secret that no input has, and a token that it signed.
struct Own {
    key: Key,
    tokens: Tokens,
    token: String,
}

static OWN: LazyLock<Own> = LazyLock::new(|| {
    provider::install();
    let secret = fhir_bulk_proxy::smart::tokens::random().expect("random numbers");
    let tokens = Tokens::new(&secret, "https://h").expect("a secret");
    let token = tokens.issue("client", "system/*.rs").expect("random numbers");
    Own { key: Key::of_secret(&secret).expect("a secret"), tokens, token }
});

/// Checks a text as a token, and as a set of keys. `~` in a token stands for the part of a valid one that is at its place.
pub fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Own { key, tokens, token } = &*OWN;
    let valid: Vec<&str> = token.split('.').collect();
    let parts = text.split('.').enumerate().map(|(at, part)| match (part, valid.get(at)) {
        ("~", Some(valid)) => *valid,
        (other, _) => other,
    });
    let given = parts.collect::<Vec<_>>().join(".");
    let is_own = given == *token;
    assert_eq!(tokens.claims(&given).is_some(), is_own, "{given}");
    assert_eq!(key.claims(&given, None).is_ok(), is_own, "{given}");
    let _ = Assertion::parse(&given).map(|assertion| assert!(!assertion.client.contains('\0') || given.len() > 4));
    if let Ok(keys) = Key::of_set(text, &ALGORITHMS) {
        assert!(!keys.is_empty() && keys.iter().all(|key| ALGORITHMS.contains(&key.algorithm)));
        assert!(keys.iter().all(|key| key.claims(token, None).is_err()));
    }
    if let Ok(claims) = serde_json::from_str(text) {
        let second = second(&claims, "exp");
        assert!(second.is_err() || second.is_ok_and(|at| at.is_none_or(f64::is_finite)));
    }
}
