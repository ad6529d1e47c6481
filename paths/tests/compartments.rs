//! The Patient compartment: for each type and parameter of HL7's definitions a resource that is in it by that one alone,
//! made from the definitions.

mod common;

use common::stored;
use fhir_bulk_codec::fhir::Version;
use fhir_bulk_paths::search::{Compartment, find_parameter};
use serde_json::{Value, json};
use std::ops::ControlFlow;

const TYPES: [(Version, &str, usize); 3] = [
    (Version::R4, include_str!("../definitions/compartment-r4.txt"), 66),
    (Version::R4B, include_str!("../definitions/compartment-r4b.txt"), 66),
    (Version::R5, include_str!("../definitions/compartment-r5.txt"), 73),
];

/// The patients that a resource in FHIR form belongs to.
fn patients(version: Version, resource: &Value) -> Vec<String> {
    patients_with(version, resource, &[])
}

fn patients_with(version: Version, resource: &Value, bases: &[String]) -> Vec<String> {
    let compartment = Compartment::of(version, resource["resourceType"].as_str().unwrap()).unwrap();
    let stored = stored(version, &resource.to_string());
    let mut found = Vec::new();
    let _ = compartment.each_patient(stored.resource(), bases, |id| {
        found.push(String::from_utf8(id.to_vec()).unwrap());
        ControlFlow::Continue(())
    });
    found.sort();
    found.dedup();
    found
}

/// The elements of the alternatives of a parameter's expression for a type: what stands between the type and a function.
fn elements(expression: &str, resource_type: &str) -> Vec<String> {
    expression
        .split('|')
        .map(|part| part.trim().trim_matches(['(', ')']))
        .filter_map(|part| part.strip_prefix(resource_type)?.strip_prefix('.'))
        .map(|path| {
            path.split(".where(").next().unwrap().split(" as ").next().unwrap().split(".ofType(").next().unwrap()
        })
        .map(str::to_owned)
        .collect()
}

/// A resource with a reference at a path. Whether an element is a list or a choice, the definitions' table says.
fn resource_with(version: Version, resource_type: &str, path: &str, reference: &str) -> Value {
    let table = version.elements();
    let mut of = resource_type.to_owned();
    let mut steps = Vec::new();
    for name in path.split('.') {
        let line = table.lines().find(|line| line.trim_start_matches('!').starts_with(&format!("{of} "))).unwrap();
        let field = line.split(' ').find_map(|field| {
            let (found, target) = field.split_once('=')?;
            (found.trim_end_matches("[x]").trim_end_matches('*') == name).then_some((found, target))
        });
        let (found, target) = field.unwrap_or_else(|| panic!("{of} has no {name}"));
        let is_choice = found.contains("[x]");
        let member = if is_choice { format!("{name}Reference") } else { name.to_owned() };
        steps.push((member, found.contains('*')));
        of = target.to_owned();
    }
    let mut value = if of == "CodeableReference" {
        json!({"reference": {"reference": reference}})
    } else {
        json!({"reference": reference})
    };
    for (name, is_list) in steps.iter().rev() {
        value = if *is_list { json!({name: [value]}) } else { json!({name: value}) };
    }
    value["resourceType"] = resource_type.into();
    value["id"] = "x".into();
    value
}

#[test]
fn a_resource_belongs_to_a_patient_by_each_parameter_of_the_definitions_alone() {
    let mut tried = 0;
    for (version, table, count) in TYPES {
        assert_eq!(table.lines().count(), count);
        for line in table.lines() {
            let (resource_type, codes) = line.split_once('\t').unwrap();
            for code in codes.split(',').filter(|code| !code.starts_with('{')) {
                let parameter = find_parameter(version, resource_type, code)
                    .unwrap_or_else(|| panic!("{version:?} {resource_type} {code}"));
                let elements = elements(&parameter.expression, resource_type);
                assert!(!elements.is_empty(), "{resource_type} {code}: {}", parameter.expression);
                for element in elements {
                    let resource = resource_with(version, resource_type, &element, "Patient/p-1");
                    let mut expected = vec!["p-1".to_owned()];
                    if resource_type == "Patient" {
                        expected.push("x".to_owned());
                    }
                    assert_eq!(
                        patients(version, &resource),
                        expected,
                        "{version:?} {resource_type} {code}: {resource}"
                    );
                    let other = resource_with(version, resource_type, &element, "Device/p-1");
                    assert_eq!(patients(version, &other).len(), expected.len() - 1, "{other}");
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > 280, "{tried}");
}

#[test]
fn other_types_belong_to_nobody() {
    for name in ["Organization", "Practitioner", "Medication", "Location", "Individual", ""] {
        assert!(Compartment::of(Version::R4, name).is_none(), "{name}");
    }
    assert!(Compartment::of(Version::R5, "Task").is_some() && Compartment::of(Version::R4, "Task").is_none());
    assert_eq!(Compartment::types(Version::R5).count(), 73);
}

#[test]
fn references_to_ours_count_and_no_others() {
    let observation = |reference: &str| {
        json!({"resourceType": "Observation", "id": "o", "subject": {"reference": reference},
               "contained": [{"resourceType": "Patient", "id": "c"}]})
    };
    let bases = ["https://ours.example/fhir".to_owned()];
    for (reference, expected) in [
        ("Patient/p", Some("p")),
        ("https://ours.example/fhir/Patient/p", Some("p")),
        ("https://other.example/fhir/Patient/p", None),
        ("Patient/p/_history/2", None),
        ("Patient?identifier=p", None),
        ("urn:uuid:0", None),
        ("#c", None),
        ("Group/p", None),
        ("p", None),
    ] {
        let expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
        assert_eq!(patients_with(Version::R4, &observation(reference), &bases), expected, "{reference}");
    }
}

#[test]
fn a_resource_may_belong_to_several_patients() {
    let group = json!({"resourceType": "Group", "id": "g", "member": [
        {"entity": {"reference": "Patient/a"}}, {"entity": {"reference": "Device/d"}}, {"entity": {"reference": "Patient/b"}}]});
    assert_eq!(patients(Version::R4, &group), ["a", "b"]);
    let coverage = json!({"resourceType": "Coverage", "id": "c", "beneficiary": {"reference": "Patient/a"},
        "payor": [{"reference": "Organization/o"}, {"reference": "Patient/b"}]});
    assert_eq!(patients(Version::R4, &coverage), ["a", "b"]);
    let patient = json!({"resourceType": "Patient", "id": "p", "link": [{"other": {"reference": "Patient/q"}, "type": "seealso"}]});
    assert_eq!(patients(Version::R4, &patient), ["p", "q"]);
}
