//! SMART Backend Services: who gets a token, for what, and what is said to those who get none.

use std::process::Command;

use fhir_bulk_tests::proxy::{Proxy, Request, Response, base64};
use fhir_bulk_tests::wait_for;
use ring::hmac;
use serde_json::{Value, json};

use crate::smart::{ENDPOINT, Signer, asking, claims, form, line, now, oauth_error, service, token_of, with};
use crate::support::{Service, file, outcome};

/// A service with one client, `nightly`, and its key `k`.
fn one(scopes: &str, flags: &[&str]) -> (Service, Signer) {
    let signer = Signer::elliptic();
    let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
    let service = service(|reader| line("nightly", &signer.jwks("k"), reader, scopes), &flags);
    (service, signer)
}

fn dump(service: &Service, token: &str) -> Response {
    service.proxy.send(&with(token, Request::get("/Patient/$dump")))
}

/// From another address each time, so that no failure slows the next.
fn from(n: usize, request: Request) -> Request {
    request.header("X-Forwarded-For", &format!("10.0.{}.{}", n / 256, n % 256))
}

#[test]
fn a_client_finds_the_endpoint_logs_in_with_either_algorithm_and_reads() {
    let (rsa, elliptic) = (Signer::rsa(), Signer::elliptic());
    let service = service(
        |reader| {
            line("by-rsa", &rsa.jwks("a"), reader, "system/*.rs")
                + &line("by-ec", &json!({"keys": [rsa.jwk("a"), elliptic.jwk("b")]}), reader, "system/Patient.cruds")
                + &format!(
                    "- {{id: by-text, jwks: '{}', role: {reader}, scopes: [system/*.r, system/*.s]}}\n",
                    rsa.jwks("a")
                )
        },
        &[],
    );
    let found = service.proxy.send(&Request::get("/fhir/.well-known/smart-configuration"));
    assert_eq!((found.status, found.header("content-type")), (200, Some("application/json")));
    let found = found.json();
    assert_eq!(found["token_endpoint"], ENDPOINT);
    assert_eq!(found["grant_types_supported"], json!(["client_credentials"]));
    assert_eq!(found["token_endpoint_auth_methods_supported"], json!(["private_key_jwt"]));
    assert_eq!(found["token_endpoint_auth_signing_alg_values_supported"], json!(["RS384", "ES384"]));
    for (list, member) in [
        ("capabilities", "client-confidential-asymmetric"),
        ("capabilities", "permission-v1"),
        ("capabilities", "permission-v2"),
        ("scopes_supported", "system/*.rs"),
        ("scopes_supported", "system/*.read"),
        ("code_challenge_methods_supported", "S256"),
    ] {
        assert!(found[list].as_array().unwrap().contains(&member.into()), "{list}: {found}");
    }
    let metadata = service.proxy.send(&Request::get("/fhir/metadata")).json();
    let security = &metadata["rest"][0]["security"];
    assert_eq!(security["service"][0]["coding"][0]["code"], "SMART-on-FHIR", "{security}");
    let uris = &security["extension"][0];
    assert_eq!(uris["url"], "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris");
    assert_eq!(uris["extension"], json!([{"url": "token", "valueUri": ENDPOINT}]));

    for (client, signer, id, asked, granted) in [
        ("by-rsa", &rsa, "a", "system/*.read", "system/*.read"),
        ("by-rsa", &rsa, "a", "system/*.cruds openid", "system/*.rs"),
        ("by-text", &rsa, "a", "system/*.rs", "system/*.rs"),
        ("by-ec", &elliptic, "b", "system/*.rs", "system/Patient.rs"),
        ("by-ec", &rsa, "a", "system/Patient.* system/Group.*", "system/Patient.*"),
    ] {
        let answer = service.proxy.send(&asking(&signer.assertion(client, id), asked));
        let token = token_of(&answer);
        assert_eq!((answer.header("cache-control"), answer.header("pragma")), (Some("no-store"), Some("no-cache")));
        let body = answer.json();
        assert_eq!(body["token_type"], "bearer");
        assert_eq!((&body["expires_in"], &body["scope"]), (&json!(300), &json!(granted)), "{body}");
        assert_eq!(dump(&service, &token).text().lines().count(), 3);
        assert_eq!(service.proxy.send(&with(&token, Request::get("/fhir/Patient/pt-1"))).status, 200);
    }
    // The client's role, and only that.
    outcome(&service.proxy.send(&with("x.y.z", Request::get("/Patient/$dump"))), 401);
}

#[test]
fn without_a_public_url_or_a_file_of_clients_there_is_no_login() {
    let (service, signer) = one("system/*.rs", &[]);
    let is_off = |flags: &[String], says: &str| {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let proxy = Proxy::start(&flags);
        outcome(&proxy.send(&Request::get("/fhir/.well-known/smart-configuration")), 404);
        oauth_error(&proxy.send(&asking(&signer.assertion("nightly", "k"), "system/*.rs")), 404, "invalid_request");
        let security = proxy.send(&Request::get("/fhir/metadata")).json()["rest"][0]["security"].take();
        assert_eq!(security["service"][0]["coding"][0]["code"], "Basic", "{security}");
        assert!(!security.to_string().contains("SMART"), "{security}");
        assert!(proxy.log().contains(says), "{}", proxy.log());
    };
    let without = |name: &str| {
        let at = service.flags.iter().position(|flag| flag == name).unwrap();
        [&service.flags[..at], &service.flags[at + 2..]].concat()
    };
    is_off(&without("--public-url"), "clients-file needs public-url");
    is_off(&without("--clients-file"), "");
}

#[test]
fn policies_see_the_client_and_what_it_may() {
    let (service, signer) = one("system/Patient.rs", &[]);
    let reader = format!("{}_reader", service.database.name());
    let policy = format!(
        "ALTER TABLE patient ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON patient TO {reader} USING (
            current_user = '{reader}' AND id = 'pt-2'
            AND current_setting('request.jwt.claims')::jsonb @>
                '{{\"role\": \"{reader}\", \"sub\": \"nightly\", \"scope\": \"system/Patient.read\"}}')"
    );
    service.connect().batch_execute(&policy).unwrap();
    let token =
        token_of(&service.proxy.send(&asking(&signer.assertion("nightly", "k"), "system/*.rs system/Patient.read")));
    let lines = dump(&service, &token).text();
    assert!(lines.lines().count() == 1 && lines.contains("pt-2"), "{lines}");
}

#[test]
fn an_assertion_that_is_not_the_clients_own_for_now_and_here_is_refused() {
    let (rsa, elliptic, other) = (Signer::rsa(), Signer::elliptic(), Signer::elliptic());
    let keys = json!({"keys": [rsa.jwk("a"), elliptic.jwk("b")]});
    let service = service(
        |reader| {
            line("nightly", &keys, reader, "system/*.rs") + &line("other", &other.jwks("b"), reader, "system/*.rs")
        },
        &["--trusted-proxies".to_owned(), "127.0.0.1".to_owned()],
    );
    let header = |name: &str, value: Value| {
        let mut header = json!({"alg": "ES384", "typ": "JWT", "kid": "b"});
        header[name] = value;
        elliptic.sign(&header, &claims("nightly"))
    };
    let claim = |name: &str, value: Value| {
        let mut all = claims("nightly");
        all[name] = value;
        elliptic.sign(&json!({"alg": "ES384", "kid": "b"}), &all)
    };
    let without = |name: &str| {
        let mut all = claims("nightly");
        all.as_object_mut().unwrap().remove(name);
        elliptic.sign(&json!({"alg": "ES384", "kid": "b"}), &all)
    };
    let symmetric = |algorithm: &str, secret: &[u8]| {
        let part = |value: Value| base64(value.to_string().as_bytes(), false);
        let text = format!("{}.{}", part(json!({"alg": algorithm, "kid": "b"})), part(claims("nightly")));
        let key = hmac::Key::new(hmac::HMAC_SHA384, secret);
        format!("{text}.{}", base64(hmac::sign(&key, text.as_bytes()).as_ref(), false))
    };
    let public = elliptic.jwk("b").to_string();
    let unsigned = symmetric("none", b"x");
    let unsigned = format!("{}.", unsigned.rsplit_once('.').unwrap().0);
    let good = elliptic.assertion("nightly", "b");
    let cut = good[..good.len() - 2].to_owned();
    let other_payload = {
        let mut parts: Vec<String> = good.split('.').map(str::to_owned).collect();
        parts[1] = base64(claims("nightly").to_string().as_bytes(), false);
        parts.join(".")
    };
    // No answer says which part was wrong, nor which clients there are.
    let unproved = [
        ("no token", "x".to_owned()),
        ("dots", "..".to_owned()),
        ("cut", cut),
        ("other claims under the signature", other_payload),
        ("alg none", unsigned),
        ("HS384 with the public key", symmetric("HS384", public.as_bytes())),
        ("HS256", symmetric("HS256", b"secret")),
        ("RS256", header("alg", json!("RS256"))),
        ("ES256", header("alg", json!("ES256"))),
        ("PS384", header("alg", json!("PS384"))),
        ("the other algorithm", header("alg", json!("RS384"))),
        ("alg in other letters", header("alg", json!("es384"))),
        ("no kid", elliptic.sign(&json!({"alg": "ES384"}), &claims("nightly"))),
        ("a kid of none", header("kid", json!("c"))),
        ("the kid of another key", header("kid", json!("a"))),
        ("jku", header("jku", json!("https://example.org/jwks"))),
        ("x5u", header("x5u", json!("https://example.org/x5u"))),
        ("jwk", header("jwk", elliptic.jwk("b"))),
        ("jwk that is null", header("jwk", Value::Null)),
        ("crit", header("crit", json!(["exp"]))),
        ("another key", other.assertion("nightly", "b")),
        ("another client", elliptic.assertion("other", "b")),
        ("a client that is not there", elliptic.assertion("nobody", "b")),
        ("iss is not sub", claim("iss", json!("other"))),
        ("sub is not iss", claim("sub", json!("other"))),
        ("no sub", without("sub")),
        ("no iss", without("iss")),
    ];
    let mut n = 0;
    let mut send = |assertion: &str| {
        n += 1;
        service.proxy.send(&from(n, asking(assertion, "system/*.rs")))
    };
    for (what, assertion) in unproved {
        let response = send(&assertion);
        let text = oauth_error(&response, 401, "invalid_client");
        assert_eq!(text, "the client assertion is not valid", "{what}");
        assert_eq!(response.headers("www-authenticate"), [r#"Bearer realm="fhir_bulk""#]);
    }
    // Who has proved who it is hears the reason.
    let host = format!("http://{}/auth/token", service.proxy.address());
    for (what, why, assertion) in [
        ("of the request's Host", "aud", claim("aud", json!("http://fhir.example.org/auth/token"))),
        ("of the address", "aud", claim("aud", json!(host))),
        ("of the base", "aud", claim("aud", json!("https://fhir.example.org"))),
        ("with a slash", "aud", claim("aud", json!(format!("{ENDPOINT}/")))),
        ("for others, too", "aud", claim("aud", json!([ENDPOINT, "https://example.org"]))),
        ("none", "aud", without("aud")),
        ("too long", "exp", claim("exp", json!(now() + 600))),
        ("over", "expired", claim("exp", json!(now() - 1))),
        ("text", "exp", claim("exp", json!((now() + 60).to_string()))),
        ("none", "exp", without("exp")),
        ("none", "jti", without("jti")),
        ("empty", "jti", claim("jti", json!(""))),
        ("to come", "not valid yet", claim("nbf", json!(now() + 120))),
    ] {
        let text = oauth_error(&send(&assertion), 401, "invalid_client");
        assert!(text.contains(why), "{what}: {text}");
    }
    token_of(&send(&good));
    // Once.
    assert!(oauth_error(&send(&good), 401, "invalid_client").contains("jti has been used"));
    service.proxy.reload();
    assert!(oauth_error(&send(&good), 401, "invalid_client").contains("jti has been used"));
    // Each client has ids of its own.
    let mut same = claims("other");
    same["jti"] = json!("same");
    token_of(&send(&other.sign(&json!({"alg": "ES384", "kid": "b"}), &same)));
    token_of(&send(&claim("jti", json!("same"))));
}

#[test]
fn a_request_that_is_no_request_for_a_token_gets_the_errors_of_oauth() {
    let (service, signer) = one("system/Patient.rs", &[]);
    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    let fields = |changed: &[(&'static str, &str)]| {
        let assertion = signer.assertion("nightly", "k");
        let mut fields: Vec<(&str, String)> = vec![
            ("grant_type", "client_credentials".to_owned()),
            ("client_assertion_type", kind.to_owned()),
            ("client_assertion", assertion),
            ("scope", "system/Patient.rs".to_owned()),
        ];
        for (name, value) in changed {
            fields.retain(|(known, _)| known != name);
            fields.push((name, (*value).to_owned()));
        }
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        service.proxy.send(&form(&fields))
    };
    token_of(&fields(&[]));
    token_of(&fields(&[("client_id", "nightly"), ("resource", "x")]));
    for (changed, code) in [
        (("grant_type", "authorization_code"), "unsupported_grant_type"),
        (("grant_type", "password"), "unsupported_grant_type"),
        (("grant_type", ""), "invalid_request"),
        (("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"), "invalid_request"),
        (("client_assertion_type", ""), "invalid_request"),
        (("client_assertion", ""), "invalid_request"),
        (("client_id", "other"), "invalid_request"),
        (("scope", ""), "invalid_scope"),
        (("scope", "openid"), "invalid_scope"),
        (("scope", "system/Observation.rs system/Patient.cu"), "invalid_scope"),
        (("scope", "system/Patient.rs?status=final"), "invalid_scope"),
        (("scope", "user/Patient.rs patient/*.rs"), "invalid_scope"),
        (("scope", &"system/Patient.rs ".repeat(1000)), "invalid_scope"),
    ] {
        oauth_error(&fields(&[changed]), 400, code);
    }
    let sent = |request: &Request, status| oauth_error(&service.proxy.send(request), status, "invalid_request");
    let assertion = signer.assertion("nightly", "k");
    let twice = form(&[("scope", "system/*.rs"), ("scope", "system/*.rs")]);
    assert!(sent(&twice, 400).contains("scope is given twice"));
    sent(&Request::json("/auth/token", &json!({"client_assertion": assertion}).to_string()), 400);
    sent(&Request::post("/auth/token", "application/x-www-form-urlencoded", "x".repeat(70_000)), 400);
    sent(&Request::get("/auth/token"), 405);
    for (name, value) in [("Origin", "https://elsewhere.example.org"), ("Sec-Fetch-Site", "cross-site")] {
        sent(&asking(&assertion, "system/Patient.rs").header(name, value), 403);
    }
    token_of(&service.proxy.send(&asking(&assertion, "system/Patient.rs")));
}

#[test]
fn who_guesses_is_slowed_and_keeps_nobody_else_out() {
    let (signer, stranger) = (Signer::elliptic(), Signer::elliptic());
    let service = service(
        |reader| ["one", "two"].map(|client| line(client, &signer.jwks("k"), reader, "system/*.rs")).concat(),
        &["--trusted-proxies".to_owned(), "127.0.0.1".to_owned()],
    );
    let send = |n, signer: &Signer, client| {
        service.proxy.send(&from(n, asking(&signer.assertion(client, "k"), "system/*.rs")))
    };
    for client in ["one", "nobody"] {
        let answers: Vec<u16> = (0..20).map(|_| send(1, &stranger, client).status).collect();
        assert_eq!(answers[..3], [401; 3], "the first mistakes are no attack");
        assert!(answers.iter().filter(|status| **status == 429).count() > 10, "{answers:?}");
    }
    let slowed = send(1, &signer, "one");
    oauth_error(&slowed, 429, "invalid_client");
    assert!(slowed.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
    token_of(&send(2, &signer, "one"));
    token_of(&send(1, &signer, "two"));
    // Those that are sent at once are slowed like those one after another.
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..60).map(|_| scope.spawn(|| send(3, &stranger, "one").status)).collect();
        all.into_iter().map(|guess| guess.join().unwrap()).collect()
    });
    let tried = statuses.iter().filter(|status| **status == 401).count();
    assert!((1..=10).contains(&tried), "{tried} of 60 were tried");
}

#[test]
fn the_file_of_clients_counts_from_the_signal_on_for_tokens_too() {
    let (service, signer) = one("system/*.rs", &[]);
    let (name, next) = (service.database.name().to_owned(), Signer::rsa());
    let (reader, nobody) = (format!("{name}_reader"), format!("{name}_nobody"));
    let log_in =
        |signer: &Signer, id: &str| service.proxy.send(&asking(&signer.assertion("nightly", id), "system/*.rs"));
    let reload = |text: &str| {
        file(&service.database, "clients.yaml", text);
        service.proxy.reload();
    };
    let token = token_of(&log_in(&signer, "k"));
    oauth_error(&log_in(&next, "l"), 401, "invalid_client");
    // A new key beside the old one, then alone.
    reload(&line("nightly", &json!({"keys": [signer.jwk("k"), next.jwk("l")]}), &reader, "system/*.rs"));
    token_of(&log_in(&signer, "k"));
    token_of(&log_in(&next, "l"));
    reload(&line("nightly", &next.jwks("l"), &reader, "system/*.rs"));
    oauth_error(&log_in(&signer, "k"), 401, "invalid_client");
    assert_eq!(dump(&service, &token).status, 200);
    // A file with a mistake changes nothing, and the log says which.
    for (text, why) in [
        (line("nightly", &json!({"keys": []}), &reader, "system/*.rs"), "no key for RS384 or ES384"),
        (line("nightly", &next.jwks("l"), &reader, "system/Patient"), "system/Patient"),
        (line("nightly", &next.jwks("l"), &reader, ""), "scopes is empty"),
        (line("nightly", &next.jwks("l"), "\"\"", "system/*.rs"), "role"),
        (line("nightly", &json!("http://127.0.0.1/jwks"), &reader, "system/*.rs"), "https"),
        (line("nightly", &next.jwks("l"), &reader, "system/*.rs").repeat(2), "twice"),
        (format!("- {{id: nightly, role: {reader}, scopes: system/*.rs}}"), "either jwks or jwks-url"),
        (line("nightly", &next.jwks("l"), &reader, "system/*.rs").replace("role:", "rolle:"), "rolle"),
        ("- [".to_owned(), "clients.yaml"),
    ] {
        reload(&text);
        let log = service.proxy.log();
        let last = log.lines().rfind(|line| line.contains("stay as they were")).unwrap();
        assert!(last.contains(why), "{why}: {last}");
        token_of(&log_in(&next, "l"));
    }
    // Fewer scopes, another role, no client.
    reload(&line("nightly", &next.jwks("l"), &reader, "system/Observation.rs"));
    assert!(outcome(&dump(&service, &token), 403).contains("scopes of the token"));
    reload(&line("nightly", &next.jwks("l"), &nobody, "system/*.rs"));
    assert!(outcome(&dump(&service, &token), 403).contains("permission denied"));
    reload(&line("other", &next.jwks("l"), &reader, "system/*.rs"));
    outcome(&dump(&service, &token), 401);
}

#[test]
fn proxies_with_one_secret_know_each_others_tokens_and_others_do_not() {
    let (service, signer) = one("system/*.rs", &[]);
    let secret = file(&service.database, "token-secret", &"s".repeat(32));
    let start = |more: &[&str]| {
        let flags: Vec<&str> = service.flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
        Proxy::start(&flags)
    };
    let (a, b) = (start(&["--token-secret-file", &secret]), start(&["--token-secret-file", &secret]));
    let token = token_of(&a.send(&asking(&signer.assertion("nightly", "k"), "system/*.rs")));
    let status = |proxy: &Proxy| proxy.send(&with(&token, Request::get("/Patient/$dump"))).status;
    assert_eq!((status(&a), status(&b), status(&service.proxy)), (200, 200, 401));
    a.reload();
    assert_eq!(status(&a), 200);
    // A token of the process's own secret outlives a reload, too.
    let token = token_of(&service.proxy.send(&asking(&signer.assertion("nightly", "k"), "system/*.rs")));
    service.proxy.reload();
    assert_eq!(dump(&service, &token).status, 200);
}

/// The commands in a section of a page: blocks of shell, and those of no language, which the tests of pages leave out.
fn blocks(page: &str, heading: &str) -> Vec<String> {
    let section = page.split(heading).nth(1).unwrap().split("\n### ").next().unwrap();
    let blocks = section.split("```").skip(1).step_by(2).filter_map(|block| block.split_once('\n'));
    blocks.filter(|(language, _)| ["", "sh"].contains(language)).map(|(_, text)| text.to_owned()).collect()
}

#[test]
fn a_client_can_make_its_key_and_log_in_as_the_page_says() {
    let blocks = blocks(include_str!("../../../docs/deploy.md"), "### SMART clients\n");
    let run = |service: &Service, script: &str| {
        let mut shell = Command::new("sh");
        let output = shell.args(["-euc", script]).current_dir(service.database.path("")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let (service, _) = one("system/*.rs", &[]);
    let set = run(&service, &blocks[0]);
    let reader = format!("{}_reader", service.database.name());
    let text = format!("- id: nightly\n  jwks: {}\n  role: {reader}\n  scopes: system/*.rs\n", set.trim());
    file(&service.database, "clients.yaml", &text);
    let at = service.flags.iter().position(|flag| flag == "--public-url").unwrap();
    let mut flags: Vec<&str> = service.flags.iter().map(String::as_str).collect();
    flags[at + 1] = "https://fhir.example.org:8443";
    let proxy = Proxy::start(&flags);
    let address = format!("curl -s {}", proxy.url());
    let script = blocks.concat().replace(&blocks[0], "b64() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }\n");
    let answer = run(&service, &script.replace("curl -s https://fhir.example.org:8443", &address));
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let token = answer["access_token"].as_str().unwrap_or_else(|| panic!("{answer}"));
    assert_eq!(proxy.send(&with(token, Request::get("/Patient/$dump"))).status, 200);
}

#[test]
fn logs_of_any_level_have_no_assertion_and_no_token() {
    let (service, signer) = one("system/*.rs", &["--log", "trace"]);
    let good = signer.assertion("nightly", "k");
    let token = token_of(&service.proxy.send(&asking(&good, "system/*.rs")));
    assert_eq!(dump(&service, &token).status, 200);
    let stranger = Signer::elliptic().assertion("nightly", "k");
    oauth_error(&service.proxy.send(&asking(&stranger, "system/*.rs")), 401, "invalid_client");
    oauth_error(&service.proxy.send(&asking(&good, "system/*.rs")), 401, "invalid_client");
    outcome(&dump(&service, &format!("{token}x")), 401);
    wait_for("the last request in the log", || service.proxy.log().contains("cause=InvalidAlgorithm"));
    let log = service.proxy.log();
    for told in ["TRACE", r#"client="nightly""#, "jti has been used", "its signature is wrong"] {
        assert!(log.contains(told), "{told}: {log}");
    }
    for secret in [&good, &token, &stranger] {
        for part in secret.split('.').skip(1) {
            assert!(!log.contains(part), "{part}: {log}");
        }
    }
    let of_server = service.database.cluster().log();
    assert!(!of_server.contains(token.rsplit('.').next().unwrap()));
}
