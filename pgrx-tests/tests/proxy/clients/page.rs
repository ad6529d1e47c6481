//! Follows `docs/clients.md`: its commands, as a reader runs them, against a proxy with data that the tests know.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{command, fetched, filled, installed, lines, run, same, stored, with_login};
use crate::support::{PASSWORD, Service};

/// The blocks of a language below a heading.
pub fn blocks(heading: &str, language: &str) -> Vec<String> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/clients.md")).unwrap();
    let section = page.split("\n## ").find(|section| section.lines().next() == Some(heading));
    let section = section.unwrap_or_else(|| panic!("the page has no section {heading}"));
    let fence = format!("\n```{language}\n");
    let blocks: Vec<String> =
        section.split(&fence).skip(1).map(|rest| rest.split("\n```").next().unwrap().to_owned()).collect();
    assert!(!blocks.is_empty(), "{heading} has no {language}");
    blocks
}

/// Runs the commands below some headings in one folder, as somebody who has installed the clients; the folder, and what the
/// last block printed.
#[track_caller]
pub fn follow(service: &Service, headings: &[&str]) -> (PathBuf, String) {
    let folder = service.database.path("reader");
    fs::create_dir(&folder).unwrap();
    symlink(installed("fhir-kit-client/node_modules"), folder.join("node_modules")).unwrap();
    let path = std::env::var_os("PATH").unwrap();
    let path = [installed("venv/bin"), PathBuf::from(path), installed("venv-smart-fetch/bin")];
    let path = path.map(|part| part.into_os_string().into_string().unwrap()).join(":");
    let mut said = String::new();
    for block in headings.iter().flat_map(|heading| blocks(heading, "sh")) {
        // The page's role is the demo's.
        let block = block.replace("role: client\n", &format!("role: {}\n", service.client));
        let mut shell = command(Path::new("bash"));
        shell.args(["-euo", "pipefail", "-c", &block]).current_dir(&folder).env("PATH", &path);
        shell.env("FHIR_URL", service.proxy.url()).env("FHIR_USER", format!("{}:{PASSWORD}", service.client));
        shell.env("FHIR_CLIENTS", service.database.path("clients.yaml"));
        shell.env("FHIR_PROXY", service.proxy.pid().to_string());
        said = run(&mut shell);
    }
    (folder, said)
}

#[test]
fn curl_gets_the_files_of_an_export_and_pandas_and_duckdb_read_them() {
    let service = filled();
    let (folder, said) = follow(&service, &["curl", "pandas and DuckDB"]);
    same(&fetched(&folder.join("files")), &stored(&service, &["Patient", "Condition"]), &said);
    let words: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(words, ["3", "patients", "conditions", "subjects", "0", "100", "3"], "{said}");
    let manifest: Value = serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    let counts: u64 = manifest["output"].as_array().unwrap().iter().map(|file| file["count"].as_u64().unwrap()).sum();
    assert_eq!(counts, 103);
    assert!(lines(&folder.join("Condition.0.ndjson")).len() <= 100);
}

/// Whether a program has read its first patient by the id, and deleted the export.
#[track_caller]
fn has_read_and_deleted(service: &Service) {
    let log = service.proxy.log();
    for request in ["method=GET path=\"/fhir/Patient/pt-1\"", "method=DELETE path=\"/fhir/$export-status/"] {
        assert!(log.lines().any(|line| line.contains(request) && line.contains("status=20")), "{request}: {log}");
    }
}

#[test]
fn fhirpy_reads_the_metadata_exports_and_reads_a_resource() {
    let service = filled();
    let (_, said) = follow(&service, &["fhirpy"]);
    assert_eq!(said, "fhir_bulk_proxy\n3 patients\nand, by its id, a Patient\n");
    has_read_and_deleted(&service);
}

#[test]
fn fhir_kit_client_reads_the_metadata_exports_and_reads_a_resource() {
    let service = filled();
    let (_, said) = follow(&service, &["fhir-kit-client"]);
    assert_eq!(said, "fhir_bulk_proxy has FHIR 4.0.1\n3 patients\nand, by its id, a Patient\n");
    has_read_and_deleted(&service);
}

#[test]
fn smart_fetch_logs_in_with_a_key_that_openssl_has_made() {
    let service = with_login();
    let (folder, said) = follow(&service, &["Logging in with a key"]);
    same(&fetched(&folder.join("with-key")), &stored(&service, &["Patient", "Condition"]), &said);
    let log = service.proxy.log();
    assert!(log.contains("path=\"/auth/token\"") && log.contains("method=DELETE"), "{log}");
}
