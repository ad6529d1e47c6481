//! Reads a manifest of HL7's Bulk Data Access, of STU3 or of the ballot of version 4, page by page.

use super::kept::File;
use crate::jobs::Task;
use crate::source::{self, Terms, here, shown};
use crate::store::ResourceType;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::transaction;
use fhir_bulk_transfer::join;
use pgrx::PgSqlErrorCode;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Read as _;

/// The largest page of a manifest.
const MOST_BYTES: u64 = 16 << 20;
const MOST_PAGES: usize = 1000;
const MOST_FILES: usize = 100_000;

/// A page, without what its sender says of its own errors.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    transaction_time: Option<Value>,
    output_format: Option<String>,
    output_organized_by: Option<Value>,
    requires_access_token: Option<Value>,
    output: Option<Vec<Item>>,
    deleted: Option<Vec<Item>>,
    #[serde(default)]
    link: Option<Vec<Link>>,
}

#[derive(Deserialize)]
struct Item {
    url: String,
    #[serde(rename = "type")]
    resource_type: Option<String>,
    count: Option<Value>,
}

#[derive(Deserialize)]
struct Link {
    relation: String,
    url: String,
}

/// The files that the pages of a manifest list.
///
/// # Errors
/// 22023 for what is no manifest, and for pages that lead back; 54000 if there are too many; 0A000 for another format of files;
/// the errors of reading URLs.
pub fn read(task: &Task, url: &str, terms: &Terms) -> Result<Vec<File>> {
    let (mut files, mut seen) = (Vec::new(), BTreeSet::new());
    let mut next = Some(url.to_owned());
    while let Some(url) = next {
        let name = shown(&url);
        if seen.len() == MOST_PAGES {
            return Err(too_many(format!("the manifest has more than {MOST_PAGES} pages")));
        }
        let page = parse(&url, &document(task, &url, terms)?);
        let (of_page, link) = page.map_err(|error| error.about(&name))?;
        files.extend(of_page);
        if files.len() > MOST_FILES {
            return Err(too_many(format!("the manifest has more than {MOST_FILES} files")));
        }
        seen.insert(url);
        if link.as_ref().is_some_and(|link| seen.contains(link)) {
            let message = format!("{name}: the next page is one that was read before");
            return Err(Error::invalid_argument(message));
        }
        next = link;
    }
    Ok(files)
}

fn too_many(message: String) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED, message)
}

/// Reads a page. Its server may take its time, so there is no transaction meanwhile.
fn document(task: &Task, url: &str, terms: &Terms) -> Result<Vec<u8>> {
    let source = task.transaction(|| source::open_under(url, terms))?;
    let name = source.name.clone();
    transaction::between(|| {
        let mut bytes = Vec::new();
        let read = here::read(source).and_then(|reader| reader.take(MOST_BYTES + 1).read_to_end(&mut bytes));
        read.map_err(|error| {
            source::failure(&name, &error).unwrap_or_else(|| {
                Error::new(PgSqlErrorCode::ERRCODE_BAD_COPY_FILE_FORMAT, format!("could not read {name}: {error}"))
            })
        })?;
        if bytes.len() as u64 > MOST_BYTES {
            return Err(too_many(format!("{name} has more than {MOST_BYTES} bytes")));
        }
        Ok(bytes)
    })
}

/// The files of a page, and the URL of the next one.
fn parse(url: &str, bytes: &[u8]) -> Result<(Vec<File>, Option<String>)> {
    let none = |why: String| Error::invalid_argument(format!("it is not a manifest: {why}"));
    let page: Page = serde_json::from_slice(bytes).map_err(|error| none(error.to_string()))?;
    if page.transaction_time.is_none() && page.output.is_none() && page.deleted.is_none() {
        return Err(none("it has neither transactionTime, nor output, nor deleted".to_owned()));
    }
    if let Some(format) = page.output_format.filter(|format| !format.to_ascii_lowercase().contains("ndjson")) {
        let shown: String = format.chars().take(80).collect();
        let message = format!("files of the format \"{shown}\" are not read");
        return Err(Error::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message)
            .detail("Files are NDJSON, plain or gzip."));
    }
    let organized = page.output_organized_by.is_some();
    let needs_token = page.requires_access_token == Some(Value::Bool(true));
    let file = |item: Item, deletes: bool| -> Result<File> {
        let in_file = |error: Error| error.about("a file of the manifest");
        let url = join(url, &item.url).map_err(|error| in_file(Error::invalid_argument(error.to_string())))?;
        let resource_type = item.resource_type.filter(|_| !deletes);
        if let Some(name) = &resource_type {
            ResourceType::new(name).map_err(in_file)?;
        }
        let count = if organized { None } else { item.count.and_then(|count| count.as_u64()) };
        Ok(File { url, resource_type, deletes, organized, needs_token, count: count.unwrap_or(0) })
    };
    let output = page.output.into_iter().flatten().map(|item| file(item, false));
    let deleted = page.deleted.into_iter().flatten().map(|item| file(item, true));
    let files = output.chain(deleted).collect::<Result<_>>()?;
    let next = page.link.into_iter().flatten().find(|link| link.relation == "next");
    let next = next.map(|link| join(url, &link.url)).transpose();
    Ok((files, next.map_err(|error| none(format!("its link to the next page: {error}")))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://h.org/m/1.json";

    fn files(manifest: &str) -> Vec<(String, Option<String>, bool, u64)> {
        let (files, _) = parse(URL, manifest.as_bytes()).unwrap();
        files.into_iter().map(|file| (file.url, file.resource_type, file.deletes, file.count)).collect()
    }

    #[test]
    fn manifests_of_both_versions_list_the_same() {
        let patient = ("https://h.org/p".to_owned(), Some("Patient".to_owned()), false, 5);
        let deleted = ("https://h.org/m/d".to_owned(), None, true, 0);
        assert_eq!(
            files(
                r#"{"transactionTime": "2026-11-27T08:00:00Z", "request": "r", "requiresAccessToken": false,
                "output": [{"type": "Patient", "url": "https://h.org/p", "count": 5}],
                "deleted": [{"type": "Bundle", "url": "d"}], "error": [{"type": "OperationOutcome", "url": "e"}]}"#
            ),
            [patient.clone(), deleted.clone()]
        );
        assert_eq!(
            files(
                r#"{"manifestType": "t", "transactionTime": "2026-11-27T08:00:00Z", "requiresAccessToken": true,
                "outputFormat": "application/fhir+ndjson", "deleted": [{"url": "d"}], "extension": [],
                "output": [{"type": "Patient", "url": "https://h.org/p", "count": 5, "fileSize": 7}],
                "outcome": [{"url": "e", "countSeverity": []}]}"#
            ),
            [patient, deleted]
        );
        // With headers between the resources, lines are not resources.
        assert_eq!(
            files(r#"{"output": [{"url": "/a", "count": 2}], "outputOrganizedBy": "Patient"}"#),
            [("https://h.org/a".to_owned(), None, false, 0)]
        );
    }

    #[test]
    fn a_link_leads_to_the_next_page() {
        let next = |link: &str| parse(URL, format!(r#"{{"output": [], "link": {link}}}"#).as_bytes()).unwrap().1;
        assert_eq!(
            next(r#"[{"relation": "self", "url": "1"}, {"relation": "next", "url": "2"}]"#).unwrap(),
            "https://h.org/m/2"
        );
        assert_eq!(next("[]"), None);
        assert_eq!(next("null"), None);
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        for other in [
            "",
            "[]",
            "{}",
            r#"{"output": {}}"#,
            r#"{"output": [{"type": "Patient"}]}"#,
            r#"{"output": [{"type": "a b", "url": "p"}]}"#,
            r#"{"output": [{"url": "ftp://h.org/p"}]}"#,
            r#"{"output": [{"url": "file:///etc/passwd"}]}"#,
            r#"{"output": [{"url": "https://a:b@h.org/p"}]}"#,
            r#"{"output": [], "outputFormat": "application/vnd.apache.parquet"}"#,
            r#"{"output": [], "link": [{"relation": "next", "url": "s3://b/k"}]}"#,
        ] {
            assert!(parse(URL, other.as_bytes()).is_err(), "{other}");
        }
    }
}
