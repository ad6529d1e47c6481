//! Synthea's patients and HL7's own examples, where the checkout has them beside it.

use super::compare::{equal, without_version};
use super::{assert_stored_as_reference, drop_reference, make_reference};
use crate::support::{load, rows, run, shared_data_or_say_so};
use fhir_bulk_tests::{Client, Database};
use postgres::fallible_iterator::FallibleIterator as _;
use serde_json::Value;
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

/// The lines of a gzip file by type and id, without those that no load takes: FHIR's rule for ids, the first of each.
fn lines(path: &Path) -> HashMap<(String, String), String> {
    let file = std::fs::File::open(path).unwrap();
    let mut found = HashMap::new();
    for line in BufReader::new(flate2::read::MultiGzDecoder::new(file)).lines() {
        let line = line.unwrap();
        let resource: Value = serde_json::from_str(&line).unwrap();
        let (Some(resource_type), Some(id)) = (resource["resourceType"].as_str(), resource["id"].as_str()) else {
            continue;
        };
        let fits = (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
        if fits {
            found.entry((resource_type.to_owned(), id.to_owned())).or_insert(line);
        }
    }
    found
}

/// dump(load(x)) equals x for every line, in both forms; what is stored is PostgreSQL's own jsonb.
fn assert_round_trip(files: &[&str]) {
    let Some(folder) = shared_data_or_say_so(&files.join(", ")) else { return };
    let database = Database::new();
    let mut client = database.connect();
    // FHIR has more types than a mixed load makes tables for by default.
    run(&mut client, "SET fhir_bulk.max_new_tables = 200");
    for file in files {
        let lines = lines(&folder.join(file));
        assert!(!lines.is_empty(), "{file}");
        let body: String = lines.values().flat_map(|line| [line, "\n"]).collect();
        let url = database.file("lines.ndjson", &body);
        drop(body);
        for form in ["true", "false"] {
            let counts: Value = serde_json::from_str(&load(&mut client, &url, &format!("fhir => {form}"))).unwrap();
            let counts = counts.as_object().unwrap();
            assert_eq!(counts.values().map(|n| n.as_u64().unwrap()).sum::<u64>(), lines.len() as u64, "{file}");
            for (resource_type, count) in counts {
                let equal = compare_dump(&mut client, resource_type, form, &lines);
                assert_eq!(Some(equal), count.as_u64(), "{file}: {resource_type}, fhir => {form}");
            }
        }
        make_reference(&mut client, url.trim_start_matches("file://"));
        assert_stored_as_reference(&mut client);
        drop_reference(&mut client);
        for table in rows(
            &mut client,
            "SELECT relname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND attname = 'resource' WHERE relkind = 'r'
                AND relname <> 'bulk_search_parameter'",
        ) {
            run(&mut client, &format!("DROP TABLE \"{table}\""));
        }
    }
}

/// Compares each dumped line with the one that was loaded; how many there are.
fn compare_dump(
    client: &mut Client,
    resource_type: &str,
    form: &str,
    lines: &HashMap<(String, String), String>,
) -> u64 {
    let mut dumped =
        client.query_raw("SELECT bulk_dump($1, fhir => $2::text::boolean)", [resource_type, form]).unwrap();
    let mut count = 0;
    while let Some(row) = dumped.next().unwrap() {
        let line: &str = row.get(0);
        let mut out: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line:.1000}"));
        let key = (resource_type.to_owned(), out["id"].as_str().unwrap().to_owned());
        let source = lines.get(&key).unwrap_or_else(|| panic!("{key:?} was not loaded"));
        let mut loaded: Value = serde_json::from_str(source).unwrap();
        assert!(out["meta"]["lastUpdated"].is_string() && out["meta"]["versionId"].is_number(), "{line:.1000}");
        without_version(&mut loaded);
        without_version(&mut out);
        assert!(equal(&loaded, &out), "loaded {source:.2000}\ndumped {line:.2000}");
        count += 1;
    }
    count
}

#[test]
fn a_hospitals_mixed_file_comes_back_as_it_went_in() {
    assert_round_trip(&["synthea-small/all.ndjson.gz"]);
}

#[test]
fn hl7s_examples_of_every_r4_type_come_back_as_they_went_in() {
    assert_round_trip(&["hl7-examples/r4.examples.ndjson.gz"]);
}

#[test]
fn hl7s_examples_of_every_r5_type_come_back_as_they_went_in() {
    assert_round_trip(&["hl7-examples/r5.examples.ndjson.gz"]);
}

#[test]
fn hl7s_r4_definitions_come_back_as_they_went_in() {
    assert_round_trip(&["hl7-examples/r4.definitions.ndjson.gz"]);
}

#[test]
fn resources_of_up_to_30_mb_come_back_as_they_went_in() {
    assert_round_trip(&["hl7-examples/r4.huge-lines.ndjson.gz"]);
}

const LARGE: [&[&str]; 2] = [
    &[
        "Claim",
        "Encounter",
        "ImagingStudy",
        "Procedure",
        "Organization",
        "Goal",
        "Patient",
        "CarePlan",
        "ExplanationOfBenefit",
    ],
    &[
        "Observation",
        "MedicationRequest",
        "AllergyIntolerance",
        "DiagnosticReport",
        "Condition",
        "Practitioner",
        "Immunization",
    ],
];

fn assert_large(types: &[&str]) {
    let files: Vec<_> = types.iter().map(|name| format!("synthea-large/{name}.ndjson.gz")).collect();
    assert_round_trip(&files.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn a_regions_claims_and_encounters_come_back_as_they_went_in() {
    assert_large(LARGE[0]);
}

#[test]
fn a_regions_observations_and_conditions_come_back_as_they_went_in() {
    assert_large(LARGE[1]);
}
