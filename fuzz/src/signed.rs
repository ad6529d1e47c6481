//! Signed URLs: a file is had by its own URL, until its time is over, and by no other text.

use fhir_bulk_transfer::{SignedFile, Signer, Unsigned};
use std::sync::LazyLock;

/// With a secret that no input has, for two databases.
static SIGNERS: LazyLock<[Signer; 2]> = LazyLock::new(|| {
    let secret = fhir_bulk_proxy::smart::tokens::random().expect("random numbers");
    [1, 2].map(|database| Signer::new(secret.to_vec(), database))
});

const NOW: i64 = 1_700_000_000;
const VALID: i64 = 3600;

/// Checks a text as a URL; and the URL of a file, whose base, job and name are lines, with one piece of it replaced, as the last
/// line says: from where, how many bytes, and by what.
pub fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let [signer, other] = &*SIGNERS;
    assert_eq!(signer.verify(text, NOW), Err(Unsigned::Foreign), "{text}");
    let mut lines = text.splitn(4, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (base, job, name, change) = (line(), line(), line(), line());
    // As settings and names of jobs are.
    if base.contains('?') || [job, name].iter().any(|part| part.contains(['?', '/'])) {
        return;
    }
    let file = SignedFile { job, name };
    let url = signer.sign(base, &file, NOW, VALID);
    assert_eq!(signer.verify(&url, NOW + VALID), Ok(file), "{url}");
    assert_eq!(signer.verify(&url, NOW + VALID + 1), Err(Unsigned::Expired), "{url}");
    assert_eq!(other.verify(&url, NOW), Err(Unsigned::Foreign), "{url}");
    let mut parts = change.splitn(3, ' ');
    let mut number = || parts.next().and_then(|part| part.parse::<usize>().ok());
    let (Some(at), Some(length), Some(by)) = (number(), number(), parts.next()) else { return };
    let at = at % (url.len() + 1);
    let end = at.saturating_add(length).min(url.len());
    let (Some(before), Some(after)) = (url.get(..at), url.get(end..)) else { return };
    let changed = format!("{before}{by}{after}");
    // Another base is none of its business.
    match signer.verify(&changed, NOW + VALID) {
        Ok(found) => assert_eq!(found, file, "{changed} for {url}"),
        Err(why) => assert_eq!(why, Unsigned::Foreign, "{changed} for {url}"),
    }
    assert!(signer.verify(&changed, NOW + VALID + 1).is_err(), "{changed} for {url}");
}
