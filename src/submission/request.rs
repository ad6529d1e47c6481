//! Reads the requests about submissions.

use super::agreed::{self, Agreed};
use super::key::Key;
use super::object::{Object, missing, unknown, url, wrong};
use super::parameters::members;
use crate::settings;
use crate::source::Terms;
use fhir_bulk_codec::fhir::Version;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_transfer::Headers;
use pgrx::PgSqlErrorCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

const STATUS_SYSTEM: &str = "http://hl7.org/fhir/event-status";
const FORMATS: [&str; 3] = ["application/fhir+ndjson", "application/ndjson", "ndjson"];
/// How many URLs of metadata a manifest may have.
const MOST_METADATA: usize = 5;
/// How often a source that cannot be read is asked again.
const RETRIES: u32 = 2;

/// What becomes of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    InProgress,
    Completed,
    Stopped,
}

/// A checked request to submit.
pub struct Request {
    pub key: Key,
    pub status: Status,
    /// The manifest that it adds.
    pub manifest: Option<Input>,
    /// Names and values of the headers that the manifest is fetched with.
    pub headers: Vec<(String, String)>,
    /// The URL of the manifest that it takes back.
    pub replaces: Option<String>,
    /// URLs that tell where tokens for the manifest are got.
    pub metadata_urls: Vec<String>,
    /// Members that mean nothing here.
    pub ignored: Vec<String>,
}

/// A manifest, as the queue stores it with its task.
#[derive(Debug, Serialize, Deserialize)]
pub struct Input {
    pub url: String,
    /// `fhirBaseUrl`, without a slash at its end.
    pub base: String,
    /// See [`Terms::within`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Vec<String>>,
    /// The token endpoint of its source, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_endpoint: Option<String>,
    /// What the submitter says of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metadata: Vec<Agreed>,
    /// How its resources are stored: see [`agreed::rule`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub import: Vec<Agreed>,
}

impl Input {
    /// The terms of requests for its files, without tokens.
    ///
    /// # Errors
    /// 22023 for a header that cannot be sent.
    pub fn terms(&self, headers: &[(String, String)]) -> Result<Terms> {
        let headers = Headers::new(headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let headers = headers.map_err(|error| Error::invalid_argument(format!("fileRequestHeader: {error}")))?;
        Ok(Terms { headers, within: self.within.clone(), tokens: None, retries: RETRIES })
    }
}

impl Request {
    /// Reads `{"submitter", "submissionId", "submissionStatus", "manifestUrl", "replacesManifestUrl", "fhirBaseUrl",
    /// "outputFormat", "fileRequestHeader", …}`, or the same as a Parameters resource.
    ///
    /// # Errors
    /// 22023 for a member that is missing, unknown or wrong; 42501 for a manifest whose URL may not be read; 0A000 for what is
    /// not supported.
    pub fn parse(request: Value) -> Result<Request> {
        let mut members = Members::of(request)?;
        let key = members.key()?;
        if members.take("fileEncryptionKey").is_some() {
            return Err(unsupported("fileEncryptionKey", "encrypted files are not read"));
        }
        let status = members.status()?;
        let (url, replaces) = (members.url("manifestUrl")?, members.url("replacesManifestUrl")?);
        let base = members.url("fhirBaseUrl")?;
        members.format("outputFormat")?;
        let headers = members.headers()?;
        let metadata_urls = members.metadata_urls()?;
        if !metadata_urls.is_empty() && headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization")) {
            let message = "\"fileRequestHeader\" of the request has Authorization, and so have access tokens";
            return Err(Error::invalid_argument(message).hint("Leave out that header, or oauthMetadataUrl."));
        }
        let within = members.sources()?;
        let metadata = agreed::list("metadata", members.take("metadata"))?;
        let (import, not_ours) = members.import()?;
        let mut ignored = members.rest()?;
        ignored.extend(not_ours);
        if status.is_none() && url.is_none() && replaces.is_none() {
            return Err(Error::invalid_argument("the request has neither \"submissionStatus\" nor \"manifestUrl\""));
        }
        let status = status.unwrap_or(Status::InProgress);
        if status == Status::Stopped && url.is_some() {
            return Err(Error::invalid_argument("a submission that is stopped takes no \"manifestUrl\""));
        }
        let manifest = match (url, base) {
            (None, _) => None,
            (Some(_), None) => return Err(missing("fhirBaseUrl").hint("Each manifestUrl has one beside it.")),
            (Some(url), Some(base)) => {
                let base = base.trim_end_matches('/').to_owned();
                Some(Input { url, base, within, token_endpoint: None, metadata, import })
            }
        };
        if let Some(input) = &manifest {
            input.terms(&headers)?.check(&input.url)?;
        }
        Ok(Request { key, status, manifest, headers, replaces, metadata_urls, ignored })
    }
}

/// Which submission's status is wanted.
pub enum Wanted {
    Key(Key),
    /// The id that a status has.
    Id(String),
}

impl Wanted {
    /// Reads `{"submitter", "submissionId"}`, the same as a Parameters resource, or `{"id"}`.
    ///
    /// # Errors
    /// 22023 for a member that is missing, unknown or wrong.
    pub fn parse(request: Value) -> Result<Wanted> {
        let mut members = Members::of(request)?;
        members.format("_outputFormat")?;
        let wanted = match members.text("id")? {
            Some(id) => Wanted::Id(id),
            None => Wanted::Key(members.key()?),
        };
        members.rest()?;
        Ok(wanted)
    }
}

struct Members {
    members: Object,
    lenient: bool,
}

impl Members {
    fn of(request: Value) -> Result<Members> {
        let mut members = Object::new(members(request)?);
        let lenient = match members.take("lenient") {
            None => false,
            Some(Value::Bool(lenient)) => lenient,
            Some(_) => return Err(wrong("lenient", "true or false")),
        };
        Ok(Members { members, lenient })
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.members.take(name)
    }

    fn text(&mut self, name: &str) -> Result<Option<String>> {
        self.members.text(name)
    }

    fn url(&mut self, name: &str) -> Result<Option<String>> {
        self.members.url(name)
    }

    fn key(&mut self) -> Result<Key> {
        let submitter = self.members.submitter()?;
        let submission_id = self.text("submissionId")?.ok_or_else(|| missing("submissionId"))?;
        Ok(Key { submitter, submission_id })
    }

    fn status(&mut self) -> Result<Option<Status>> {
        let code = match self.take("submissionStatus") {
            None => return Ok(None),
            Some(Value::Object(coding)) => {
                if coding.get("system").is_some_and(|system| system != STATUS_SYSTEM) {
                    return Err(wrong("submissionStatus", &format!("a Coding of {STATUS_SYSTEM}")));
                }
                coding.get("code").cloned().unwrap_or_default()
            }
            Some(code) => code,
        };
        match code.as_str() {
            Some("in-progress") => Ok(Some(Status::InProgress)),
            Some("completed") => Ok(Some(Status::Completed)),
            Some("stopped") => Ok(Some(Status::Stopped)),
            _ => Err(wrong("submissionStatus", "one of in-progress, completed and stopped")),
        }
    }

    /// Checks a format: NDJSON, perhaps of a version of FHIR, which must be that of the database.
    fn format(&mut self, name: &str) -> Result<()> {
        let Some(text) = self.text(name)? else { return Ok(()) };
        let mut parts = text.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
        if !FORMATS.contains(&media_type.as_str()) {
            return Err(wrong(name, &format!("one of {}", FORMATS.join(", "))));
        }
        let version = parts.find_map(|part| part.split_once('=').filter(|(name, _)| name.trim() == "fhirVersion"));
        let Some((_, version)) = version else { return Ok(()) };
        let version = version.trim().trim_matches('"');
        let own = match settings::fhir_version() {
            Version::R4 => ["4.0", "4.0.1"],
            Version::R4B => ["4.3", "4.3.0"],
            Version::R5 => ["5.0", "5.0.0"],
        };
        if own.contains(&version) {
            return Ok(());
        }
        let message = format!("\"{name}\" of the request has another fhirVersion than {}", own[0]);
        Err(Error::invalid_argument(message).detail("fhir_bulk.fhir_version is the version of all resources here."))
    }

    fn headers(&mut self) -> Result<Vec<(String, String)>> {
        let name = "fileRequestHeader";
        let given = match self.take(name) {
            None => Vec::new(),
            Some(Value::Array(given)) => given,
            Some(_) => return Err(wrong(name, "an array")),
        };
        let mut headers = Vec::new();
        for header in given {
            let member = |member: &str| header[member].as_str().map(str::to_owned);
            match (member("headerName"), member("headerValue")) {
                (Some(name), Some(value)) => headers.push((name, value)),
                _ => return Err(wrong(name, "an array of objects with headerName and headerValue")),
            }
        }
        Ok(headers)
    }

    fn metadata_urls(&mut self) -> Result<Vec<String>> {
        let name = "oauthMetadataUrl";
        let given = match self.take(name) {
            None => Vec::new(),
            Some(Value::Array(given)) => given,
            Some(one) => vec![one],
        };
        if given.len() > MOST_METADATA {
            return Err(wrong(name, &format!("an array of up to {MOST_METADATA} URLs")));
        }
        given.into_iter().map(|value| url(name, value)).collect()
    }

    fn sources(&mut self) -> Result<Option<Vec<String>>> {
        let name = "allowedSources";
        let Some(given) = self.take(name) else { return Ok(None) };
        let sources = Vec::deserialize(given).map_err(|_| wrong(name, "an array of URLs"))?;
        Ok(Some(sources))
    }

    /// Options of how resources are stored, and what a lenient request ignores: the name, if there are others than ours.
    fn import(&mut self) -> Result<(Vec<Agreed>, Option<String>)> {
        let name = "import";
        let given = agreed::list(name, self.take(name))?;
        let is_kept = |option: &Agreed| !self.lenient || agreed::is_option(option);
        let (ours, others): (Vec<_>, Vec<_>) = given.into_iter().partition(is_kept);
        agreed::rule(&ours)?;
        Ok((ours, (!others.is_empty()).then(|| name.to_owned())))
    }

    /// The members that are left, which a lenient request may have.
    fn rest(self) -> Result<Vec<String>> {
        let names = self.members.names();
        match names.first() {
            Some(name) if !self.lenient => Err(unknown(name)),
            _ => Ok(names),
        }
    }
}

fn unsupported(name: &str, why: &str) -> Error {
    let message = format!("\"{name}\" of the request is not supported: {why}");
    Error::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message)
}
