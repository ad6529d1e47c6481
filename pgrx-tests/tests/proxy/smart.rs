//! Clients of SMART Backend Services for the tests: their keys, their assertions, and services that know them.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use fhir_bulk_tests::Database;
use fhir_bulk_tests::proxy::{Request, Response, base64};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA384, RsaKeyPair};
use serde_json::{Value, json};

use crate::support::{PASSWORD, Service, aidbox_rows, file, role, target};

/// Where the proxies of these tests say that they are.
pub const BASE: &str = "https://fhir.example.org";
/// Their token endpoint.
pub const ENDPOINT: &str = "https://fhir.example.org/auth/token";

/// A client's private key.
pub enum Signer {
    Rsa(Box<RsaKeyPair>),
    Elliptic(Box<EcdsaKeyPair>),
}

impl Signer {
    /// A new key for ES384.
    pub fn elliptic() -> Signer {
        Signer::elliptic_with_pem().0
    }

    /// The same, and as PEM.
    pub fn elliptic_with_pem() -> (Signer, String) {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, pkcs8.as_ref(), &random);
        (Signer::Elliptic(Box::new(pair.unwrap())), pem(pkcs8.as_ref()))
    }

    /// A new key for RS384.
    pub fn rsa() -> Signer {
        Signer::rsa_with_pem().0
    }

    /// The same, and as PEM.
    pub fn rsa_with_pem() -> (Signer, String) {
        let generate = "openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -outform DER 2>/dev/null | \
                        openssl pkcs8 -topk8 -nocrypt -inform DER -outform DER";
        let der = Command::new("sh").args(["-c", generate]).output().unwrap().stdout;
        (Signer::Rsa(Box::new(RsaKeyPair::from_pkcs8(&der).unwrap())), pem(&der))
    }

    /// The name of its algorithm.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Signer::Rsa(_) => "RS384",
            Signer::Elliptic(_) => "ES384",
        }
    }

    /// Its public half.
    pub fn jwk(&self, id: &str) -> Value {
        match self {
            Signer::Rsa(pair) => {
                let public = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(pair.public());
                json!({"kty": "RSA", "kid": id, "n": base64(&public.n, false), "e": base64(&public.e, false)})
            }
            Signer::Elliptic(pair) => {
                let point = pair.public_key().as_ref();
                let (x, y) = (base64(&point[1..49], false), base64(&point[49..], false));
                json!({"kty": "EC", "crv": "P-384", "kid": id, "x": x, "y": y})
            }
        }
    }

    /// A set with nothing but this key.
    pub fn jwks(&self, id: &str) -> Value {
        json!({"keys": [self.jwk(id)]})
    }

    /// A signed token.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| base64(value.to_string().as_bytes(), false);
        let text = format!("{}.{}", part(header), part(claims));
        let random = SystemRandom::new();
        let signature = match self {
            Signer::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA384, &random, text.as_bytes(), &mut signature).unwrap();
                signature
            }
            Signer::Elliptic(pair) => pair.sign(&random, text.as_bytes()).unwrap().as_ref().to_vec(),
        };
        format!("{text}.{}", base64(&signature, false))
    }

    /// An assertion as SMART has it.
    pub fn assertion(&self, client: &str, key_id: &str) -> String {
        self.sign(&json!({"alg": self.algorithm(), "typ": "JWT", "kid": key_id}), &claims(client))
    }
}

/// A private key in PEM.
fn pem(pkcs8: &[u8]) -> String {
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", base64(pkcs8, true))
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The claims of a new assertion.
pub fn claims(client: &str) -> Value {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let id = format!("{client}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    json!({"iss": client, "sub": client, "aud": ENDPOINT, "exp": now() + 300, "jti": id})
}

/// A line of the file of clients.
pub fn line(client: &str, keys: &Value, role: &str, scopes: &str) -> String {
    let keys = if keys.is_string() { format!("jwks-url: {keys}") } else { format!("jwks: {keys}") };
    format!("- {{id: {client}, {keys}, role: {role}, scopes: \"{scopes}\"}}\n")
}

/// The form of a request for a token.
pub fn form(fields: &[(&str, &str)]) -> Request {
    let escaped = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let fields = fields.iter().map(|(name, value)| format!("{name}={}", escaped(value)));
    let body = fields.collect::<Vec<_>>().join("&");
    Request::post("/auth/token", "application/x-www-form-urlencoded", body)
}

/// A request for a token with an assertion.
pub fn asking(assertion: &str, scope: &str) -> Request {
    form(&[
        ("grant_type", "client_credentials"),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", assertion),
        ("scope", scope),
    ])
}

/// Asserts that an answer is an error of RFC 6749; its description.
#[track_caller]
pub fn oauth_error(response: &Response, status: u16, code: &str) -> String {
    assert_eq!(response.status, status, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/json"), "{response:?}");
    assert_eq!(response.header("cache-control"), Some("no-store"), "{response:?}");
    let body = response.json();
    assert_eq!(body["error"], code, "{body}");
    body["error_description"].as_str().unwrap().to_owned()
}

/// The token in an answer.
#[track_caller]
pub fn token_of(response: &Response) -> String {
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["access_token"].as_str().unwrap().to_owned()
}

/// A request with a token.
pub fn with(token: &str, request: Request) -> Request {
    request.header("Authorization", &format!("Bearer {token}"))
}

/// A service whose clients are in a file, which `lines` makes for the role `…_reader`. The reader may read patients and export;
/// the role `…_nobody` may do nothing.
pub fn service(lines: impl FnOnce(&str) -> String, flags: &[String]) -> Service {
    service_of(|_, reader| (lines(reader), flags.to_vec()))
}

/// The same, with lines and flags that depend on the database.
pub fn service_of(with: impl FnOnce(&Database, &str) -> (String, Vec<String>)) -> Service {
    service_at(BASE, with)
}

/// The same, at another public URL.
pub fn service_at(base: &str, with: impl FnOnce(&Database, &str) -> (String, Vec<String>)) -> Service {
    let service = Service::with(|database| {
        let (own, reader, nobody) = (role(database, "own"), role(database, "reader"), role(database, "nobody"));
        let setting = format!("fhir_bulk.export_location = 'file://{}'", database.path("exports").display());
        let grants = format!(
            "ALTER DATABASE {} SET {setting}; GRANT {reader}, {nobody} TO {own};
             GRANT EXECUTE ON FUNCTION bulk_export_file(text) TO {own};
             GRANT EXECUTE ON FUNCTION bulk_export(jsonb), bulk_export_cancel(text) TO {reader}",
            database.name()
        );
        database.connect().batch_execute(&grants).unwrap();
        let (lines, flags) = with(database, &reader);
        let target = target(database, &format!("user={own} password='{PASSWORD}'"));
        let clients = file(database, "clients.yaml", &lines);
        let own = ["--database", &target, "--clients-file", &clients, "--public-url", base];
        own.map(str::to_owned).into_iter().chain(flags).collect()
    });
    aidbox_rows(&mut service.connect());
    let reader = format!("{}_reader", service.database.name());
    service.connect().batch_execute(&format!("GRANT SELECT ON patient TO {reader}")).unwrap();
    service
}
