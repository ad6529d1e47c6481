//! Reads the parameters of Aidbox's RPC methods for imports, as the request that `bulk_import` takes. What it does not know is
//! refused by name. No message has the value of a parameter: it may be a key.

use axum::http::StatusCode;
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value, json};

use crate::error::{Problem, Result};

/// Ids of imports that `import-start` starts begin so, those of `load-from-bucket` with the second, and go on with a digest of
/// the bucket: by its id the last one is found.
pub const IMPORT_ID: &str = "aidbox-bulk-import.";
const BUCKET_ID: &str = "aidbox-bulk-load.";
/// How many files are loaded at once if the request does not say it.
const THREADS: u64 = 4;
const MOST_THREADS: u64 = 1000;
const MOST_PREFIXES: usize = 1000;
/// Milliseconds of a timeout, as a setting takes them.
const MOST_TIME: u64 = i32::MAX as u64;

/// An import to start.
pub struct Start {
    /// What `bulk_import` takes, but for the id.
    pub request: Value,
    /// Whether the lines are in FHIR's form.
    pub fhir: bool,
    /// Settings of the transaction that starts it, in milliseconds.
    pub timeouts: Vec<(&'static str, u64)>,
}

/// Where files come from.
pub struct Bucket {
    /// As the request has it.
    pub url: String,
}

impl Bucket {
    /// What the ids of its loads begin with.
    pub fn id(&self) -> String {
        let digest = digest(&SHA256, self.url.as_bytes());
        let name: String = digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        format!("{BUCKET_ID}{name}.")
    }

    /// # Errors
    /// 422 if it is none.
    fn parse(url: String) -> Result<Bucket> {
        let url = url.trim_end_matches('/').to_owned();
        let is_plain = !url.contains(['*', '?', '#']);
        let is_bucket = url.strip_prefix("s3://").is_some_and(|name| !name.is_empty() && !name.contains('/'));
        if is_plain && (is_bucket || url.strip_prefix("file://").is_some_and(|path| path.starts_with('/'))) {
            return Ok(Bucket { url });
        }
        Err(wrong("bucket", "s3:// and the name of a bucket, or file:// and the path of a folder"))
    }
}

/// The parameters of a method. Those that are null count as missing.
pub struct Params {
    members: Map<String, Value>,
    /// What stands before their names in messages.
    place: &'static str,
}

impl Params {
    /// # Errors
    /// 422 if they are no object.
    pub fn of(params: Option<Value>) -> Result<Params> {
        Params::parse(params.unwrap_or_default(), "params", "")
    }

    fn parse(value: Value, name: &str, place: &'static str) -> Result<Params> {
        match value {
            Value::Null => Ok(Params { members: Map::new(), place }),
            Value::Object(mut members) => {
                members.retain(|_, value| !value.is_null());
                Ok(Params { members, place })
            }
            _ => Err(refused(format!("{name} is not an object"))),
        }
    }

    /// Takes a text.
    ///
    /// # Errors
    /// 422 for another value, and for control characters, which no text here has.
    pub fn text(&mut self, name: &str) -> Result<Option<String>> {
        match self.members.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) if !text.contains(char::is_control) => Ok(Some(text)),
            Some(_) => Err(self.wrong(name, "a string without control characters")),
        }
    }

    /// Takes a text that must be there.
    fn needed(&mut self, name: &str) -> Result<String> {
        let text = self.text(name)?;
        text.ok_or_else(|| refused(format!("the parameter {}{name} is missing", self.place)))
    }

    fn word(&mut self, name: &str, known: &[&str]) -> Result<Option<String>> {
        match self.members.remove(name) {
            None => Ok(None),
            Some(Value::String(word)) if known.contains(&word.as_str()) => Ok(Some(word)),
            Some(_) => Err(self.wrong(name, &format!("one of {}", known.join(", ")))),
        }
    }

    fn flag(&mut self, name: &str) -> Result<bool> {
        match self.members.remove(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => Err(self.wrong(name, "true or false")),
        }
    }

    fn number(&mut self, name: &str, least: u64, most: u64) -> Result<Option<u64>> {
        let Some(value) = self.members.remove(name) else { return Ok(None) };
        match value.as_u64().filter(|number| (least..=most).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(name, &format!("a whole number from {least} to {most}"))),
        }
    }

    fn list(&mut self, name: &str, most: usize) -> Result<Option<Vec<Value>>> {
        match self.members.remove(name) {
            None => Ok(None),
            Some(Value::Array(values)) if (1..=most).contains(&values.len()) => Ok(Some(values)),
            Some(_) => Err(self.wrong(name, &format!("a list of 1 to {most} elements"))),
        }
    }

    /// Refuses parameters that would change what is stored.
    fn refuse(&mut self, names: &[&str]) -> Result<()> {
        match names.iter().find(|name| self.members.contains_key(**name)) {
            None => Ok(()),
            Some(name) => Err(refused(format!("the parameter {name} is not supported"))),
        }
    }

    /// # Errors
    /// 422 if a parameter is left, which nobody has taken.
    pub fn finish(self) -> Result<()> {
        match self.members.keys().next() {
            None => Ok(()),
            Some(name) => {
                let shown: String = name.chars().take(80).collect();
                Err(refused(format!("the parameter {}{shown:?} is not known", self.place)))
            }
        }
    }

    fn wrong(&self, name: &str, expected: &str) -> Problem {
        wrong(&format!("{}{name}", self.place), expected)
    }
}

fn wrong(name: &str, expected: &str) -> Problem {
    refused(format!("the parameter {name} is not {expected}")).at(name)
}

fn refused(message: String) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, message)
}

/// Reads the parameters of `load-from-bucket`.
///
/// # Errors
/// 422.
pub fn load_from_bucket(mut params: Params) -> Result<(Bucket, Start)> {
    let bucket = Bucket::parse(params.needed("bucket")?)?;
    let threads = params.number("thread-num", 1, MOST_THREADS)?.unwrap_or(THREADS);
    let disable_indexes = params.flag("disable-idx?")?;
    if params.flag("drop-primary-key?")? {
        return Err(refused("the parameter drop-primary-key? is not supported: ids stay unique".into()));
    }
    let upsert = params.flag("upsert?")?;
    let scheduler = params.word("scheduler", &["optimal", "by-last-modified"])?;
    let fhir = params.word("format", &["aidbox", "fhir"])?.as_deref() == Some("fhir");
    let urls = match params.list("prefixes", MOST_PREFIXES)? {
        None => vec![format!("{}/", bucket.url)],
        Some(prefixes) => prefixes.into_iter().map(|prefix| listed(&bucket, prefix)).collect::<Result<_>>()?,
    };
    let mut timeouts = Vec::new();
    for (name, setting) in
        [("connect-timeout", "fhir_bulk.connect_timeout"), ("read-timeout", "fhir_bulk.idle_timeout")]
    {
        // 0 is Aidbox's default. Nothing waits for ever here: it means the server's own limit.
        if let Some(time) = params.number(name, 0, MOST_TIME)?.filter(|time| *time > 0) {
            timeouts.push((setting, time));
        }
    }
    let account = params.members.remove("account").map(account).transpose()?;
    params.finish()?;
    let mut request = json!({
        "onlyNew": true,
        "onlyTyped": true,
        "workers": threads,
        "disableIndexes": disable_indexes,
        "order": if scheduler.as_deref() == Some("by-last-modified") { "lastModified" } else { "path" },
        // A file that fails leaves nothing then, and may be loaded again.
        "mode": if upsert { "bulk" } else { "transaction" },
        "onConflict": if upsert { "update" } else { "error" },
        "inputs": urls.into_iter().map(|url| json!({"url": url})).collect::<Vec<_>>(),
    });
    if let Some(account) = account {
        request["account"] = account;
    }
    Ok((bucket, Start { request, fhir, timeouts }))
}

/// The URL for the objects whose keys begin with a prefix.
fn listed(bucket: &Bucket, prefix: Value) -> Result<String> {
    match prefix {
        Value::String(prefix) if !prefix.contains(|c: char| c.is_control() || c == '*') => {
            let all = if prefix.is_empty() || prefix.ends_with('/') { "" } else { "**" };
            Ok(format!("{}/{prefix}{all}", bucket.url))
        }
        _ => Err(wrong("prefixes", "a list of strings without * and control characters")),
    }
}

fn account(value: Value) -> Result<Value> {
    let mut params = Params::parse(value, "account", "account.")?;
    let account = json!({
        "accessKeyId": params.needed("access-key-id")?,
        "secretAccessKey": params.needed("secret-access-key")?,
        "region": params.needed("region")?,
        "sessionToken": params.text("session-token")?,
        "host": params.text("host")?,
    });
    params.finish().map(|()| account)
}

/// Reads the parameters of `load-from-bucket-status`.
///
/// # Errors
/// 422.
pub fn bucket(mut params: Params) -> Result<Bucket> {
    let bucket = Bucket::parse(params.needed("bucket")?)?;
    params.finish().map(|()| bucket)
}

/// Reads the parameters of `import-start`.
///
/// # Errors
/// 422.
pub fn import_start(mut params: Params) -> Result<Start> {
    params.refuse(&["meta", "id_prefix"])?;
    let fhir = params.word("format", &["fhir", "aidbox"])?.as_deref() != Some("aidbox");
    let keeps = params.word("on-conflict", &["update", "override"])?.as_deref() == Some("update");
    let inputs = params.list("input", 10_000)?;
    let inputs = inputs.ok_or_else(|| refused("the parameter input is missing".into()))?.into_iter().map(|input| {
        let mut input = Params::parse(input, "an element of input", "input.")?;
        let read = json!({"url": input.needed("url")?, "resourceType": input.text("resourceType")?});
        input.finish().map(|()| read)
    });
    let request = json!({"update": keeps, "inputs": inputs.collect::<Result<Vec<_>>>()?});
    params.finish()?;
    Ok(Start { request, fhir, timeouts: Vec::new() })
}

/// Reads the parameters of the other methods for imports: the id of one, if it is not the last one that is meant.
///
/// # Errors
/// 422.
pub fn import_id(mut params: Params, leaves_out_resources: bool) -> Result<Option<String>> {
    if leaves_out_resources {
        // Resources are left out in any case.
        match params.members.remove("omit-resources?") {
            None | Some(Value::Bool(true)) => {}
            Some(_) => {
                return Err(refused("the parameter omit-resources? is not true: errors have no resources".into()));
            }
        }
    }
    let id = params.text("id")?;
    params.finish().map(|()| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(params: Value) -> std::result::Result<Value, String> {
        let read = Params::of(Some(params)).and_then(load_from_bucket);
        read.map(|(_, start)| start.request).map_err(|problem| {
            assert_eq!(problem.status, StatusCode::UNPROCESSABLE_ENTITY);
            problem.message
        })
    }

    #[test]
    fn defaults_are_those_that_are_documented() {
        let request = load(json!({"bucket": "s3://b"})).unwrap();
        let expected = json!({"onlyNew": true, "onlyTyped": true, "workers": 4, "disableIndexes": false, "order": "path",
            "mode": "transaction", "onConflict": "error", "inputs": [{"url": "s3://b/"}]});
        assert_eq!(request, expected);
        let more = json!({"bucket": "s3://b/", "prefixes": ["fhir/1/", "fhir/2/Patient", ""], "upsert?": true,
            "scheduler": "by-last-modified", "thread-num": 1, "disable-idx?": true, "drop-primary-key?": false});
        let request = load(more).unwrap();
        let urls = json!([{"url": "s3://b/fhir/1/"}, {"url": "s3://b/fhir/2/Patient**"}, {"url": "s3://b/"}]);
        assert_eq!(
            (&request["inputs"], &request["order"], &request["mode"]),
            (&urls, &json!("lastModified"), &json!("bulk"))
        );
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_its_name_and_without_its_value() {
        for (params, named) in [
            (json!([]), "params"),
            (json!({}), "bucket"),
            (json!({"bucket": 1}), "bucket"),
            (json!({"bucket": "s3://"}), "bucket"),
            (json!({"bucket": "s3://b/c"}), "bucket"),
            (json!({"bucket": "s3://b*"}), "bucket"),
            (json!({"bucket": "https://b"}), "bucket"),
            (json!({"bucket": "file://b"}), "bucket"),
            (json!({"bucket": "s3://b\u{0}"}), "bucket"),
            (json!({"bucket": "s3://b", "thread-num": 0}), "thread-num"),
            (json!({"bucket": "s3://b", "thread-num": 1e300}), "thread-num"),
            (json!({"bucket": "s3://b", "thread-num": "4"}), "thread-num"),
            (json!({"bucket": "s3://b", "thread-num": -1}), "thread-num"),
            (json!({"bucket": "s3://b", "drop-primary-key?": true}), "drop-primary-key?"),
            (json!({"bucket": "s3://b", "upsert?": "yes"}), "upsert?"),
            (json!({"bucket": "s3://b", "scheduler": "fast"}), "scheduler"),
            (json!({"bucket": "s3://b", "prefixes": []}), "prefixes"),
            (json!({"bucket": "s3://b", "prefixes": ["a*"]}), "prefixes"),
            (json!({"bucket": "s3://b", "prefixes": ["a\u{0}"]}), "prefixes"),
            (json!({"bucket": "s3://b", "prefixes": [["a"]]}), "prefixes"),
            (json!({"bucket": "s3://b", "read-timeout": 2_147_483_648_u64}), "read-timeout"),
            (json!({"bucket": "s3://b", "account": []}), "account"),
            (json!({"bucket": "s3://b", "account": {}}), "account.access-key-id"),
            (json!({"bucket": "s3://b", "account": {"access-key-id": "SECRET\u{0}"}}), "account.access-key-id"),
            (
                json!({"bucket": "s3://b", "account": {"access-key-id": "a", "secret-access-key": ["SECRET"], "region": "r"}}),
                "account.secret-access-key",
            ),
            (
                json!({"bucket": "s3://b", "account": {"access-key-id": "a", "secret-access-key": "SECRET", "region": "r", "x": 1}}),
                "account.\"x\"",
            ),
            (json!({"bucket": "s3://b", "more": "SECRET"}), "more"),
        ] {
            let message = load(params.clone()).unwrap_err();
            assert!(message.contains(named) && !message.contains("SECRET"), "{params}: {message}");
        }
    }

    #[test]
    fn an_import_is_of_fhir_unless_it_says_otherwise_and_takes_nothing_that_it_would_ignore() {
        let start = |params: Value| Params::of(Some(params)).and_then(import_start);
        let read = start(json!({"input": [{"url": "https://h/a"}], "on-conflict": "update"}))
            .unwrap_or_else(|p| panic!("{p}"));
        assert!(read.fhir);
        assert_eq!(read.request, json!({"update": true, "inputs": [{"url": "https://h/a", "resourceType": null}]}));
        for (params, named) in [
            (json!({}), "input"),
            (json!({"input": []}), "input"),
            (json!({"input": [1]}), "input"),
            (json!({"input": [{}]}), "input.url"),
            (json!({"input": [{"url": "https://h/a", "id": 1}]}), "input."),
            (json!({"input": [{"url": "https://h/a"}], "meta": {}}), "meta"),
            (json!({"input": [{"url": "https://h/a"}], "id_prefix": "a"}), "id_prefix"),
            (json!({"input": [{"url": "https://h/a"}], "on-conflict": "ignore"}), "on-conflict"),
            (json!({"input": [{"url": "https://h/a"}], "mode": "x"}), "mode"),
        ] {
            match start(params.clone()) {
                Err(problem) => assert!(problem.message.contains(named), "{params}: {problem}"),
                Ok(_) => panic!("{params}"),
            }
        }
    }
}
