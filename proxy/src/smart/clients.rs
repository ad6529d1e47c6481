//! The file of clients: who may log in with a signed assertion, with which keys, as which role, and for what.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::{fmt, fs};

use fhir_bulk_transfer::Authorities;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::key_set::{ALGORITHMS, KeySet, Remote};
use super::scopes::Scopes;
use crate::jose::keys::Key;
use crate::request::yaml;

/// The longest id of a client.
const MOST_ID: usize = 255;

/// A client that may log in.
pub struct Client {
    /// The role of its tokens.
    pub role: String,
    /// The most that its tokens permit.
    pub scopes: Scopes,
    /// Its keys.
    pub keys: KeySet,
}

/// All clients, by id.
pub type Clients = HashMap<String, Arc<Client>>;

/// A client as the file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Line {
    id: String,
    jwks: Option<Box<RawValue>>,
    jwks_url: Option<String>,
    role: String,
    scopes: Words,
}

/// Words separated by spaces, or a list of them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Words {
    Text(String),
    List(Vec<String>),
}

/// Reads the file: a YAML list, whose JSON may have `most_bytes`.
///
/// # Errors
/// What is wrong with it, and with which client.
pub fn read(path: &Path, most_bytes: usize, authorities: &Authorities) -> Result<Clients, Box<dyn Error>> {
    let in_file = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
    let text = fs::read_to_string(path).map_err(|error| in_file(&error))?;
    let json = yaml::to_json(&text, most_bytes).map_err(|error| in_file(&error))?;
    let lines: Vec<Line> = serde_json::from_str(&json).map_err(|error| in_file(&error))?;
    let mut clients = Clients::new();
    for line in lines {
        let of_client = |error: &dyn fmt::Display| in_file(&format!("client {:?}: {error}", line.id));
        let client = client(&line, authorities).map_err(|error| of_client(&error))?;
        if clients.insert(line.id.clone(), Arc::new(client)).is_some() {
            return Err(of_client(&"it is there twice").into());
        }
    }
    Ok(clients)
}

fn client(line: &Line, authorities: &Authorities) -> Result<Client, Box<dyn Error>> {
    if line.id.is_empty() || line.id.len() > MOST_ID || !line.id.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err(format!("an id has 1 to {MOST_ID} printable ASCII characters").into());
    }
    if line.role.is_empty() || line.role.contains('\0') {
        return Err("role is not the name of a role".into());
    }
    let words = match &line.scopes {
        Words::Text(text) => text.clone(),
        Words::List(words) => words.join(" "),
    };
    let scopes = Scopes::of_all(&words).map_err(|word| format!("{word:?} is no scope, such as system/Patient.rs"))?;
    if scopes.is_empty() {
        return Err("scopes is empty".into());
    }
    let keys = match (&line.jwks, &line.jwks_url) {
        (Some(set), None) => {
            // Perhaps as a text, in which it is JSON.
            let text = serde_json::from_str::<String>(set.get()).unwrap_or_else(|_| set.get().to_owned());
            KeySet::Fixed(Key::of_set(&text, &ALGORITHMS).map_err(|error| format!("jwks: {error}"))?)
        }
        (None, Some(url)) => {
            let remote = Remote::new(url, authorities.clone()).map_err(|error| format!("jwks-url: {error}"))?;
            KeySet::Remote(Arc::new(remote))
        }
        _ => return Err("it has either jwks or jwks-url".into()),
    };
    Ok(Client { role: line.role.clone(), scopes, keys })
}
