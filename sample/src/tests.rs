//! Tests of the sample.

use std::collections::{BTreeSet, HashSet};

use serde_json::Value;

use super::*;

const SIZE: u64 = 6000;

fn all(of: ResourceType, sample: &Sample) -> String {
    let mut bytes = Vec::new();
    let written = sample.write(of, &mut bytes).unwrap();
    assert_eq!(written.bytes, bytes.len() as u64);
    assert_eq!(written.resources, sample.count(of));
    String::from_utf8(bytes).unwrap()
}

fn everything(sample: &Sample) -> String {
    ResourceType::ALL.map(|t| all(t, sample)).concat()
}

#[test]
fn the_same_arguments_give_the_same_bytes() {
    let text = everything(&Sample::new(7, SIZE));
    assert_eq!(text, everything(&Sample::new(7, SIZE)));
    assert_ne!(text, everything(&Sample::new(8, SIZE)));
}

#[test]
fn counts_add_up_for_any_size() {
    for size in [13, 14, 27, 100, 999, 20_000, 1_000_003] {
        assert_eq!(Sample::new(0, size).total(), size);
    }
    assert_eq!(Sample::new(0, 0).total(), 13, "one of each type at least");
    for patients in [1, 2, 50, 615] {
        assert_eq!(Sample::of_patients(0, patients).count(Patient), patients);
    }
    let sample = Sample::new(0, SIZE);
    for of in ResourceType::ALL {
        let lines = all(of, &sample).lines().count() as u64;
        assert_eq!(lines, sample.count(of), "{of:?}");
    }
}

#[test]
fn the_mixed_form_has_the_same_lines() {
    for size in [13, 40, SIZE] {
        let sample = Sample::new(7, size);
        let mut mixed = Vec::new();
        sample.write_mixed(&mut mixed).unwrap();
        let mixed = String::from_utf8(mixed).unwrap();
        let typed = everything(&sample);
        assert_eq!(mixed.len(), typed.len());
        assert_eq!(mixed.lines().collect::<BTreeSet<_>>(), typed.lines().collect());
    }
}

#[test]
fn every_line_is_a_resource_with_an_id_of_its_own() {
    let sample = Sample::new(7, SIZE);
    let mut ids = HashSet::new();
    let mut plain = 0;
    for of in ResourceType::ALL {
        for line in all(of, &sample).lines() {
            let resource: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            assert_eq!(resource["resourceType"], of.name());
            let id = resource["id"].as_str().unwrap();
            assert!((1..=64).contains(&id.len()), "{id}");
            assert!(id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.'), "{id}");
            plain += u64::from(id.contains('.'));
            assert!(ids.insert(format!("{of:?}/{id}")), "{id} twice");
        }
    }
    assert!(plain > SIZE / 50);
}

#[test]
fn relative_references_lead_somewhere() {
    let text = everything(&Sample::new(7, SIZE));
    let mut ids = HashSet::new();
    let mut references = Vec::new();
    for line in text.lines() {
        let resource: Value = serde_json::from_str(line).unwrap();
        ids.insert(format!("{}/{}", resource["resourceType"].as_str().unwrap(), resource["id"].as_str().unwrap()));
        collect_references(&resource, &mut references);
    }
    let relative: Vec<_> = references.iter().filter(|r| !r.contains(':') && !r.starts_with('#')).collect();
    assert!(relative.len() > SIZE as usize);
    for reference in relative {
        assert!(ids.contains(reference), "{reference}");
    }
    for start in ["#", "urn:uuid:", "https://ehr.example.org/fhir/", "https://other.example.com/"] {
        assert!(references.iter().any(|r| r.starts_with(start)), "{start}");
    }
}

fn collect_references(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get("reference") {
                into.push(reference.clone());
            }
            members.values().for_each(|v| collect_references(v, into));
        }
        Value::Array(items) => items.iter().for_each(|v| collect_references(v, into)),
        _ => {}
    }
}

/// What makes the sample worth loading. A change of the generator must not lose any of it.
#[test]
fn all_features_occur() {
    let text = everything(&Sample::new(7, SIZE));
    let missing: Vec<_> = FEATURES.iter().filter(|f| !text.contains(**f)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

const FEATURES: &[&str] = &[
    // choice elements
    r#""valueQuantity":{"#,
    r#""valueCodeableConcept":{"#,
    r#""valueString":""#,
    r#""valueBoolean":true"#,
    r#""valueInteger":"#,
    r#""valueRange":{"#,
    r#""valueRatio":{"#,
    r#""valueSampledData":{"#,
    r#""valueTime":""#,
    r#""valueDateTime":""#,
    r#""valuePeriod":{"#,
    r#""effectiveDateTime":""#,
    r#""effectivePeriod":{"#,
    r#""effectiveInstant":""#,
    r#""effectiveTiming":{"#,
    r#""boundsRange":{"#,
    r#""boundsDuration":{"#,
    r#""boundsPeriod":{"#,
    r#""onsetDateTime":""#,
    r#""onsetAge":{"#,
    r#""onsetString":""#,
    r#""onsetPeriod":{"#,
    r#""onsetRange":{"#,
    r#""abatementDateTime":""#,
    r#""abatementAge":{"#,
    r#""abatementString":""#,
    r#""deceasedBoolean":"#,
    r#""deceasedDateTime":""#,
    r#""multipleBirthInteger":"#,
    r#""multipleBirthBoolean":"#,
    r#""medicationCodeableConcept":{"#,
    r#""medicationReference":{"reference":"#,
    r#""occurrenceDateTime":""#,
    r#""occurrenceString":""#,
    r#""performedPeriod":{"#,
    r#""performedDateTime":""#,
    r#""performedString":""#,
    r#""performedAge":{"#,
    r#""doseQuantity":{"#,
    r#""doseRange":{"#,
    r#""rateRatio":{"#,
    r#""asNeededBoolean":"#,
    r#""asNeededCodeableConcept":{"#,
    r#""reportedBoolean":"#,
    r#""reportedReference":{"#,
    r#""allowedBoolean":"#,
    r#""allowedCodeableConcept":{"#,
    r#""itemCodeableConcept":{"#,
    r#""itemReference":{"#,
    r#""authorString":""#,
    r#""authorReference":{"#,
    r#""doseNumberPositiveInt":"#,
    r#""doseNumberString":""#,
    r#""collectedDateTime":""#,
    r#""collectedPeriod":{"#,
    r#""fastingStatusCodeableConcept":{"#,
    // extensions: nested, of primitives, beside a null
    r#""extension":[{"extension":[{"url":"ombCategory","valueCoding":{"#,
    r#""valueCode":""#,
    r#""valueAddress":{"#,
    r#""valueDecimal":"#,
    r#""valueMarkdown":""#,
    r#""_birthDate":{"extension":"#,
    r#""_valueString":{"#,
    r#""_effectiveDateTime":{"#,
    r#",null],"_given":[null,{"#,
    // meta
    r#""meta":{"profile":["#,
    r#""tag":["#,
    r#""meta":{"versionId":"#,
    r#""lastUpdated":"#,
    r#""meta":{"extension":"#,
    // references
    r##""reference":"#med""##,
    r##""reference":"#spec""##,
    r##""reference":"#org1""##,
    r#""reference":"urn:uuid:"#,
    r#""type":"Practitioner","identifier":{"#,
    // text
    r#"<div xmlns=\"http://www.w3.org/1999/xhtml\">\n"#,
    "Иванова",
    "王",
    "محمد",
    "Núñez",
    "\u{1F33B}",
    "\u{20BB7}",
    r"\ud83d\ude00",
    r"M\u00fcller",
    r"\t",
    r"\r\n",
    r"\/",
    r"\\",
    // numbers whose digits count
    ":36.60,",
    ":1.10,",
    ":0.0,",
    ":0.0}",
    ":-12.3456789012345678901234567890123456789000",
];
