//! What the proxy needs to log clients in, and to know their tokens again.

use std::error::Error;
use std::fs;

use fhir_bulk_transfer::Authorities;
use serde_json::Value;

use super::assertion::{Assertion, Refused, Ticket};
use super::clients::{self, Client, Clients};
use super::scopes::Scopes;
use super::tokens::{Secret, Tokens};
use crate::config::{self, Config};
use crate::jose::keys::Claims;
use crate::jose::provider;

/// The path of the token endpoint.
pub const PATH: &str = "/auth/token";

/// The clients, and the tokens that they get.
pub struct Smart {
    clients: Clients,
    tokens: Tokens,
    /// The URL of the token endpoint, which assertions must be for.
    pub endpoint: String,
}

/// The client that a token was issued to.
pub struct Holder {
    /// Its role.
    pub role: String,
    /// The claims of the token.
    pub claims: Claims,
    /// What the token permits, as far as the client still may have it.
    pub scopes: Scopes,
}

impl Smart {
    /// Reads the file of clients, and the secret of tokens, which otherwise is `own_secret`. `None` if SMART is off, without
    /// a file of clients or without a public URL: the address in a request's Host could be anybody's.
    ///
    /// # Errors
    /// An error in a file.
    pub fn read(config: &Config, own_secret: &Secret) -> Result<Option<Smart>, Box<dyn Error>> {
        let Some(path) = &config.clients_file else { return Ok(None) };
        provider::install();
        let authorities = match &config.ca_file {
            None => Authorities::default(),
            Some(path) => {
                let in_file = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
                let pem = fs::read(path).map_err(|error| in_file(&error))?;
                Authorities::with_pem(&pem).map_err(|error| in_file(&error))?
            }
        };
        let clients = clients::read(path, config::MOST_YAML, &authorities)?;
        let Some(base) = config.base_url() else {
            tracing::warn!("clients-file needs public-url: without it SMART clients cannot log in");
            return Ok(None);
        };
        let secret = config.token_secret_file.as_deref().map(config::read_hmac_secret).transpose()?;
        let tokens = Tokens::new(secret.as_ref().map_or(own_secret, |secret| secret.as_bytes()), base)?;
        Ok(Some(Smart { clients, tokens, endpoint: format!("{base}{PATH}") }))
    }

    /// Verifies an assertion.
    ///
    /// # Errors
    /// Why it is refused.
    pub async fn verify(&self, assertion: &Assertion<'_>) -> Result<Ticket, Refused> {
        assertion.verify(self.client(&assertion.client), &self.endpoint).await
    }

    /// A token for a client, and its scopes: those of `asked` that the client may have. `None` if none is left.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn issue(&self, client: &str, asked: &str) -> Result<Option<(String, String)>, String> {
        let own = self.client(client).map(|client| &client.scopes);
        let granted = own.map(|own| Scopes::of_known(asked).and(own)).unwrap_or_default();
        if granted.is_empty() {
            return Ok(None);
        }
        let scopes = granted.text(asked);
        Ok(Some((self.tokens.issue(client, &scopes)?, scopes)))
    }

    /// Who a token was issued to; `None` if it is no token of the proxy's own, or the client is no longer in the file.
    pub fn holder(&self, token: &str) -> Option<Holder> {
        let mut claims = self.tokens.claims(token)?;
        let client = self.client(claims.get("sub").and_then(Value::as_str)?)?;
        let issued = claims.get("scope").and_then(Value::as_str)?;
        let scopes = Scopes::of_known(issued).and(&client.scopes);
        let text = scopes.text(issued);
        claims.insert("scope".to_owned(), text.into());
        Some(Holder { role: client.role.clone(), claims, scopes })
    }

    fn client(&self, id: &str) -> Option<&Client> {
        self.clients.get(id).map(AsRef::as_ref)
    }
}
