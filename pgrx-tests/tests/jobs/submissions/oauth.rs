//! Sources that want access tokens: who may have which credentials, and who gets the tokens.

use super::{BASE, Source, allowed, finish, kept, outcomes, sql, stu3, submit, submitter, texts};
use crate::support::{assert_error, fails, patients, rows, run, value};
use fhir_bulk_tests::Client;
use fhir_bulk_tests::http::{self, Server};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex};

const SECRET: &str = "geheim &+%";

/// What a [`Guarded`] server has and has seen.
struct State {
    files: BTreeMap<String, Vec<u8>>,
    /// What it says when it is asked for a token; else it gives a new one.
    instead: Option<Vec<u8>>,
    expires_in: Value,
    /// Tokens from this one on are accepted.
    first_valid: usize,
    /// The forms of the requests for tokens, with their credentials.
    asked: Vec<String>,
    /// The paths that were asked for, each with the number of the token.
    seen: Vec<(String, Option<usize>)>,
}

/// A server with an authorization server in it: `/token` gives the tokens `token-1`, `token-2` and so on. Files whose path
/// begins with `/open` need none.
pub struct Guarded {
    server: Server,
    state: Arc<Mutex<State>>,
}

impl Guarded {
    pub fn new() -> Guarded {
        let state = Arc::new(Mutex::new(State {
            files: BTreeMap::new(),
            instead: None,
            expires_in: json!(300),
            first_valid: 1,
            asked: Vec::new(),
            seen: Vec::new(),
        }));
        let own = state.clone();
        let server = Server::new(move |request, stream| {
            let field = |name: &str| {
                let is_it = |line: &&str| line.to_ascii_lowercase().starts_with(&format!("{name}: "));
                request.head.lines().find(is_it).map(|line| line[name.len() + 2..].to_owned())
            };
            let mut body = vec![0; field("content-length").map_or(0, |length| length.parse().unwrap())];
            stream.read_exact(&mut body).unwrap();
            let credentials = field("authorization").unwrap_or_default();
            let mut state = own.lock().unwrap();
            let answer = if request.path == "/token" {
                state.asked.push(format!("{credentials} {}", String::from_utf8(body).unwrap()));
                let token = format!("token-{}", state.asked.len());
                let new = json!({"access_token": token, "token_type": "bearer", "expires_in": state.expires_in});
                state.instead.clone().unwrap_or_else(|| http::ok(new.to_string()))
            } else {
                let token = credentials.strip_prefix("Bearer token-").and_then(|number| number.parse().ok());
                state.seen.push((request.path.clone(), token));
                let may = request.path.starts_with("/open") || token.is_some_and(|token| token >= state.first_valid);
                match state.files.get(&request.path) {
                    _ if !may => http::status("401 Unauthorized", "WWW-Authenticate: Bearer\r\n"),
                    Some(answer) => answer.clone(),
                    None => http::status("404 Not Found", ""),
                }
            };
            drop(state);
            let _ = stream.write_all(&answer);
        });
        let guarded = Guarded { server, state };
        let metadata = json!({"issuer": guarded.url(""), "token_endpoint": guarded.url("/token")});
        guarded.file("/open/metadata", metadata.to_string());
        guarded
    }

    pub fn url(&self, path: &str) -> String {
        self.server.url(path)
    }

    fn answer(&self, path: &str, answer: Vec<u8>) -> String {
        self.with(|state| state.files.insert(path.to_owned(), answer));
        self.url(path)
    }

    fn file(&self, path: &str, body: impl AsRef<[u8]>) -> String {
        self.answer(path, http::ok(body))
    }

    /// A manifest that says whether its files need a token.
    pub fn manifest(&self, path: &str, files: &[&str], needs_token: bool) -> String {
        let files: Vec<_> = files.iter().map(|url| ("Patient", *url)).collect();
        let mut manifest = stu3(&files);
        manifest["requiresAccessToken"] = needs_token.into();
        self.file(path, manifest.to_string())
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap())
    }

    /// With which token a path was asked for, each time.
    fn tokens(&self, path: &str) -> Vec<Option<usize>> {
        self.with(|state| state.seen.iter().filter(|(seen, _)| seen == path).map(|(_, token)| *token).collect())
    }

    pub fn asked(&self) -> usize {
        self.with(|state| state.asked.len())
    }
}

/// A request for credentials of the current role, with more members.
pub fn credential(client: &mut Client, endpoint: &str, more: Value) -> Value {
    let role = value(client, "SELECT current_user");
    let mut all = json!({"submitter": {"system": "https://hub.example/orgs", "value": "payer-7"}, "role": role,
        "tokenEndpoint": endpoint, "clientId": "me:1", "clientSecret": SECRET});
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

pub fn set_sql(credential: &Value) -> String {
    format!("SELECT bulk_set_source_credential($json${credential}$json$)")
}

pub fn set(client: &mut Client, endpoint: &str, more: Value) {
    let credential = credential(client, endpoint, more);
    run(client, &set_sql(&credential));
}

/// A manifest whose token is got where the metadata at `/open/metadata` says.
pub fn with_token(guarded: &Guarded, url: &str) -> Value {
    json!({"manifestUrl": url, "fhirBaseUrl": BASE, "oauthMetadataUrl": [guarded.url("/open/metadata")]})
}

#[test]
fn the_manifest_and_files_that_need_it_are_asked_for_with_a_token_and_no_others() {
    let (database, mut client) = allowed();
    let guarded = Guarded::new();
    let files = [guarded.file("/p1", patients(1..=2)), guarded.file("/open/p2", patients(3..=4))];
    let needing = guarded.manifest("/needing", &[&files[0], &files[1]], true);
    let open = guarded.file("/open/p3", patients(5..=6));
    let others = guarded.manifest("/others", &[&open], false);
    set(&mut client, &guarded.url("/token"), json!({"scope": "system/*.rs system/Patient.r"}));
    for url in [&needing, &others] {
        submit(&mut client, "s", with_token(&guarded, url));
    }
    let status = finish(&mut client, "s");
    assert_eq!((&status["total"], &status["outcome"]), (&json!(6), &json!([])));
    for path in ["/needing", "/p1", "/open/p2", "/others"] {
        assert!(matches!(guarded.tokens(path)[..], [Some(_)]), "{path}: {:?}", guarded.tokens(path));
    }
    assert_eq!(guarded.tokens("/open/p3"), [None]);
    assert!(guarded.tokens("/open/metadata").iter().all(Option::is_none));
    // One for each manifest, and asked for as RFC 6749 has it: both parts are escaped before they are joined.
    let basic = fhir_bulk_tests::proxy::base64(b"me%3A1:geheim+%26%2B%25", true);
    let asked = format!("Basic {basic} grant_type=client_credentials&scope=system%2F*.rs+system%2FPatient.r");
    assert_eq!(guarded.with(|state| state.asked.clone()), [asked.clone(), asked]);
    assert!(!database.cluster().log().contains("token-1"));
    assert_eq!(kept(&mut client), [0, 0, 0]);
}

#[test]
fn a_token_is_renewed_before_it_expires_and_once_after_it_is_refused() {
    let (_database, mut client) = allowed();
    let guarded = Guarded::new();
    guarded.with(|state| state.expires_in = json!("0"));
    let files: Vec<String> = (1..=3).map(|n| guarded.file(&format!("/p{n}"), patients(n..=n))).collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let url = guarded.manifest("/m", &files, true);
    set(&mut client, &guarded.url("/token"), json!({}));
    submit(&mut client, "s", with_token(&guarded, &url));
    assert_eq!(finish(&mut client, "s")["total"], 3);
    let used = ["/m", "/p1", "/p2", "/p3"].map(|path| guarded.tokens(path));
    assert_eq!(used, [[Some(1)], [Some(2)], [Some(3)], [Some(4)]]);
    // Revoked after the manifest was read: the file is asked for twice, once with a new one.
    guarded.with(|state| (state.expires_in, state.first_valid) = (json!(300), 6));
    let stale = guarded.manifest("/open/m", &[files[0]], true);
    submit(&mut client, "t", with_token(&guarded, &stale));
    assert_eq!(finish(&mut client, "t")["total"], 1);
    assert_eq!((guarded.tokens("/open/m"), guarded.tokens("/p1")), (vec![Some(5)], vec![Some(2), Some(5), Some(6)]));
    // Who refuses all is not asked again and again.
    guarded.with(|state| state.first_valid = usize::MAX);
    submit(&mut client, "u", with_token(&guarded, &url));
    let status = finish(&mut client, "u");
    let found = outcomes(&mut client, &status);
    assert!(texts(&found[&url])[0].contains("401: Unauthorized"), "{found:?}");
    assert_eq!((guarded.tokens("/m"), guarded.asked()), (vec![Some(1), Some(7), Some(8)], 8));
}

#[test]
fn what_the_token_endpoint_refuses_is_said_without_secrets() {
    let (database, mut client) = allowed();
    let guarded = Guarded::new();
    let url = guarded.manifest("/m", &[], true);
    let secret = format!("geheim-{}", database.name());
    set(&mut client, &guarded.url("/token"), json!({"clientSecret": secret}));
    let refused = |status: &str, body: Value| {
        let body = body.to_string();
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    };
    let moved = format!("Location: {}\r\n", guarded.url("/open/token"));
    let cases = [
        (refused("401 Unauthorized", json!({"error": "invalid_client"})), "401: Unauthorized (invalid_client)"),
        (refused("400 Bad Request", json!({"error": "eyJ geheim"})), "400: Bad Request"),
        (refused("200 OK", json!({"access_token": "geheim"})), "no token of type Bearer"),
        (
            refused("200 OK", json!({"access_token": "geheim\r\nHost: x", "token_type": "Bearer"})),
            "no token that can be",
        ),
        (http::ok("geheim"), "not JSON"),
        (http::ok("x".repeat(70_000)), "more than 65536 bytes"),
        (http::status("307 Temporary Redirect", &moved), "307"),
    ];
    for (n, (answer, expected)) in cases.into_iter().enumerate() {
        guarded.with(|state| state.instead = Some(answer));
        let id = n.to_string();
        submit(&mut client, &id, with_token(&guarded, &url));
        let status = finish(&mut client, &id);
        let found = outcomes(&mut client, &status);
        let text = texts(&found[&url])[0];
        assert!(text.contains("gave no access token") && text.contains(expected), "{expected}: {text}");
        assert!(!text.contains("geheim"), "{text}");
    }
    assert_eq!(guarded.tokens("/m").len() + guarded.tokens("/open/token").len(), 0);
    assert!(!database.cluster().log().contains(&secret));
}

#[test]
fn tokens_go_to_the_sources_of_their_credentials_and_never_after_a_redirect_elsewhere() {
    let (_database, mut client) = allowed();
    let (guarded, elsewhere) = (Guarded::new(), Source::new());
    let target = elsewhere.file("/p", patients(1..=2));
    let away = guarded.answer("/away", http::status("302 Found", &format!("Location: {target}\r\n")));
    let url = guarded.manifest("/m", &[&away], true);
    set(&mut client, &guarded.url("/token"), json!({}));
    submit(&mut client, "a", with_token(&guarded, &url));
    assert_eq!(finish(&mut client, "a")["total"], 2);
    assert_eq!(guarded.tokens("/away"), [Some(1)]);
    assert!(!elsewhere.seen("/p")[0].to_ascii_lowercase().contains("authorization"));
    // A manifest or a file of another server would get it.
    let url = guarded.manifest("/b", &[&target], true);
    let direct = elsewhere.manifest("/m", &stu3(&[]));
    for (id, url) in [("b", &url), ("c", &direct)] {
        submit(&mut client, id, with_token(&guarded, url));
        let status = finish(&mut client, id);
        let found = outcomes(&mut client, &status);
        assert!(texts(&found[url])[0].contains("is none of the sources that tokens of"), "{found:?}");
    }
    assert_eq!(elsewhere.seen("/p").len() + elsewhere.seen("/m").len(), 1);
    let more = json!({"sources": [guarded.url("/"), elsewhere.url("/p")]});
    set(&mut client, &guarded.url("/token"), more);
    submit(&mut client, "d", with_token(&guarded, &url));
    assert_eq!(finish(&mut client, "d")["total"], 2);
    assert!(elsewhere.seen("/p")[1].contains("Bearer token-"));
}

#[test]
fn credentials_are_for_one_role_one_submitter_and_exactly_one_token_endpoint() {
    let (database, mut admin) = allowed();
    let guarded = Guarded::new();
    let (one, other) = (submitter(&database, &mut admin, "one"), submitter(&database, &mut admin, "other"));
    let url = guarded.manifest("/open/m", &[], false);
    let mut client = database.connect_as(&one);
    let refused = |client: &mut Client, more: Value, pieces: &[&str]| {
        let mut all = with_token(&guarded, &url);
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_error(&fails(client, &sql("s", all)), "42704", pieces);
    };
    // Without any nothing is read.
    refused(&mut client, json!({}), &["\"oauthMetadataUrl\"", "has no credentials"]);
    assert_eq!(guarded.tokens("/open/metadata").len(), 0);
    let endpoint = guarded.url("/token");
    set(&mut admin, &endpoint, json!({"role": other}));
    set(&mut admin, &endpoint, json!({"role": one, "submitter": {"value": "payer-7"}}));
    refused(&mut client, json!({}), &["has no credentials"]);
    let near = [format!("{endpoint}/"), format!("{endpoint}?"), endpoint.replace("127.0.0.1", "localhost")];
    for near in &near {
        set(&mut admin, near, json!({"role": one}));
    }
    refused(&mut client, json!({}), &["leads to the token endpoint", &endpoint]);
    set(&mut admin, &endpoint, json!({"role": one}));
    submit(&mut client, "s", with_token(&guarded, &url));
    // A sub has those of its role.
    let mut with_sub = database.connect_as(&one);
    run(&mut with_sub, "SET request.jwt.claims = '{\"sub\": \"a\"}'");
    submit(&mut with_sub, "s", with_token(&guarded, &url));
    let removed = json!({"role": one, "submitter": {"system": "https://hub.example/orgs", "value": "payer-7"},
        "tokenEndpoint": endpoint});
    let remove = format!("SELECT bulk_remove_source_credential($json${removed}$json$)");
    assert_eq!((value(&mut admin, &remove), value(&mut admin, &remove)), ("t".to_owned(), "f".to_owned()));
    refused(&mut client, json!({"submissionId": "t"}), &["leads to the token endpoint"]);
}

#[test]
fn metadata_leads_to_its_token_endpoint_only_as_itself_says() {
    let (_database, mut client) = allowed();
    let guarded = Guarded::new();
    let endpoint = guarded.url("/token");
    set(&mut client, &endpoint, json!({}));
    let url = guarded.manifest("/open/m", &[], false);
    let with = |metadata: &[&str]| {
        let mut all = with_token(&guarded, &url);
        all["oauthMetadataUrl"] = json!(metadata);
        all
    };
    let good = guarded.url("/open/metadata");
    let to_good = format!("Location: {good}\r\n");
    let silent = crate::source::Stalling::silent();
    let cases = [
        (guarded.answer("/open/moved", http::status("302 Found", &to_good)), "22023", "redirected"),
        (guarded.url("/open/none"), "22023", "404"),
        (guarded.file("/open/html", "<html>"), "22023", "not metadata"),
        (guarded.file("/open/empty", "{}"), "22023", "no token_endpoint"),
        (guarded.file("/open/large", format!("{{\"a\": \"{}\"}}", "x".repeat(70_000))), "22023", "more than 65536"),
        (guarded.file("/open/file", r#"{"token_endpoint": "file:///etc/passwd"}"#), "22023", "not an http"),
        (guarded.file("/open/s", r#"{"authorization_servers": ["ftp://h"]}"#), "22023", "authorization_servers"),
        (guarded.file("/open/far", r#"{"authorization_servers": ["http://10.1.2.3"]}"#), "42501", "permission denied"),
        (
            guarded.file("/open/self", r#"{"token_endpoint": "https://other.example/token"}"#),
            "42704",
            "https://other.example/token",
        ),
        ("http://10.1.2.3/x".to_owned(), "42501", "permission denied"),
        (silent.url(), "22023", "takes too long"),
    ];
    for (metadata, state, piece) in &cases {
        assert_error(&fails(&mut client, &sql("s", with(&[metadata]))), state, &[piece]);
    }
    silent.go_on();
    // Protected resources name their authorization servers (RFC 9728), which have their metadata below the well-known path.
    let issuer = guarded.url("/open");
    guarded.file("/open/resource", json!({"resource": BASE, "authorization_servers": [issuer]}).to_string());
    assert_error(&fails(&mut client, &sql("s", with(&[&guarded.url("/open/resource")]))), "22023", &["401"]);
    let (metadata, endless) = (json!({"token_endpoint": endpoint}), json!({"authorization_servers": vec![issuer; 9]}));
    guarded.file("/.well-known/oauth-authorization-server/open", metadata.to_string());
    guarded.with(|state| state.first_valid = 0);
    assert_eq!(rows(&mut client, "SELECT * FROM bulk_jobs"), [""; 0]);
    // The first that there are credentials for counts.
    let first = guarded.url("/open/self");
    submit(&mut client, "s", with(&[&first, &good]));
    let endless = guarded.file("/open/endless", endless.to_string());
    guarded.file("/.well-known/oauth-authorization-server/open", "{}");
    assert!(!fails(&mut client, &sql("t", with(&[&endless]))).code().code().is_empty());
    let many = [good.as_str(); 6];
    assert_error(&fails(&mut client, &sql("t", with(&many))), "22023", &["up to 5 URLs"]);
    let mut both = with(&[&good]);
    both["fileRequestHeader"] = json!([{"headerName": "authorization", "headerValue": "x"}]);
    assert_error(&fails(&mut client, &sql("t", both)), "22023", &["Authorization"]);
    finish(&mut client, "s");
}
