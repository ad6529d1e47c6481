//! Real resources through the codec and back, and the JSON torture corpus against PostgreSQL's verdicts.
//!
//! The data lies outside the checkout: in `$FHIR_BULK_SHARED_DATA`, or in `../shared/data` beside it. Where it is
//! not, these tests say so and pass.

mod common;

use common::{encode_with, normalized, shared_data, without_row_members};
use fhir_bulk_codec::error::IdRule;
use fhir_bulk_codec::fhir::Version;
use fhir_bulk_codec::gzip::Reader;
use fhir_bulk_codec::ndjson::Lines;
use fhir_bulk_codec::resource::{Encoder, Envelope, Form, Writer};
use serde_json::Value;
use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// The files of a folder that end so.
fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.to_string_lossy().ends_with(end)).collect();
    files.sort();
    assert!(!files.is_empty(), "{} has no {end}", folder.display());
    files
}

fn lines(file: &Path) -> Lines<Reader<File>> {
    Lines::new(Reader::new(File::open(file).unwrap(), 1 << 16).unwrap(), 256 << 20)
}

/// The equality of a round trip for every `step`-th line of a file: converted to Aidbox form and back, and not converted.
/// Returns how many were compared.
fn come_back_equal(file: &Path, step: u64, version: Version) -> u64 {
    // Some of HL7's examples have ids that are no FHIR ids.
    let encoder = || Encoder::new(IdRule::Aidbox, common::CREATED_AT_URL);
    let (mut converting, mut plain) = (encoder().from_fhir(version, true, None), encoder());
    let writer = |form| Writer::new(form, common::CREATED_AT_URL, false);
    let (fhir, aidbox) = (writer(Form::Fhir(version)), writer(Form::Aidbox));
    let (mut lines, mut compared, mut out) = (lines(file), 0, Vec::new());
    while let Some(line) = lines.next_line().unwrap() {
        if line.number % step != 0 {
            continue;
        }
        compared += 1;
        let place = || format!("{}:{}", file.display(), line.number);
        let encode = |encoder: &mut Encoder, line: &[u8]| {
            encode_with(encoder, line).unwrap_or_else(|error| panic!("{}: {error}", place()))
        };
        let stored = encode(&mut converting, line.bytes);
        let row =
            Envelope { id: &stored.id, resource_type: stored.resource_type.as_deref().unwrap(), ..Envelope::default() };
        let equality = |text: &[u8]| match normalized(serde_json::from_slice(text).unwrap()) {
            Value::Object(resource) => without_row_members(resource),
            _ => panic!("{}: not an object", place()),
        };
        let expected = equality(line.bytes);
        out.clear();
        fhir.write(&row, &stored.jsonb, &mut out).unwrap();
        assert!(equality(&out) == expected, "{} came back otherwise", place());
        assert!(encode(&mut converting, &out).jsonb == stored.jsonb, "{}: its FHIR form is stored otherwise", place());
        // Of the large ones what differs is spaces.
        if line.bytes.len() < 1 << 20 {
            out.clear();
            aidbox.write(&row, &encode(&mut plain, line.bytes).jsonb, &mut out).unwrap();
            assert!(equality(&out) == expected, "{} came back otherwise in Aidbox form", place());
        }
    }
    compared
}

fn version_of(file: &Path) -> Version {
    if file.file_name().unwrap().to_string_lossy().starts_with("r5") { Version::R5 } else { Version::R4 }
}

#[test]
fn every_hl7_example_comes_back_equal() {
    let Some(folder) = shared_data("hl7-examples") else { return };
    for file in files(&folder, ".examples.ndjson.gz") {
        assert!(come_back_equal(&file, 1, version_of(&file)) > 500);
    }
}

#[test]
fn every_huge_line_comes_back_equal() {
    let Some(folder) = shared_data("hl7-examples") else { return };
    for file in files(&folder, ".huge-lines.ndjson.gz") {
        assert!(come_back_equal(&file, 1, version_of(&file)) > 5);
    }
}

#[test]
fn every_line_of_synthea_small_and_every_25th_of_synthea_large_comes_back_equal() {
    let compared = |folder: Option<PathBuf>, step| -> Option<u64> {
        Some(files(&folder?, ".ndjson.gz").iter().map(|file| come_back_equal(file, step, Version::R4)).sum())
    };
    assert!(compared(shared_data("synthea-small"), 1).is_none_or(|lines| lines == 2 * 4118));
    assert!(compared(shared_data("synthea-large"), 25).is_none_or(|lines| lines > 7500));
}

#[test]
fn every_definition_of_hl7_comes_back_equal() {
    let Some(folder) = shared_data("hl7-examples") else { return };
    for file in files(&folder, ".definitions.ndjson.gz") {
        assert!(come_back_equal(&file, 3, version_of(&file)) > 1000);
    }
}

/// JSON that PostgreSQL refuses would get into its tables, or valid JSON be refused.
#[test]
fn torture_lines_are_accepted_and_refused_as_postgresql_does() {
    let Some(folder) = shared_data("json-torture") else { return };
    let read = |name: &str| serde_json::from_slice::<Value>(&fs::read(folder.join(name)).unwrap()).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let verdicts: HashMap<String, bool> = read("postgres15-jsonb.json")
        .as_array()
        .unwrap()
        .iter()
        .map(|verdict| (text(&verdict["file"]), verdict["jsonbAccepts"].as_bool().unwrap()))
        .collect();
    let mut compared = 0;
    for class in ["y", "n", "i"] {
        let manifest = read("manifest.json");
        let of_class = manifest.as_array().unwrap().iter().filter(|entry| entry["class"] == class);
        let names: HashMap<u64, String> =
            of_class.filter_map(|entry| Some((entry["line"].as_u64()?, text(&entry["file"])))).collect();
        let mut encoder = Encoder::new(IdRule::Aidbox, common::CREATED_AT_URL);
        let mut lines = lines(&folder.join(format!("{class}.in-resource.ndjson")));
        while let Some(line) = lines.next_line().unwrap() {
            let name = &names[&line.number];
            let encoded = encode_with(&mut encoder, line.bytes);
            assert_eq!(encoded.is_ok(), verdicts[name], "{name}: {:?}", encoded.err());
            compared += 1;
        }
    }
    assert!(compared > 250, "{compared}");
}
