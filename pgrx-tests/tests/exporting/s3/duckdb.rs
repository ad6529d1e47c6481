//! Follows the part of `docs/analytics.md` that needs a bucket: DuckDB reads there what an export has written.

use super::{KEY_ID, LOCATION, S3Server, SECRET_KEY, with_service};
use crate::job::finish;
use crate::support::{run, value};
use fhir_bulk_tests::tools::python;
use serde_json::json;
use std::fs;
use std::path::Path;

/// The first text of a page between two others.
fn between<'p>(page: &'p str, before: &str, after: &str) -> &'p str {
    let (_, rest) = page.split_once(before).unwrap_or_else(|| panic!("the page has no {before}"));
    rest.split_once(after).unwrap().0
}

/// DuckDB's extension, which `INSTALL httpfs` would download: that of PyPI's package.
const EXTENSION: &str = r#"
import glob, os, sys
import duckdb, duckdb_extension_httpfs
duckdb.sql(f"SET extension_directory = '{sys.argv[1]}'")
found = os.path.join(os.path.dirname(duckdb_extension_httpfs.__file__), "**", "httpfs.duckdb_extension")
duckdb.sql(f"INSTALL '{glob.glob(found, recursive=True)[0]}'")
"#;

#[test]
fn duckdb_reads_views_that_an_export_has_put_into_a_bucket() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/analytics.md")).unwrap();
    let service = S3Server::new();
    let (database, mut client) = with_service(&service.endpoint());
    let result = |n: u32, test: &str| {
        json!({"resourceType": "Observation", "id": format!("o{n}"), "status": "final",
            "category": [{"coding": [{"code": "laboratory"}]}], "subject": {"reference": "Patient/p"},
            "code": {"coding": [{"system": "http://loinc.org", "code": "c", "display": test}]},
            "effectiveDateTime": "2020-01-01T00:00:00Z", "valueQuantity": {"value": f64::from(n) + 0.5, "code": "%"}})
    };
    let lines = [result(1, "A"), result(2, "A"), result(3, "B")].map(|line| line.to_string()).join("\n");
    run(&mut client, &format!("SELECT bulk_load('{}', fhir => true)", database.file("results.ndjson", lines)));

    let view = between(&page, "<<'END'\n", "END\n").replace('\'', "''");
    let export = between(&page, "```postgresql\n", "```").replace(":'view'", &format!("'{view}'"));
    let id = value(&mut client, &export);
    assert_eq!(finish(&mut client, &id)["status"], "completed");

    let endpoint = service.endpoint();
    let read = between(&page, "```python\n", "```")
        .replace("INSTALL httpfs; ", "")
        .replace("AKIA…", KEY_ID)
        .replace("SECRET '…'", &format!("SECRET '{SECRET_KEY}', USE_SSL false"))
        .replace("minio.internal:9000", endpoint.trim_start_matches("http://"))
        .replace("s3://fhir-exchange/out/*/5f0c…", &format!("{LOCATION}/*/{id}"));
    let said = python(&format!("{EXTENSION}{read}"), &[&database.path("extensions")]);
    let words: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(words, ["test", "results", "most", "0", "A", "2", "2.5", "1", "B", "1", "3.5"], "{said}");
}
