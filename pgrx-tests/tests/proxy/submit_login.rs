//! Submissions whose source asks for access tokens: another server of ours, with its own authorization server.

use std::io::copy;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, OnceLock};
use std::thread;

use fhir_bulk_tests::proxy::Request;
use fhir_bulk_tests::wait_for;
use serde_json::{Value, json};

use crate::bulk_submit::{SYSTEM, consumer, manifest, status_code, status_path, submit};
use crate::exports::finished;
use crate::smart::{Signer, form, line, now, service_at, token_of, with};
use crate::support::{Service, outcome, value};

/// A server of data whose URLs are those of a relay, which is there before it: its token endpoint is known by its URL.
struct Provider {
    service: Service,
    url: String,
}

impl Provider {
    fn start(clients: impl FnOnce(&str) -> String) -> Provider {
        let relay = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", relay.local_addr().unwrap());
        let behind: Arc<OnceLock<String>> = Arc::default();
        let address = behind.clone();
        thread::spawn(move || {
            for client in relay.incoming().map_while(Result::ok) {
                let Some(server) = address.get().and_then(|address| TcpStream::connect(address).ok()) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    thread::spawn(move || {
                        let _ = copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Write);
                    });
                }
            }
        });
        let service = service_at(&url, |_, reader| (clients(reader), Vec::new()));
        behind.set(service.proxy.address().to_owned()).unwrap();
        Provider { service, url }
    }

    /// Exports patients as a client; the URL of the manifest, which needs a token.
    fn export(&self, signer: &Signer, client: &str, key_id: &str) -> String {
        let claims = json!({"iss": client, "sub": client, "aud": format!("{}/auth/token", self.url),
            "exp": now() + 300, "jti": format!("{client}-{}", now())});
        let assertion = signer.sign(&json!({"alg": signer.algorithm(), "typ": "JWT", "kid": key_id}), &claims);
        let token = token_of(&self.service.proxy.send(&form(&[
            ("grant_type", "client_credentials"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", &assertion),
            ("scope", "system/*.rs"),
        ])));
        let export = Request::get("/fhir/$export?_type=Patient").header("Prefer", "respond-async");
        let kicked_off = self.service.proxy.send(&with(&token, export));
        assert_eq!(kicked_off.status, 202, "{}", kicked_off.text());
        let url = kicked_off.header("content-location").unwrap().to_owned();
        let path = url.strip_prefix(&self.url).unwrap_or_else(|| panic!("{url}"));
        assert_eq!(self.service.proxy.send(&Request::get(path)).status, 401);
        wait_for("the export to end", || self.service.proxy.send(&with(&token, Request::get(path))).status == 200);
        url
    }
}

/// Credentials of the consumer's client for the provider.
fn set(service: &Service, provider: &Provider, client: &str, key: &str, key_id: &str) {
    let credential = json!({"submitter": {"system": SYSTEM, "value": "payer-7"}, "role": service.client,
        "tokenEndpoint": format!("{}/auth/token", provider.url), "clientId": client, "privateKey": key, "keyId": key_id,
        "scope": "system/*.rs"});
    let set = "SELECT bulk_set_source_credential($1::text::jsonb)";
    service.database.connect().execute(set, &[&credential.to_string()]).unwrap();
}

fn with_metadata(provider: &Provider, url: &str) -> Value {
    let mut all = manifest(url);
    let metadata = format!("{}/fhir/.well-known/smart-configuration", provider.url);
    all.push(json!({"name": "oauthMetadataUrl", "valueUrl": metadata}));
    all.into()
}

#[test]
fn a_source_that_asks_for_a_token_by_smart_gives_its_data_to_who_has_the_key() {
    let ((rsa, rsa_pem), (elliptic, elliptic_pem)) = (Signer::rsa_with_pem(), Signer::elliptic_with_pem());
    let provider = Provider::start(|reader| {
        line("by-rsa", &rsa.jwks("a"), reader, "system/*.rs")
            + &line("by-ec", &elliptic.jwks("b"), reader, "system/*.rs")
    });
    let service = consumer(&format!("['{}/']", provider.url));
    for (signer, pem, client, id) in [(&rsa, &rsa_pem, "by-rsa", "a"), (&elliptic, &elliptic_pem, "by-ec", "b")] {
        let url = provider.export(signer, client, id);
        set(&service, &provider, client, pem, id);
        let accepted = submit(&service, client, with_metadata(&provider, &url));
        assert_eq!(accepted.status, 200, "{}", accepted.text());
        assert_eq!(submit(&service, client, status_code("completed")).status, 200);
        let done = finished(&service, &status_path(&service, client));
        assert_eq!((done.status, &done.json()["outcome"]), (200, &json!([])), "{}", done.text());
        assert_eq!(value(&mut service.connect(), "SELECT count(*) FROM patient"), "3");
        service.connect().batch_execute("TRUNCATE patient").unwrap();
    }
    // Tokens and assertions of ours begin so.
    assert!(!service.database.cluster().log().contains("eyJ"));
}

#[test]
fn without_the_right_credentials_a_source_gives_nothing() {
    let ((signer, _), (_, other)) = (Signer::elliptic_with_pem(), Signer::elliptic_with_pem());
    let provider = Provider::start(|reader| line("nightly", &signer.jwks("k"), reader, "system/*.rs"));
    let service = consumer(&format!("['{}/']", provider.url));
    let url = provider.export(&signer, "nightly", "k");
    let endpoint = format!("{}/auth/token", provider.url);
    let refused = submit(&service, "s", with_metadata(&provider, &url));
    assert!(outcome(&refused, 422).contains("has no credentials"));
    assert_eq!(refused.json()["issue"][0]["expression"], json!(["oauthMetadataUrl"]));
    // Of another endpoint, however near.
    let near = Provider { url: format!("{}/tenant", provider.url), service: Service::new() };
    set(&service, &near, "nightly", &other, "k");
    let refused = submit(&service, "s", with_metadata(&provider, &url));
    assert!(outcome(&refused, 422).contains(&endpoint), "{}", refused.text());
    set(&service, &provider, "nightly", &other, "k");
    let mut all = with_metadata(&provider, &url);
    all.as_array_mut().unwrap().extend(status_code("completed").as_array().unwrap().clone());
    assert_eq!(submit(&service, "s", all).status, 200);
    let done = finished(&service, &status_path(&service, "s"));
    let outcomes = done.json()["outcome"][0]["url"].as_str().unwrap().to_owned();
    let lines = service.send(Request::get(crate::exports::path(&outcomes)));
    assert!(
        lines.text().contains("gave no access token") && lines.text().contains("invalid_client"),
        "{}",
        lines.text()
    );
    assert_eq!(value(&mut service.connect(), "SELECT to_regclass('patient') IS NULL"), "true");
}
