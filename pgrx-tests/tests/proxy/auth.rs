//! Which callers are accepted, their roles, and the claims that policies see.

use std::process::Command;

use fhir_bulk_tests::proxy::{Request, Response, base64};
use fhir_bulk_tests::{Database, wait_for};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use ring::{digest, hmac, rand::SystemRandom};
use serde_json::{Value, json};

use crate::support::{PASSWORD, Service, file, outcome, role, target};

const SECRET: &str = "a secret of at least thirty-two bytes";

/// What a `$dump` of patients shows of them.
fn ids(response: &Response) -> Vec<String> {
    assert_eq!(response.status, 200, "{}", response.text());
    response
        .text()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().into())
        .collect()
}

/// Patients of three tenants, of which the role `tenant` sees the one in its claims; and the user `authenticator`.
fn tenants(database: &Database, client: &str) {
    let (tenant, authenticator) = (format!("{}_tenant", database.name()), format!("{}_authenticator", database.name()));
    database
        .connect()
        .batch_execute(&format!(
            r#"SET ROLE {client}; SELECT bulk_create_table('Patient');
            INSERT INTO patient (id, txid, status, resource)
            SELECT 'pt-' || tenant, 1, 'created', jsonb_build_object('tenant', tenant) FROM unnest('{{a,b,c}}'::text[]) tenant;
            ALTER TABLE patient ENABLE ROW LEVEL SECURITY;
            RESET ROLE; CREATE ROLE {tenant} NOLOGIN; GRANT {tenant} TO {authenticator};
            GRANT SELECT ON patient TO {tenant};
            CREATE POLICY own ON patient TO {tenant} USING
                (resource ->> 'tenant' = nullif(current_setting('request.jwt.claims', true), '')::json ->> 'tenant')"#
        ))
        .unwrap();
}

/// A service with an authenticator that is a member of `tenant`, and these flags.
fn service(flags: impl FnOnce(&Database) -> Vec<String>) -> Service {
    let service = Service::with(|database| {
        let authenticator = role(database, "authenticator");
        database.connect().batch_execute(&format!("ALTER ROLE {authenticator} NOINHERIT")).unwrap();
        let mut all = flags(database);
        all.extend(["--database".into(), target(database, &format!("user={authenticator} password='{PASSWORD}'"))]);
        all
    });
    tenants(&service.database, &service.client);
    service
}

fn with_secret(database: &Database) -> Vec<String> {
    vec!["--jwt-secret-file".into(), file(database, "secret", &format!("{SECRET}\n"))]
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| base64(value.to_string().as_bytes(), false);
    format!("{}.{}", part(header), part(claims))
}

pub fn hs256(claims: &Value, secret: &str) -> String {
    let text = unsigned(&json!({"alg": "HS256", "typ": "JWT"}), claims);
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    format!("{text}.{}", base64(hmac::sign(&key, text.as_bytes()).as_ref(), false))
}

fn bearer(token: &str) -> Request {
    Request::get("/Patient/$dump").header("Authorization", &format!("Bearer {token}"))
}

#[test]
fn without_the_right_password_nobody_gets_in_or_learns_which_roles_there_are() {
    let service = Service::new();
    let get = || Request::get("/Patient/$dump");
    let texts: Vec<String> = [
        get().basic(&service.client, "wrong"),
        get().basic("nobody_at_all", PASSWORD),
        get().basic(&service.client, &format!("{PASSWORD} ")),
    ]
    .iter()
    .map(|request| {
        let response = service.proxy.send(request);
        assert_eq!(response.headers("www-authenticate"), [r#"Basic realm="fhir_bulk""#, r#"Bearer realm="fhir_bulk""#]);
        outcome(&response, 401)
    })
    .collect();
    assert!(texts.iter().all(|text| text == &texts[0]), "{texts:?}");
    for request in [
        get(),
        get().basic(&service.client, ""),
        get().basic("", PASSWORD),
        get().basic("postgres\0x", PASSWORD),
        get().header("Authorization", "Basic !!!"),
        get().header("Authorization", "Basic"),
        get().header("Authorization", "Digest x"),
        get().header("Authorization", "Bearer e30.e30.e30"),
        get().header("x-api-key", "clk_live_abc123"),
    ] {
        outcome(&service.proxy.send(&request), 401);
    }
    // Not found is what the right password finds.
    outcome(&service.send(get()), 404);
    assert!(!service.proxy.log().contains(PASSWORD), "{}", service.proxy.log());
}

#[test]
fn a_role_that_connects_without_a_password_is_refused_and_the_log_says_why() {
    let service = Service::new();
    let trusted = role(&service.database, "trusted");
    service.database.connect().batch_execute(&format!("GRANT trusting TO {trusted}")).unwrap();
    for password in [PASSWORD, "anything"] {
        outcome(&service.proxy.send(&Request::get("/Patient/$dump").basic(&trusted, password)), 401);
    }
    wait_for("the reason in the log", || {
        service.proxy.log().contains(&format!("role \"{trusted}\" connects without a password"))
    });
}

#[test]
fn a_changed_password_counts_soon_although_connections_are_kept() {
    let service = Service::with(|_| vec!["--connection-age".into(), "500ms".into()]);
    let status =
        |password: &str| service.proxy.send(&Request::get("/Patient/$dump").basic(&service.client, password)).status;
    assert_eq!(status(PASSWORD), 404);
    service.database.connect().batch_execute(&format!("ALTER ROLE {} PASSWORD 'new'", service.client)).unwrap();
    wait_for("the old password to be refused", || status(PASSWORD) == 401);
    assert_eq!(status("new"), 404);
}

#[test]
fn a_tokens_role_sees_what_its_claims_allow_and_the_next_ones_do_not_inherit_them() {
    let service = service(with_secret);
    let tenant = format!("{}_tenant", service.database.name());
    let dump = |claims: Value| service.proxy.send(&bearer(&hs256(&claims, SECRET)));
    let far = 4_000_000_000_u64;
    for letter in ["a", "b", "c", "a"] {
        let response = dump(json!({"role": tenant, "tenant": letter, "exp": far}));
        assert_eq!(ids(&response), [format!("pt-{letter}")]);
    }
    assert_eq!(ids(&dump(json!({"role": tenant}))), Vec::<String>::new());
    assert_eq!(ids(&service.send(Request::get("/Patient/$dump"))), ["pt-a", "pt-b", "pt-c"]);
    // Roles that the proxy's user may not take on, that are not there, and that end the quotes.
    for role in ["postgres", "nobody_at_all", "x'; RESET ROLE; --", ""] {
        outcome(&dump(json!({"role": role, "tenant": "a"})), 403);
    }
}

#[test]
fn what_one_request_leaves_in_its_session_is_gone_before_the_next() {
    let service = service(with_secret);
    let tenant = format!("{}_tenant", service.database.name());
    service
        .database
        .connect()
        .batch_execute(&format!(
            "CREATE FUNCTION note(id text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
                IF current_setting('leak.seen', true) = 'yes' THEN RETURN id = 'pt-a'; END IF;
                IF id = 'pt-c' THEN PERFORM set_config('leak.seen', 'yes', false); END IF;
                RETURN true; END $$;
             DROP POLICY own ON patient; CREATE POLICY own ON patient TO {tenant} USING (note(id))"
        ))
        .unwrap();
    let token = hs256(&json!({"role": tenant}), SECRET);
    for _ in 0..5 {
        assert_eq!(ids(&service.proxy.send(&bearer(&token))), ["pt-a", "pt-b", "pt-c"]);
    }
}

#[test]
fn forged_expired_and_foreign_tokens_are_refused() {
    let service = service(|database| {
        let mut flags = with_secret(database);
        flags.extend(["--jwt-audience".into(), "fhir".into()]);
        flags
    });
    let tenant = format!("{}_tenant", service.database.name());
    let good = json!({"role": tenant, "tenant": "a", "aud": "fhir", "exp": 4_000_000_000_u64});
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        hs256(&claims, SECRET)
    };
    assert_eq!(ids(&service.proxy.send(&bearer(&hs256(&good, SECRET)))), ["pt-a"]);
    let unsigned_none = unsigned(&json!({"alg": "none"}), &good) + ".";
    let hs512 = {
        let text = unsigned(&json!({"alg": "HS512"}), &good);
        let key = hmac::Key::new(hmac::HMAC_SHA512, SECRET.as_bytes());
        format!("{text}.{}", base64(hmac::sign(&key, text.as_bytes()).as_ref(), false))
    };
    let mut cut = hs256(&good, SECRET);
    cut.pop();
    for (what, token) in [
        ("another secret", hs256(&good, "another secret of thirty-two bytes!!")),
        ("expired", with("exp", json!(1_000_000_000))),
        ("not yet valid", with("nbf", json!(3_900_000_000_u64))),
        ("for somebody else", with("aud", json!("others"))),
        ("no role", with("role", Value::Null)),
        ("a role that is no text", with("role", json!(["postgres"]))),
        ("a role with a NUL", with("role", json!("x\0"))),
        ("alg none", unsigned_none),
        ("another algorithm", hs512),
        ("cut", cut),
        ("empty", String::new()),
        ("dots", "..".into()),
    ] {
        let response = service.proxy.send(&bearer(&token));
        assert_eq!(response.status, 401, "{what}: {}", response.text());
    }
}

#[test]
fn tokens_signed_with_a_public_key_pair_are_checked_by_the_jwk_set() {
    let random = SystemRandom::new();
    let elliptic = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let elliptic = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, elliptic.as_ref(), &random).unwrap();
    let rsa = || {
        let generate = "openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -outform DER 2>/dev/null | \
                        openssl pkcs8 -topk8 -nocrypt -inform DER -outform DER";
        RsaKeyPair::from_pkcs8(&Command::new("sh").args(["-c", generate]).output().unwrap().stdout).unwrap()
    };
    let (rsa, other_rsa) = (rsa(), rsa());
    let components = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(rsa.public());
    let point = elliptic.public_key().as_ref();
    // Keys of other kinds and for other uses may stand beside (RFC 7517, 5).
    let (other_components, point_of_other) =
        (ring::rsa::PublicKeyComponents::<Vec<u8>>::from(other_rsa.public()), base64(&[7; 32], false));
    let set = json!({"keys": [
        {"kty": "future", "kid": "x", "v": 1},
        {"kty": "OKP", "crv": "Ed25519", "x": point_of_other},
        {"kty": "oct", "k": base64(&[7; 32], false)},
        {"kty": "EC", "crv": "P-384", "kid": "p384", "x": base64(&[7; 48], false), "y": base64(&[7; 48], false)},
        {"kty": "RSA", "kid": "enc", "use": "enc", "n": base64(&other_components.n, false),
         "e": base64(&other_components.e, false)},
        {"kty": "RSA", "kid": "ops", "key_ops": ["encrypt"], "n": base64(&other_components.n, false),
         "e": base64(&other_components.e, false)},
        {"kty": "RSA", "kid": "alg", "alg": "RS512", "n": base64(&other_components.n, false),
         "e": base64(&other_components.e, false)},
        {"kty": "RSA", "kid": "broken", "n": "!"},
        {"kty": "EC", "crv": "P-256", "kid": "ec", "x": base64(&point[1..33], false), "y": base64(&point[33..], false)},
        {"kty": "RSA", "kid": "rsa", "n": base64(&components.n, false), "e": base64(&components.e, false)},
    ]});
    let service = service(|database| vec!["--jwks-file".into(), file(database, "jwks.json", &set.to_string())]);
    let claims = json!({"role": format!("{}_tenant", service.database.name()), "tenant": "b"});
    let sign_rsa = |key: &RsaKeyPair, header: &Value| {
        let text = unsigned(header, &claims);
        let mut signature = vec![0; key.public().modulus_len()];
        key.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature).unwrap();
        format!("{text}.{}", base64(&signature, false))
    };
    let es256 = {
        let text = unsigned(&json!({"alg": "ES256", "kid": "ec"}), &claims);
        format!("{text}.{}", base64(elliptic.sign(&random, text.as_bytes()).unwrap().as_ref(), false))
    };
    for token in
        [es256, sign_rsa(&rsa, &json!({"alg": "RS256", "kid": "rsa"})), sign_rsa(&rsa, &json!({"alg": "RS256"}))]
    {
        assert_eq!(ids(&service.proxy.send(&bearer(&token))), ["pt-b"], "{token}");
    }
    // A public key is no secret: signing with it as if it were one gets nobody in.
    let confused = unsigned(&json!({"alg": "HS256"}), &claims);
    let key = hmac::Key::new(hmac::HMAC_SHA256, point);
    let confused = format!("{confused}.{}", base64(hmac::sign(&key, confused.as_bytes()).as_ref(), false));
    for token in [
        confused,
        sign_rsa(&other_rsa, &json!({"alg": "RS256", "kid": "rsa"})),
        sign_rsa(&other_rsa, &json!({"alg": "RS256", "kid": "enc"})),
        sign_rsa(&other_rsa, &json!({"alg": "RS256", "kid": "ops"})),
        sign_rsa(&other_rsa, &json!({"alg": "RS256", "kid": "alg"})),
        sign_rsa(&other_rsa, &json!({"alg": "RS256"})),
        sign_rsa(&rsa, &json!({"alg": "RS256", "kid": "unknown"})),
        sign_rsa(&rsa, &json!({"alg": "ES256"})),
    ] {
        assert_eq!(service.proxy.send(&bearer(&token)).status, 401, "{token}");
    }
}

#[test]
fn an_api_key_stands_for_a_role_and_is_kept_as_a_digest_only() {
    let service = service(|database| {
        let digest = digest::digest(&digest::SHA256, b"clk_live_abc123");
        let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let keys = format!("- sha256: {digest}\n  role: {}_tenant\n  claims: {{tenant: c}}\n", database.name());
        vec!["--api-keys-file".into(), file(database, "keys.yaml", &keys)]
    });
    let get = |key: &str| service.proxy.send(&Request::get("/Patient/$dump").header("x-api-key", key));
    assert_eq!(ids(&get("clk_live_abc123")), ["pt-c"]);
    outcome(&get("clk_live_abc124"), 401);
    outcome(&get(""), 401);
    assert!(!service.proxy.log().contains("clk_live"), "{}", service.proxy.log());
}

#[test]
fn anonymous_callers_get_in_only_where_a_role_is_set_for_them() {
    let service = service(|database| vec!["--anonymous-role".into(), format!("{}_tenant", database.name())]);
    assert_eq!(ids(&service.proxy.send(&Request::get("/Patient/$dump"))), Vec::<String>::new());
    // Wrong credentials are not the same as none.
    outcome(&service.proxy.send(&Request::get("/Patient/$dump").basic(&service.client, "wrong")), 401);
    assert_eq!(ids(&service.send(Request::get("/Patient/$dump"))).len(), 3);
}

#[test]
fn a_role_that_a_token_stands_for_has_its_own_settings_and_the_next_has_none_of_them() {
    let service = service(with_secret);
    let (name, tenant) = (service.database.name().to_owned(), format!("{}_tenant", service.database.name()));
    service
        .database
        .connect()
        .batch_execute(&format!(
            "CREATE ROLE {name}_plain NOLOGIN; GRANT {name}_plain TO {name}_authenticator;
             GRANT SELECT ON patient TO {name}_plain; CREATE POLICY all_rows ON patient TO {name}_plain USING (true);
             ALTER ROLE {tenant} SET TimeZone = 'Asia/Tokyo'; ALTER ROLE {tenant} SET app.ward = 'a, b=''c';
             ALTER ROLE {tenant} SET log_statement = 'all'; ALTER ROLE {tenant} SET role = 'postgres';
             ALTER ROLE {tenant} SET client_encoding = 'LATIN1';
             ALTER ROLE {tenant} IN DATABASE {name} SET statement_timeout = '1234s';
             ALTER ROLE {tenant} SET statement_timeout = '1s';
             UPDATE patient SET cts = '2021-06-10T00:00:00+09:00'"
        ))
        .unwrap();
    let send = |role: &str, request: Request| {
        let token = hs256(&json!({"role": role, "tenant": "a"}), SECRET);
        service.proxy.send(&request.header("Authorization", &format!("Bearer {token}")))
    };
    let settings = |role: &str| {
        let names = ["TimeZone", "app.ward", "log_statement", "statement_timeout", "client_encoding"];
        let each = names.map(|name| format!("coalesce(current_setting('{name}', true), '')")).join(" || '|' || ");
        let query = format!("select {each} || '|' || current_user");
        let response = send(role, Request::json("/$dump-sql", &json!({"query": query}).to_string()));
        assert_eq!(response.status, 200, "{}", response.text());
        response.text().trim().trim_matches('"').to_owned()
    };
    for _ in 0..3 {
        assert_eq!(settings(&tenant), format!("Asia/Tokyo|a, b='c|none|1234s|UTF8|{tenant}"));
        assert_eq!(settings(&format!("{name}_plain")), format!("UTC||none|0|UTF8|{name}_plain"));
    }
    // A bare date is midnight where the role is.
    let since = |date: &str| ids(&send(&tenant, Request::get(&format!("/Patient/$dump?_since={date}"))));
    assert_eq!((since("2021-06-10"), since("2021-06-09")), (vec![], vec!["pt-a".to_owned()]));
    assert!(send(&tenant, Request::get("/Patient/$dump")).text().contains("+09:00"));
    // Of tablespaces that are gone, or not for the role, a login says nothing either.
    service
        .database
        .connect()
        .batch_execute(&format!(
            "ALTER ROLE {tenant} SET temp_tablespaces = 'gone', 'pg_global';
             ALTER ROLE {tenant} SET default_tablespace = 'gone'"
        ))
        .unwrap();
    assert_eq!(settings(&tenant), format!("Asia/Tokyo|a, b='c|none|1234s|UTF8|{tenant}"));
    // One that cannot be set is told, not passed over.
    service
        .database
        .connect()
        .batch_execute(&format!(
            "UPDATE pg_db_role_setting SET setconfig = setconfig || 'TimeZone=Nowhere/X'::text
             WHERE setdatabase <> 0 AND setrole = '{tenant}'::regrole"
        ))
        .unwrap();
    let text = outcome(&send(&tenant, Request::get("/Patient/$dump")), 500);
    assert!(text.contains("settings of this role"), "{text}");
}

#[test]
fn a_role_called_none_is_no_role_and_never_the_proxys_own() {
    let service = service(|database| {
        let mut flags = with_secret(database);
        let digest: String =
            digest::digest(&digest::SHA256, b"k").as_ref().iter().map(|b| format!("{b:02x}")).collect();
        let keys = file(database, "keys.yaml", &format!("- {{sha256: {digest}, role: none}}\n"));
        flags.extend(["--api-keys-file".into(), keys]);
        flags
    });
    outcome(&service.proxy.send(&bearer(&hs256(&json!({"role": "none"}), SECRET))), 403);
    outcome(&service.proxy.send(&Request::get("/Patient/$dump").header("x-api-key", "k")), 403);
}

#[test]
fn times_of_a_token_may_have_fractions_and_what_is_critical_in_it_is_heeded() {
    let service = service(with_secret);
    let tenant = format!("{}_tenant", service.database.name());
    let status = |token: &str| service.proxy.send(&bearer(token)).status;
    for (exp, nbf, expected) in [
        (json!(4_000_000_000.5), json!(1_000_000_000.25), 200),
        (json!(1_000_000_000.5), json!(0), 401),
        (json!(4_000_000_000_u64), json!(3_900_000_000.5), 401),
        (json!("4000000000"), json!(0), 401),
        (Value::Null, json!(0), 401),
    ] {
        let claims = json!({"role": tenant, "tenant": "a", "exp": exp, "nbf": nbf});
        assert_eq!(status(&hs256(&claims, SECRET)), expected, "{claims}");
    }
    let text = unsigned(&json!({"alg": "HS256", "crit": ["b64"], "b64": true}), &json!({"role": tenant}));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    assert_eq!(status(&format!("{text}.{}", base64(hmac::sign(&key, text.as_bytes()).as_ref(), false))), 401);
}
