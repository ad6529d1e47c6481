//! Reads the requests about submissions.

use super::key::{Key, Submitter};
use super::parameters::members;
use crate::settings;
use crate::source::Terms;
use fhir_bulk_codec::fhir::Version;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_transfer::{Headers, join};
use pgrx::PgSqlErrorCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The longest text of a request: ids, URLs.
const MOST_BYTES: usize = 4096;
const STATUS_SYSTEM: &str = "http://hl7.org/fhir/event-status";
const FORMATS: [&str; 3] = ["application/fhir+ndjson", "application/ndjson", "ndjson"];
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
}

impl Input {
    /// The terms of requests for its files.
    ///
    /// # Errors
    /// 22023 for a header that cannot be sent.
    pub fn terms(&self, headers: &[(String, String)]) -> Result<Terms> {
        let headers = Headers::new(headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let headers = headers.map_err(|error| Error::invalid_argument(format!("fileRequestHeader: {error}")))?;
        Ok(Terms { headers, within: self.within.clone(), retries: RETRIES })
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
        if members.take("oauthMetadataUrl").is_some() {
            let why = "there are no credentials for its token endpoint";
            return Err(unsupported("oauthMetadataUrl", why)
                .hint("Send credentials that the source accepts in fileRequestHeader."));
        }
        let status = members.status()?;
        let (url, replaces) = (members.url("manifestUrl")?, members.url("replacesManifestUrl")?);
        let base = members.url("fhirBaseUrl")?;
        members.format("outputFormat")?;
        let headers = members.headers()?;
        let within = members.sources()?;
        let ignored = members.rest(&["metadata"])?;
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
            (Some(url), Some(base)) => Some(Input { url, base: base.trim_end_matches('/').to_owned(), within }),
        };
        if let Some(input) = &manifest {
            input.terms(&headers)?.check(&input.url)?;
        }
        Ok(Request { key, status, manifest, headers, replaces, ignored })
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
        members.rest(&[])?;
        Ok(wanted)
    }
}

struct Members {
    members: Map<String, Value>,
    lenient: bool,
}

impl Members {
    fn of(request: Value) -> Result<Members> {
        let mut members = members(request)?;
        // A null counts as missing.
        members.retain(|_, value| !value.is_null());
        let lenient = match members.remove("lenient") {
            None => false,
            Some(Value::Bool(lenient)) => lenient,
            Some(_) => return Err(wrong("lenient", "true or false")),
        };
        Ok(Members { members, lenient })
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.members.remove(name)
    }

    fn text(&mut self, name: &str) -> Result<Option<String>> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => text(name, value).map(Some),
        }
    }

    fn url(&mut self, name: &str) -> Result<Option<String>> {
        let Some(url) = self.text(name)? else { return Ok(None) };
        match join(&url, "") {
            Ok(_) => Ok(Some(url)),
            Err(error) => Err(wrong(name, "an http or https URL").detail(format!("{error}."))),
        }
    }

    fn key(&mut self) -> Result<Key> {
        let submitter = match self.take("submitter") {
            None => return Err(missing("submitter")),
            Some(Value::Object(mut identifier)) => {
                let system = identifier.remove("system").map(|system| text("submitter.system", system)).transpose()?;
                let value = identifier.remove("value").ok_or_else(|| missing("submitter.value"))?;
                Submitter { system, value: text("submitter.value", value)? }
            }
            Some(_) => return Err(wrong("submitter", "an Identifier, an object with system and value")),
        };
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

    fn sources(&mut self) -> Result<Option<Vec<String>>> {
        let name = "allowedSources";
        let Some(given) = self.take(name) else { return Ok(None) };
        let sources = Vec::deserialize(given).map_err(|_| wrong(name, "an array of URLs"))?;
        Ok(Some(sources))
    }

    /// The members that are left, if they may be ignored: some always, others in a lenient request.
    fn rest(self, ignorable: &[&str]) -> Result<Vec<String>> {
        let names: Vec<String> = self.members.into_iter().map(|(name, _)| name).collect();
        match names.iter().find(|name| !self.lenient && !ignorable.contains(&name.as_str())) {
            None => Ok(names),
            Some(name) if name == "import" => {
                Err(unsupported("import", "there are no options of imports that were agreed on"))
            }
            Some(name) => {
                let shown: String = name.chars().take(80).collect();
                Err(Error::invalid_argument(format!("the request has the unknown member \"{shown}\"")))
            }
        }
    }
}

fn text(name: &str, value: Value) -> Result<String> {
    match value {
        Value::String(text) if !text.is_empty() && text.len() <= MOST_BYTES && !text.contains(char::is_control) => {
            Ok(text)
        }
        _ => Err(wrong(name, &format!("a string of up to {MOST_BYTES} bytes, without control characters"))),
    }
}

fn wrong(name: &str, expected: &str) -> Error {
    Error::invalid_argument(format!("\"{name}\" of the request is not {expected}"))
}

fn missing(name: &str) -> Error {
    Error::invalid_argument(format!("\"{name}\" of the request is missing"))
}

fn unsupported(name: &str, why: &str) -> Error {
    let message = format!("\"{name}\" of the request is not supported: {why}");
    Error::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message)
}
