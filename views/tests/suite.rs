//! The public test suite of SQL on FHIR.

mod common;

use common::{report, suite};
use fhir_bulk_codec::fhir::Version;

fn failures(version: Version) -> Vec<String> {
    let failed = |case: &common::Case| case.check(version).err();
    suite().iter().filter_map(|case| Some(format!("{}, {}: {}", case.file, case.title, failed(case)?))).collect()
}

#[test]
fn all_cases_pass_in_every_release() {
    assert_eq!(suite().len(), 134);
    for version in [Version::R4, Version::R4B, Version::R5] {
        let failures = failures(version);
        assert!(failures.is_empty(), "{version:?}: {} failed:\n{}", failures.len(), failures.join("\n"));
    }
}

#[test]
fn the_report_has_the_form_of_the_suite() {
    let report = report(Version::R4);
    let files = report.as_object().unwrap();
    assert_eq!(files.len(), 22);
    let tests: Vec<_> = files.values().flat_map(|file| file["tests"].as_array().unwrap()).collect();
    assert_eq!(tests.len(), 134);
    assert!(tests.iter().all(|test| test["name"].is_string() && test["result"]["passed"] == true));
}
