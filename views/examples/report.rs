//! Runs the public test suite of SQL on FHIR, and prints the results in the suite's own format, `test_report.json`:
//! `cargo run -q -p fhir_bulk_views --example report > test_report.json`.

#[path = "../tests/common/mod.rs"]
mod common;

use fhir_bulk_codec::fhir::Version;

fn main() {
    println!("{:#}", common::report(Version::R4));
}
