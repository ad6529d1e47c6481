//! Signs and verifies URLs of a database's own. A signed URL gives access to one file for a limited time without other
//! credentials.
//!
//! `<base>/<job>/<file>?expires=<seconds since 1970>&signature=<hex>`, where the signature is HMAC-SHA256 over
//! `<job>/<file>` and the expiry, with a secret of this database.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// How many bytes of a code identify this database.
const OWNER_BYTES: usize = 8;

/// Signs URLs and verifies signatures.
pub struct Signer {
    secret: Vec<u8>,
    database: u32,
}

/// A file that a valid signature names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedFile<'a> {
    /// The id of its job.
    pub job: &'a str,
    /// Its name within the job.
    pub name: &'a str,
}

/// Why a URL names no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsigned {
    /// It was not signed with this secret for this database.
    Foreign,
    /// It was, and its time is over.
    Expired,
}

impl Signer {
    /// `secret` was created with the extension. The database's OID is included, because a database that was created from
    /// another as its template has the same secret.
    pub fn new(secret: Vec<u8>, database: u32) -> Signer {
        Signer { secret, database }
    }

    /// A name for this database that does not reveal the secret.
    pub fn owner(&self) -> String {
        hex(&self.code(&["owner"]).finalize().into_bytes()[..OWNER_BYTES])
    }

    /// The URL of a file, valid for so many seconds from `now`.
    pub fn sign(&self, base: &str, file: &SignedFile<'_>, now: i64, valid: i64) -> String {
        let expires = (now + valid).to_string();
        let signature = hex(&self.code(&["file", file.job, file.name, &expires]).finalize().into_bytes());
        let base = base.trim_end_matches('/');
        format!("{base}/{}/{}?expires={expires}&signature={signature}", file.job, file.name)
    }

    /// The file that a URL names. The base of the URL does not matter.
    ///
    /// # Errors
    /// For a URL that was not signed here or that has expired.
    pub fn verify<'a>(&self, url: &'a str, now: i64) -> Result<SignedFile<'a>, Unsigned> {
        let Parts { file, expires, signature } = Parts::of(url).ok_or(Unsigned::Foreign)?;
        // In constant time. The expiry is read only if the signature is valid.
        let code = self.code(&["file", file.job, file.name, expires]);
        code.verify_slice(&signature).map_err(|_| Unsigned::Foreign)?;
        if expires.parse().is_ok_and(|expires: i64| now <= expires) { Ok(file) } else { Err(Unsigned::Expired) }
    }

    /// The code of these parts. Each part's length is included, so that parts cannot be confused.
    fn code(&self, parts: &[&str]) -> Hmac<Sha256> {
        let mut code = Hmac::<Sha256>::new_from_slice(&self.secret).expect("a key of any length will do");
        code.update(&self.database.to_le_bytes());
        for part in parts {
            code.update(&(part.len() as u64).to_le_bytes());
            code.update(part.as_bytes());
        }
        code
    }
}

struct Parts<'a> {
    file: SignedFile<'a>,
    expires: &'a str,
    signature: Vec<u8>,
}

impl<'a> Parts<'a> {
    fn of(url: &'a str) -> Option<Parts<'a>> {
        let (path, query) = url.split_once('?')?;
        let mut segments = path.rsplit('/');
        let (name, job) = (segments.next()?, segments.next()?);
        let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        Some(Parts {
            file: SignedFile { job, name },
            expires: value("expires")?,
            signature: unhex(value("signature")?)?,
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks_exact(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect())
}
