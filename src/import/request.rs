//! Reads an import's request, the body of Aidbox's `$import`.

use super::account;
use super::members::{flag, nothing_else, one_of, wrong};
use crate::jobs::random_id;
use crate::load;
use crate::settings::s3::Address;
use crate::source::Reach;
use crate::store::ResourceType;
use fhir_bulk_codec::share::Share;
use fhir_bulk_pg::error::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The name of imports in the queue of jobs.
pub const NAME: &str = "import";
/// The most inputs that a request names; what they mean may be more.
const MAX_INPUTS: usize = 10_000;
const MAX_RETRIES: u64 = 100;
const DEFAULT_RETRIES: u64 = 2;
const MAX_ID_BYTES: usize = 255;
const MAX_WORKERS: u64 = 1000;
const KNOWN: &str = "id, inputFormat, contentEncoding, mode, update, skipUnchanged, onConflict, disableIndexes, \
    allowedRetryCount, onlyNew, onlyTyped, order, workers, account, part and inputs";

/// A checked request. The queue stores it as JSON.
#[derive(Serialize, Deserialize)]
pub struct Request {
    /// The caller's id for the job, or a new one. The queue stores it in a column of its own.
    #[serde(skip)]
    pub id: String,
    /// Whether the lines are in FHIR's form, not in Aidbox's.
    pub fhir: bool,
    /// For the status only: a load recognises gzip by the source's content.
    pub content_encoding: Option<String>,
    /// Whether each input is one transaction; otherwise it commits batch by batch.
    pub transaction: bool,
    /// Keep replaced versions in the history table.
    pub update: bool,
    /// A live resource that is equal to the one that comes stays as it is.
    #[serde(default)]
    pub skip_unchanged: bool,
    /// A known id is an error.
    #[serde(default)]
    pub refuse_known: bool,
    /// The tables of the inputs have no secondary indexes meanwhile.
    #[serde(default)]
    pub disable_indexes: bool,
    /// Which part of its inputs it has, if it is another server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
    /// How often to retry a source that cannot be read.
    pub retries: u32,
    /// Where `s3://` is, if the request has an account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Address>,
    /// The key of the account is not stored with it.
    #[serde(skip)]
    pub reach: Reach,
    /// Files that an import with this has taken before are passed over.
    #[serde(skip)]
    pub only_new: bool,
    /// Files of listings whose names have no type are passed over.
    #[serde(skip)]
    pub only_typed: bool,
    /// Inputs are in the order of their last modification, not of their paths.
    #[serde(skip)]
    pub by_modified: bool,
    /// How many inputs are imported at once; `None` for as many as the server allows.
    #[serde(skip)]
    pub workers: Option<u16>,
    /// In order.
    #[serde(skip)]
    pub inputs: Vec<Asked>,
}

/// The part that a node has of an import whose server has asked it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Part {
    /// The lines whose ids have hashes in these ranges, both ends included.
    pub hashes: Vec<(i32, i32)>,
    /// The listed folder that the files must be in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
    /// The number of the rows that it stores first, which whoever asks has taken: the node would have to ask for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub txid: Option<i64>,
}

/// A source as the caller names it, or a folder, a prefix or a pattern, which mean many.
#[derive(Debug)]
pub struct Asked {
    /// The type of all its lines; `None` if the caller does not say it.
    pub resource_type: Option<String>,
    pub url: String,
}

/// A source. The queue stores each with its task.
#[derive(Debug, Serialize, Deserialize)]
pub struct Input {
    /// The type of all its lines; `None` if each line names its own.
    pub resource_type: Option<String>,
    pub url: String,
    /// The listed folder that the file must be in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
}

impl Request {
    /// Reads `{"id", "inputFormat", "contentEncoding", "mode", "update", "skipUnchanged", "onConflict", "disableIndexes",
    /// "allowedRetryCount", "onlyNew", "onlyTyped", "order", "workers", "account": {…},
    /// "inputs": [{"resourceType", "url"}, …]}`.
    ///
    /// # Errors
    /// 22023 for a member that is missing, unknown or of the wrong type.
    pub fn parse(request: Value, fhir: bool) -> Result<Request> {
        let Value::Object(mut members) = request else {
            return Err(Error::invalid_argument("the request is not a JSON object"));
        };
        // A null counts as missing.
        members.retain(|_, value| !value.is_null());
        let id = match members.remove("id") {
            None => random_id(),
            Some(Value::String(id)) if is_id(&id) => id,
            Some(_) => {
                return Err(wrong("id", "a string of letters, digits, '-', '.', '_' and '~'")
                    .hint(format!("It is part of URLs, and may have up to {MAX_ID_BYTES} characters.")));
            }
        };
        let formats = ["application/fhir+ndjson", "application/ndjson", "application/x-ndjson", "ndjson"];
        one_of(&mut members, "inputFormat", &formats)?;
        let content_encoding = one_of(&mut members, "contentEncoding", &["gzip", "plain"])?;
        let transaction = one_of(&mut members, "mode", &["bulk", "transaction"])?.as_deref() == Some("transaction");
        let (update, skip_unchanged) = (flag(&mut members, "update")?, flag(&mut members, "skipUnchanged")?);
        let on_conflict = one_of(&mut members, "onConflict", &["update", "error"])?;
        let refuse_known = on_conflict.as_deref() == Some("error");
        load::known(refuse_known, update, skip_unchanged, ["onConflict", "update", "skipUnchanged"])?;
        let disable_indexes = flag(&mut members, "disableIndexes")?;
        let retries = match members.remove("allowedRetryCount") {
            None => DEFAULT_RETRIES,
            Some(count) => count
                .as_u64()
                .filter(|count| *count <= MAX_RETRIES)
                .ok_or_else(|| wrong("allowedRetryCount", &format!("a number from 0 to {MAX_RETRIES}")))?,
        };
        let inputs = match members.remove("inputs") {
            Some(Value::Array(inputs)) if (1..=MAX_INPUTS).contains(&inputs.len()) => inputs,
            _ => return Err(wrong("inputs", &format!("an array of 1 to {MAX_INPUTS} inputs"))),
        };
        let inputs = inputs.into_iter().enumerate().map(|(at, input)| Asked::parse(at + 1, input));
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let (only_new, only_typed) = (flag(&mut members, "onlyNew")?, flag(&mut members, "onlyTyped")?);
        let by_modified = one_of(&mut members, "order", &["path", "lastModified"])?.as_deref() == Some("lastModified");
        let workers = match members.remove("workers") {
            None => None,
            Some(count) => {
                let in_range = count.as_u64().filter(|count| (1..=MAX_WORKERS).contains(count));
                let count = in_range.ok_or_else(|| wrong("workers", &format!("a number from 1 to {MAX_WORKERS}")))?;
                u16::try_from(count).ok()
            }
        };
        let part = members.remove("part").map(Part::parse).transpose()?;
        if part.is_some() && (transaction || disable_indexes || only_new) {
            return Err(Error::invalid_argument(
                "\"part\" of the request goes with neither mode \"transaction\" nor disableIndexes nor onlyNew",
            ));
        }
        let account = members.remove("account").map(account::parse).transpose()?;
        for Asked { url, .. } in &inputs {
            if account.is_some() && !url.starts_with("s3://") {
                return Err(Error::invalid_argument(
                    "\"account\" of the request is for s3://, and an input has another URL",
                ));
            }
            if only_new && !url.starts_with("s3://") && !url.starts_with("file://") {
                return Err(Error::invalid_argument(
                    "\"onlyNew\" of the request is for file:// and s3://, and an input has another URL",
                )
                .detail("A URL of HTTP may have another signature each time, and stand for another file."));
            }
        }
        nothing_else(&members, "", KNOWN)?;
        let retries = u32::try_from(retries).unwrap_or(u32::MAX);
        Ok(Request {
            id,
            fhir,
            content_encoding,
            transaction,
            update,
            skip_unchanged,
            refuse_known,
            disable_indexes,
            part,
            retries,
            service: account.as_ref().map(|account| account.address.clone()),
            reach: Reach { retries, account },
            only_new,
            only_typed,
            by_modified,
            workers,
            inputs,
        })
    }
}

impl Asked {
    fn parse(number: usize, input: Value) -> Result<Asked> {
        let place = format!("inputs[{number}]");
        let Value::Object(mut members) = input else { return Err(wrong(&place, "an object")) };
        members.retain(|_, value| !value.is_null());
        let resource_type = match members.remove("resourceType") {
            None => None,
            Some(Value::String(name)) => Some(ResourceType::new(&name).map(|_| name)?),
            Some(_) => return Err(wrong(&format!("{place}.resourceType"), "a string")),
        };
        let url = match members.remove("url") {
            Some(Value::String(url)) => url,
            _ => return Err(wrong(&format!("{place}.url"), "a string")),
        };
        nothing_else(&members, &format!("{place}."), "resourceType and url")?;
        Ok(Asked { resource_type, url })
    }
}

impl Part {
    fn parse(part: Value) -> Result<Part> {
        serde_json::from_value(part).map_err(|_| wrong("part", "{\"hashes\": [[first, last], …], \"within\": …}"))
    }
}

/// Whether an id needs no escape in a URL (RFC 3986, unreserved).
fn is_id(id: &str) -> bool {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    // `.` and `..` are not names in a path.
    (1..=MAX_ID_BYTES).contains(&id.len()) && id.bytes().all(unreserved) && !matches!(id, "." | "..")
}

impl Request {
    /// The lines that it has of each input; `None` for all.
    pub fn share(&self) -> Option<Share> {
        self.part.as_ref().map(|part| Share::of(part.hashes.clone()))
    }
}

/// Reads a [`Request`] or an [`Input`] that the queue has stored.
pub fn kept<T: DeserializeOwned>(json: Value) -> T {
    serde_json::from_value(json).expect("the shape it was kept in")
}
