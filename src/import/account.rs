//! The account of a request: whose S3 service `s3://` means, and the key for it. The key is kept apart from the request, and
//! only while the job runs; no message has a part of it.

use super::members::{nothing_else, wrong};
use crate::settings::s3::{Account, Address};
use fhir_bulk_pg::error::Result;
use fhir_bulk_transfer::Keys;
use serde_json::{Map, Value, json};

const KNOWN: &str = "accessKeyId, secretAccessKey, sessionToken, region and host";
/// Session tokens are the longest of them.
const MOST_BYTES: usize = 8192;
const MOST_REGION_BYTES: usize = 64;

/// Reads `{"accessKeyId", "secretAccessKey", "sessionToken", "region", "host"}`.
///
/// # Errors
/// 22023 for a member that is missing, unknown or wrong.
pub fn parse(account: Value) -> Result<Account> {
    let Value::Object(mut members) = account else { return Err(wrong("account", "an object")) };
    members.retain(|_, value| !value.is_null());
    let is_key = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    let key = "a string of visible ASCII characters";
    let id = required(take(&mut members, "accessKeyId", key, is_key)?, "accessKeyId", key)?;
    let secret = required(take(&mut members, "secretAccessKey", key, is_key)?, "secretAccessKey", key)?;
    let token = take(&mut members, "sessionToken", key, is_key)?;
    // It is a part of the service's name.
    let is_region = |text: &str| {
        text.len() <= MOST_REGION_BYTES && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let expected = "a string of letters, digits and '-'";
    let region = required(take(&mut members, "region", expected, is_region)?, "region", expected)?;
    let is_host = |text: &str| !text.bytes().any(|byte| !byte.is_ascii_graphic() || b"?#@\\".contains(&byte));
    let host = take(&mut members, "host", "host[:port], or the http or https URL of a service", is_host)?;
    nothing_else(&members, "account.", KNOWN)?;
    let account = Account { address: Address::of(region, host.as_deref()), keys: Keys { id, secret, token } };
    account.service().map(|_| account)
}

/// The key, as a job keeps it.
pub fn secret(keys: &Keys) -> Value {
    json!({"id": keys.id, "secret": keys.secret, "token": keys.token})
}

/// The key that a job has kept.
pub fn keys(secret: &Value) -> Keys {
    let text = |name: &str| secret[name].as_str().map(str::to_owned);
    Keys { id: text("id").unwrap_or_default(), secret: text("secret").unwrap_or_default(), token: text("token") }
}

fn take(
    members: &mut Map<String, Value>,
    name: &str,
    expected: &str,
    is_good: impl Fn(&str) -> bool,
) -> Result<Option<String>> {
    match members.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) if (1..=MOST_BYTES).contains(&text.len()) && is_good(&text) => Ok(Some(text)),
        Some(_) => Err(wrong(&format!("account.{name}"), expected)),
    }
}

fn required(text: Option<String>, name: &str, expected: &str) -> Result<String> {
    text.ok_or_else(|| wrong(&format!("account.{name}"), expected))
}
