//! Credentials for the token endpoints of sources. Superusers and the extension's owner set them, for a role, a submitter and a
//! token endpoint; nobody is shown their secrets.

use super::key::Submitter;
use super::object::{self, Object};
use crate::arguments::parsed;
use crate::{extension, own_tables, settings};
use fhir_bulk_pg::datum::JsonbBytes;
use fhir_bulk_pg::error::{Error, Result, or_raise};
use fhir_bulk_pg::session;
use fhir_bulk_pg::spi::{self, Parameter};
use fhir_bulk_transfer::{Grant, InvalidGrant, Proof, SigningKey, Tokens, join};
use pgrx::prelude::*;
use pgrx::{PgSqlErrorCode, pg_sys};
use serde::{Deserialize, Serialize};

/// The most bytes of what credentials are known by: it is the key of a table.
const MOST_KEY_BYTES: usize = 2000;
const MOST_BYTES: usize = 16 << 10;
const MOST_SOURCES: usize = 100;

/// Sets the credentials that submissions of a role, for a submitter, have for a token endpoint, in place of older ones.
#[pg_extern(volatile, parallel_unsafe)]
fn bulk_set_source_credential(request: Option<JsonbBytes<'_>>) {
    session::prevent_if_read_only(c"bulk_set_source_credential()");
    or_raise(parsed(request, "request").and_then(|request| set(Object::of(request)?)))
}

/// Removes credentials. False if there are none.
#[pg_extern(volatile, parallel_unsafe)]
fn bulk_remove_source_credential(request: Option<JsonbBytes<'_>>) -> bool {
    session::prevent_if_read_only(c"bulk_remove_source_credential()");
    or_raise(parsed(request, "request").and_then(|request| remove(Object::of(request)?)))
}

/// What credentials are for.
struct Owner {
    role: pg_sys::Oid,
    submitter: Submitter,
    token_endpoint: String,
}

/// As they are stored.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Credential {
    client_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_secret: Option<String>,
    /// In PEM, with its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    private_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    /// Beginnings of the URLs that tokens are sent to.
    sources: Vec<String>,
}

fn set(mut request: Object) -> Result<()> {
    check_rights()?;
    let owner = Owner::take(&mut request)?;
    let (client_id, scope) = (needed(&mut request, "clientId")?, request.text("scope")?);
    let (client_secret, key_id) = (request.text("clientSecret")?, request.text("keyId")?);
    let private_key = request.lines("privateKey")?;
    let sources = sources(&mut request)?;
    request.end()?;
    match (&client_secret, &private_key) {
        (Some(_), Some(_)) | (None, None) => {
            return Err(wrong("the request has not exactly one of \"clientSecret\" and \"privateKey\""));
        }
        (None, Some(_)) if key_id.is_none() => {
            return Err(object::missing("keyId").hint("It is the kid by which the endpoint knows the key."));
        }
        _ => {}
    }
    let texts = [Some(&client_id), scope.as_ref(), key_id.as_ref(), client_secret.as_ref()];
    if texts.into_iter().flatten().any(|text| !text.bytes().all(|byte| matches!(byte, b' '..=b'~'))) {
        return Err(wrong("clientId, clientSecret, keyId and scope of the request have printable ASCII only"));
    }
    // Without it, of the endpoint's server.
    let sources = match sources {
        Some(sources) => sources,
        None => vec![join(&owner.token_endpoint, "/").map_err(|error| wrong(error.to_string()))?],
    };
    let credential = Credential { client_id, client_secret, private_key, key_id, scope, sources };
    let stored = serde_json::json!(credential).to_string();
    if stored.len() > MOST_BYTES {
        return Err(wrong(format!("the credentials have more than {MOST_BYTES} bytes")));
    }
    credential.tokens(owner.token_endpoint.clone())?;
    own_tables::call(extension::this_extension().owner, "set_source_credential($1, $2, $3, $4, $5::jsonb)", || {
        owner.with([Parameter::string(&stored)])
    });
    Ok(())
}

fn remove(mut request: Object) -> Result<bool> {
    check_rights()?;
    let owner = Owner::take(&mut request)?;
    request.end()?;
    let found: Vec<bool> =
        own_tables::rows(extension::this_extension().owner, "remove_source_credential($1, $2, $3, $4)", || {
            owner.with([])
        });
    Ok(!found.is_empty())
}

/// # Errors
/// 42501 for another role than a superuser and the extension's owner, whatever is granted.
fn check_rights() -> Result<()> {
    if extension::is_administered() {
        return Ok(());
    }
    let message = "only the owner of the extension fhir_bulk and superusers may set credentials of sources";
    Err(Error::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, message))
}

/// Whether submissions of the current role, for this submitter, have credentials at all.
pub fn has_any(submitter: &Submitter) -> bool {
    // Not as the extension's owner.
    let role = session::role();
    let owner = extension::this_extension().owner;
    !own_tables::rows::<bool>(owner, "has_source_credentials($1, $2, $3)", || who(role, submitter)).is_empty()
}

/// Tokens of a token endpoint for submissions of the current role, for this submitter; `None` without credentials.
///
/// # Errors
/// Those of the settings.
pub fn tokens(submitter: &Submitter, token_endpoint: &str) -> Result<Option<Tokens>> {
    let Some(extension) = extension::find_this_extension() else { return Ok(None) };
    let owner =
        Owner { role: session::role(), submitter: submitter.clone(), token_endpoint: token_endpoint.to_owned() };
    let found: Vec<Credential> =
        own_tables::rows(extension.owner, "source_credential($1, $2, $3, $4)", || owner.with([]));
    found.into_iter().next().map(|credential| credential.tokens(owner.token_endpoint)).transpose()
}

impl Owner {
    fn take(request: &mut Object) -> Result<Owner> {
        let submitter = request.submitter()?;
        let token_endpoint = request.url("tokenEndpoint")?.ok_or_else(|| object::missing("tokenEndpoint"))?;
        let name = needed(request, "role")?;
        let found = spi::catalog_texts(c"SELECT oid FROM pg_roles WHERE rolname = $1", &[Parameter::string(&name)]);
        let role = found.first().and_then(|oid| oid.parse::<u32>().ok()).ok_or_else(|| {
            Error::new(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, format!("role \"{name}\" does not exist"))
        })?;
        let system = submitter.system.as_deref().unwrap_or_default();
        if system.len() + submitter.value.len() + token_endpoint.len() > MOST_KEY_BYTES {
            return Err(wrong(format!(
                "submitter and tokenEndpoint of the request have more than {MOST_KEY_BYTES} bytes"
            )));
        }
        Ok(Owner { role: role.into(), submitter, token_endpoint })
    }

    fn with<const MORE: usize>(&self, more: [Parameter; MORE]) -> Vec<Parameter> {
        let mut all = who(self.role, &self.submitter);
        all.push(Parameter::string(&self.token_endpoint));
        all.into_iter().chain(more).collect()
    }
}

fn who(role: pg_sys::Oid, submitter: &Submitter) -> Vec<Parameter> {
    let system = submitter.system.as_deref().unwrap_or_default();
    vec![Parameter::oid(role), Parameter::string(system), Parameter::string(&submitter.value)]
}

impl Credential {
    fn tokens(self, endpoint: String) -> Result<Tokens> {
        let proof = match (self.client_secret, self.private_key) {
            (Some(secret), _) => Proof::Secret(secret),
            (None, key) => {
                let key = SigningKey::parse(&key.unwrap_or_default(), &self.key_id.unwrap_or_default());
                Proof::Key(key.map_err(|error| wrong(format!("\"privateKey\" of the request: {error}")))?)
            }
        };
        let grant = Grant { endpoint, client_id: self.client_id, proof, scope: self.scope };
        Tokens::new(grant, settings::allowed_sources()?, &self.sources).map_err(|error| match error {
            InvalidGrant::Endpoint(error) => wrong(format!("\"tokenEndpoint\" of the request: {error}")),
            InvalidGrant::Source(error) => wrong(format!("\"sources\" of the request: {error}")),
        })
    }
}

fn sources(request: &mut Object) -> Result<Option<Vec<String>>> {
    let Some(given) = request.take("sources") else { return Ok(None) };
    let sources: Vec<String> =
        Vec::deserialize(given).map_err(|_| wrong("\"sources\" of the request is not an array of URLs"))?;
    if !(1..=MOST_SOURCES).contains(&sources.len()) {
        return Err(wrong(format!("\"sources\" of the request has not 1 to {MOST_SOURCES} URLs")));
    }
    Ok(Some(sources))
}

fn needed(request: &mut Object, name: &str) -> Result<String> {
    request.text(name)?.ok_or_else(|| object::missing(name))
}

fn wrong(message: impl Into<String>) -> Error {
    Error::invalid_argument(message)
}
