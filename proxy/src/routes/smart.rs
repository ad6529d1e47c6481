//! SMART Backend Services: the discovery of the token endpoint, and the endpoint itself (RFC 6749, RFC 7523).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use crate::app::App;
use crate::caller::auth::Authenticator;
use crate::caller::peer;
use crate::config::Switch;
use crate::error::{Problem, Result, printable};
use crate::limits::replays::Use;
use crate::request::call;
use crate::request::parameters::form_values;
use crate::request::parse::JSON;
use crate::response::respond;
use crate::smart::assertion::Assertion;
use crate::smart::login::Smart;
use crate::smart::scopes::SUBMIT;
use crate::smart::tokens::LIFETIME;

/// The largest body of a request for a token.
const MOST_BYTES: usize = 64 << 10;
/// The longest list of scopes.
const MOST_SCOPES: usize = 8 << 10;
const GRANT: &str = "client_credentials";
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// The name of the only authentication method.
const METHOD: &str = "private_key_jwt";
const REFUSED: &str = "the client assertion is not valid";

/// Says where and how clients log in.
pub async fn configuration(State(app): State<Arc<App>>) -> Result<Response> {
    let authenticator = app.authenticator();
    let configuration = json!({
        "token_endpoint": on(&authenticator)?.endpoint,
        "token_endpoint_auth_methods_supported": [METHOD],
        "token_endpoint_auth_signing_alg_values_supported": ["RS384", "ES384"],
        "grant_types_supported": [GRANT],
        "scopes_supported": ["system/*.rs", "system/*.cruds", "system/*.read", "system/*.write", "system/*.*", SUBMIT],
        // No client is sent here by a user's browser, but SMART wants it to be said.
        "response_types_supported": [],
        "code_challenge_methods_supported": ["S256"],
        "capabilities": ["client-confidential-asymmetric", "permission-v1", "permission-v2"],
    });
    Ok(respond(StatusCode::OK, JSON[0], configuration.to_string()))
}

/// The `security` of the CapabilityStatement.
pub fn security(app: &App) -> Value {
    let service = |code: &str| {
        let system = "http://terminology.hl7.org/CodeSystem/restful-security-service";
        json!({"coding": [{"system": system, "code": code}]})
    };
    let mut security = Map::from_iter([("cors".to_owned(), Value::Bool(false))]);
    let mut services = Vec::new();
    if let Some(smart) = app.authenticator().smart() {
        services.push(service("SMART-on-FHIR"));
        let token = json!({"url": "token", "valueUri": smart.endpoint});
        let url = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris";
        security.insert("extension".to_owned(), json!([{"url": url, "extension": [token]}]));
    }
    if app.config.basic == Switch::On {
        services.push(service("Basic"));
    }
    if !services.is_empty() {
        security.insert("service".to_owned(), services.into());
    }
    Value::Object(security)
}

/// Gives a client a token for its assertion:
/// 1. read the form
/// 2. verify the assertion, which is good once, unless too many have failed
/// 3. grant those of the scopes asked for that the client may have
pub async fn token(State(app): State<Arc<App>>, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let authenticator = app.authenticator();
    on(&authenticator)?;
    authenticator.check_site(&parts.headers)?;
    let mut form = form(&app, &parts, body).await?;
    let mut take = |name: &str| form.remove(name).filter(|value| !value.is_empty());
    let (grant, kind, assertion) = (take("grant_type"), take("client_assertion_type"), take("client_assertion"));
    let (named, scopes) = (take("client_id"), take("scope"));
    let missing = |name: &str| invalid_request(format!("{name} is missing"));
    if grant.ok_or_else(|| missing("grant_type"))? != GRANT {
        return Err(refused("unsupported_grant_type", format!("grant_type is not {GRANT}")));
    }
    if kind.ok_or_else(|| missing("client_assertion_type"))? != ASSERTION {
        return Err(invalid_request(format!("client_assertion_type is not {ASSERTION}")));
    }
    let assertion = assertion.ok_or_else(|| missing("client_assertion"))?;
    let from = peer::address(call::peer(&parts)?.0, &parts.headers, &app.config.trusted_proxies);
    // A task of its own, which goes on if the client disconnects: a failure counts.
    let login = tokio::spawn(log_in(app.clone(), authenticator.clone(), assertion, named, from));
    let ended = |why| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the login was interrupted").because(why);
    let client = login.await.map_err(ended)??;
    tracing::Span::current().record("client", printable(&client));

    let scopes = scopes.filter(|scopes| scopes.len() <= MOST_SCOPES);
    let scopes = scopes.ok_or_else(|| refused("invalid_scope", "scope is missing or too long"))?;
    let failed = |why| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "no token can be made").because(why);
    let issued = on(&authenticator)?.issue(&client, &scopes).map_err(failed)?;
    let (token, granted) =
        issued.ok_or_else(|| refused("invalid_scope", "the client may have none of these scopes"))?;
    let answer = json!({"access_token": token, "token_type": "bearer", "expires_in": LIFETIME, "scope": granted});
    let headers = [(header::PRAGMA, "no-cache")];
    Ok((headers, respond(StatusCode::OK, JSON[0], answer.to_string())).into_response())
}

/// The clients, if they may log in.
fn on(authenticator: &Authenticator) -> Result<&Smart> {
    authenticator.smart().ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "there is nothing at this address"))
}

/// The client that signed an assertion. `named` is the `client_id` beside it.
async fn log_in(
    app: Arc<App>,
    authenticator: Arc<Authenticator>,
    assertion: String,
    named: Option<String>,
    from: IpAddr,
) -> Result<String> {
    let invalid = |why: &dyn ToString| refused("invalid_client", REFUSED).because(why.to_string());
    let assertion = Assertion::parse(&assertion).map_err(|refused| invalid(&refused.why))?;
    let client = assertion.client.as_str();
    let of_client = |why: &str| format!("client {client:?}: {why}");
    if named.is_some_and(|named| named != client) {
        return Err(invalid_request("client_id is not the client of the assertion"));
    }
    app.attempts.check(client, from, Instant::now()).map_err(slowed)?;
    let _trial =
        timeout(app.config.wait, app.attempts.trial(client, from)).await.map_err(|_| slowed(Duration::ZERO))?;
    app.attempts.admit(client, from, Instant::now()).map_err(slowed)?;

    let failed = |problem| {
        app.attempts.failed(client, from, Instant::now());
        problem
    };
    let ticket = on(&authenticator)?.verify(&assertion).await.map_err(|why| {
        let message = if why.is_proved { format!("{REFUSED}: {}", why.why) } else { REFUSED.to_owned() };
        failed(refused("invalid_client", message).because(of_client(&why.why)))
    })?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
    match app.replays.enter(client, &ticket.id, ticket.end, now) {
        Use::First => {}
        Use::Again => {
            let message = format!("{REFUSED}: its jti has been used before");
            return Err(failed(refused("invalid_client", message).because(of_client("its jti has been used before"))));
        }
        Use::TooMany => return Err(slowed(Duration::from_secs(1))),
    }
    app.attempts.succeeded(client, from);
    Ok(assertion.client)
}

/// The values of a form.
async fn form(app: &App, parts: &Parts, body: Body) -> Result<BTreeMap<String, String>> {
    if !is_form(&parts.headers) {
        return Err(invalid_request("the Content-Type is not application/x-www-form-urlencoded"));
    }
    let body = timeout(app.config.idle_timeout, Limited::new(body, MOST_BYTES).collect()).await;
    let body = body.map_err(|_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the body came too slowly"))?;
    let body = body.map_err(|error| invalid_request("the body is incomplete or too large").because(error))?;
    let text = String::from_utf8(body.to_bytes().into()).map_err(|_| invalid_request("the body is not UTF-8"))?;
    let mut form = BTreeMap::new();
    for (name, value) in form_values(&text) {
        if form.insert(name.clone(), value).is_some() {
            return Err(invalid_request(format!("{name} is given twice")));
        }
    }
    Ok(form)
}

fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// An error of RFC 6749, 5.2.
fn refused(code: &'static str, message: impl Into<String>) -> Problem {
    let status = if code == "invalid_client" { StatusCode::UNAUTHORIZED } else { StatusCode::BAD_REQUEST };
    Problem { code: Some(code), ..Problem::new(status, message) }
}

fn invalid_request(message: impl Into<String>) -> Problem {
    refused("invalid_request", message)
}

/// Too many logins of a client have failed.
fn slowed(wait: Duration) -> Problem {
    let message = "too many failed logins of this client; wait, then try again";
    Problem { code: Some("invalid_client"), ..Problem::busy(StatusCode::TOO_MANY_REQUESTS, message, wait) }
}
