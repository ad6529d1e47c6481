//! The same expressions over the same resources, here and in fhirpath.js, the implementation of HL7 and NLM's, which
//! `scripts/setup.sh --tests` puts into `target/fhirpath-js`.
//!
//! Items are compared as FHIR JSON. What differs by design:
//! - a union removes equal items in FHIRPath and keeps them here, which a search cannot tell: the script evaluates the
//!   alternatives of a union one by one;
//! - HL7's expressions have `as` for several items, where FHIRPath allows `ofType` only, a type `DateTime`, and a function
//!   `hasExtension`: the script writes them as FHIRPath does;
//! - fhirpath.js would ask a server for `resolve()`: the script has an own one, which tells the type by the reference;
//! - numbers are compared as floating point numbers, since JavaScript has no others.

#[path = "../common/mod.rs"]
mod common;

use common::Stored;
use fhir_bulk_codec::fhir::Version;
use fhir_bulk_codec::instant;
use fhir_bulk_codec::resource::write_value;
use fhir_bulk_paths::compile::{Compiled, compile, compile_within};
use fhir_bulk_paths::item::{Item, Value as Found};
use fhir_bulk_paths::model::Model;
use fhir_bulk_paths::program::Scope;
use fhir_bulk_paths::search::{Definition, all_parameters};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::ops::ControlFlow::Continue;
use std::path::Path;
use std::process::{Command, Stdio};

/// An expression for a type, compiled.
struct Compared {
    resource_type: &'static str,
    code: String,
    expression: String,
    parts: Vec<String>,
    base: Compiled,
    programs: Vec<Compiled>,
}

/// All parameters of a release for all types that `resources` have, if they compile here.
fn compared(version: Version, resource_types: &BTreeSet<String>) -> Vec<Compared> {
    let model = Model::of(version);
    let mut all = Vec::new();
    for Definition { code, base, expression, components, .. } in all_parameters(version) {
        if expression.is_empty() {
            continue;
        }
        let is_base = |name: &&String| {
            base.iter().any(|base| base == *name || matches!(base.as_str(), "Resource" | "DomainResource"))
        };
        for resource_type in resource_types.iter().filter(is_base) {
            let Ok(Some(found)) = compile(model, resource_type, &expression) else { continue };
            let parts: Vec<String> = components.iter().map(|component| component.expression.clone()).collect();
            let part = |part: &String| compile_within(model, resource_type, &found, part).ok().flatten();
            let Some(programs) = parts.iter().map(part).collect() else { continue };
            let resource_type = model.name(model.find(resource_type).unwrap());
            let (code, expression, base) = (code.clone(), expression.clone(), found);
            all.push(Compared { resource_type, code, expression, parts, base, programs });
        }
    }
    all
}

/// An item as FHIR JSON.
fn written(version: Version, item: &Item<'_>, line: &Value) -> Value {
    match item.value {
        Found::Root(_) => json!({"$resource": true}),
        Found::Text(text) => json!(text),
        Found::Boolean(value) => json!(value),
        // A column does not keep how the time was written.
        Found::Instant(at) => {
            let text = &line["meta"]["lastUpdated"];
            assert_eq!(text.as_str().and_then(instant::parse), Some(at), "{line}");
            text.clone()
        }
        Found::Json(value) => {
            let mut out = Vec::new();
            write_value(version, Model::of(version).name(item.type_id), value, &mut out);
            serde_json::from_slice(&out).unwrap()
        }
        _ => panic!("search parameters find what is stored"),
    }
}

/// What a program finds in a resource.
fn items<'j>(program: &Compiled, stored: &'j Stored, this: Item<'j>) -> Vec<Item<'j>> {
    let mut found = Vec::new();
    let scope = Scope::new(stored.resource(), &[]);
    let _ = program.program.run(&scope, this, &mut |item| {
        found.push(item);
        Continue(())
    });
    found
}

/// The same value for equal items: numbers are what JavaScript makes of them, what only a row's columns have is left out.
fn normalized(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(format!("number {}", number.to_string().parse::<f64>().unwrap())),
        Value::Array(elements) => elements.iter().map(normalized).collect(),
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), normalized(value))).collect(),
        other => other.clone(),
    }
}

/// Items in an order that does not depend on how they were found, each once if `is_set`.
fn sorted(items: impl IntoIterator<Item = Value>) -> Vec<String> {
    let mut items: Vec<String> = items.into_iter().map(|item| normalized(&item).to_string()).collect();
    items.sort();
    items
}

/// What fhirpath.js says, a line for each resource.
fn asked(version: Version, all: &[Compared], lines: &[String], mut answer: impl FnMut(usize, Value)) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = here.join("../target/fhirpath-js");
    let package = folder.join("node_modules/fhirpath");
    assert!(package.exists(), "scripts/setup.sh --tests installs {}", package.display());
    let release = if version == Version::R5 { "r5" } else { "r4" };
    let mut node = Command::new("node")
        .arg(here.join("tests/oracle/fhirpath.js"))
        .args([folder.as_os_str(), release.as_ref()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("scripts/setup.sh --tests installs node");
    let (mut input, output) = (node.stdin.take().unwrap(), BufReader::new(node.stdout.take().unwrap()));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let wanted: Value = all
                .iter()
                .map(|one| json!({"type": one.resource_type, "expression": one.expression, "parts": one.parts}))
                .collect();
            writeln!(input, "{wanted}").unwrap();
            for line in lines {
                writeln!(input, "{line}").unwrap();
            }
        });
        let mut count = 0;
        for line in output.lines() {
            answer(count, serde_json::from_str(&line.unwrap()).unwrap());
            count += 1;
        }
        assert_eq!(count, lines.len(), "fhirpath.js ended early");
    });
    assert!(node.wait().unwrap().success());
}

/// What a comparison has seen.
#[derive(Default)]
struct Seen {
    /// How many answers were equal, and how many of them had items.
    equal: usize,
    with_items: usize,
    /// Parameters, as `Type.code`, of which there was an item.
    parameters: BTreeSet<String>,
    /// What differs or fails, by parameter, with the first example.
    different: BTreeMap<String, String>,
    failures: BTreeMap<String, String>,
}

fn compare(version: Version, lines: &[String]) -> Seen {
    let type_of = |line: &String| {
        let resource: Value = serde_json::from_str(line).unwrap();
        resource["resourceType"].as_str().unwrap().to_owned()
    };
    let all = compared(version, &lines.iter().map(type_of).collect());
    let mut seen = Seen::default();
    asked(version, &all, lines, |at, answer| {
        let stored = common::stored(version, &lines[at]);
        let line: Value = serde_json::from_str(&lines[at]).unwrap();
        let list = |name: &str| -> BTreeMap<u64, Value> {
            let pairs = answer[name].as_array().unwrap().iter();
            pairs.map(|pair| (pair[0].as_u64().unwrap(), pair[1].clone())).collect()
        };
        let (answers, failures) = (list("answers"), list("failures"));
        for (number, one) in all.iter().enumerate().filter(|(_, one)| one.resource_type == stored.resource_type) {
            let name = format!("{}.{}", one.resource_type, one.code);
            if let Some(failure) = failures.get(&(number as u64)) {
                seen.failures.entry(name).or_insert_with(|| format!("{}: {failure}", one.expression));
                continue;
            }
            let theirs = answers.get(&(number as u64)).and_then(Value::as_array).cloned().unwrap_or_default();
            let bases = items(&one.base, &stored, stored.resource().item());
            let by_text = BY_REFERENCES_TEXT.contains(&name.as_str());
            let write = |found: Vec<Item<'_>>| -> Vec<Value> {
                let values = found.iter().map(|item| written(version, item, &line));
                values.map(|value| value.get("reference").filter(|_| by_text).cloned().unwrap_or(value)).collect()
            };
            let ours: Vec<Vec<Value>> = if one.parts.is_empty() {
                vec![write(bases)]
            } else {
                let of = |part: &Compiled| bases.iter().flat_map(|base| items(part, &stored, *base)).collect();
                one.programs.iter().map(|part| write(of(part))).collect()
            };
            let theirs: Vec<Vec<Value>> = if one.parts.is_empty() {
                vec![theirs]
            } else {
                theirs.iter().map(|part| part.as_array().unwrap().clone()).collect()
            };
            let sorted = |lists: Vec<Vec<Value>>| -> Vec<_> {
                lists.into_iter().map(sorted).filter(|list| !list.is_empty()).collect()
            };
            let (ours, theirs) = (sorted(ours), sorted(theirs));
            if ours == theirs {
                seen.equal += 1;
                if !ours.is_empty() {
                    seen.with_items += 1;
                    seen.parameters.insert(name);
                }
            } else {
                let id = &stored.id;
                let told = || format!("{} in {id}:\n  here   {ours:?}\n  theirs {theirs:?}", one.expression);
                seen.different.entry(name).or_insert_with(told);
            }
        }
    });
    seen
}

/// `Reference.reference`: Aidbox's form has no such text, so here the Reference stands for it.
const BY_REFERENCES_TEXT: [&str; 1] = ["Encounter.location-period"];

/// What US Core asks for, and what clients of Bulk Data Access send although R4 does not define it.
const US_CORE: &str = "
    AllergyIntolerance patient clinical-status date
    CarePlan patient category status date
    CareTeam patient status role
    Condition patient category clinical-status code encounter onset-date abatement-date asserted-date recorded-date recorder-date _lastUpdated
    Coverage patient
    Device patient type status
    DiagnosticReport patient category code date status issued _lastUpdated
    DocumentReference _id patient category type date period status
    Encounter _id identifier patient class date type location status discharge-disposition _lastUpdated
    Goal patient lifecycle-status description target-date
    Immunization patient status date
    Location name address address-city address-state address-postalcode
    MedicationDispense patient status type
    MedicationRequest patient intent status encounter authoredon
    Observation patient category code date status issued _lastUpdated
    Organization name address
    Patient _id identifier name family birthdate death-date race ethnicity
    Practitioner _id identifier name
    PractitionerRole specialty practitioner
    Procedure patient code date status
    QuestionnaireResponse _id patient status authored questionnaire
    RelatedPerson _id patient name
    ServiceRequest _id patient category code authored status
    Specimen _id patient";

/// What HL7's examples have no values for.
const OWN: [&str; 7] = [
    r#"{"resourceType":"Patient","id":"us","extension":[
        {"url":"http://hl7.org/fhir/us/core/StructureDefinition/us-core-race","extension":[
            {"url":"ombCategory","valueCoding":{"system":"urn:oid:2.16.840.1.113883.6.238","code":"2106-3"}},
            {"url":"detailed","valueCoding":{"system":"urn:oid:2.16.840.1.113883.6.238","code":"1586-7"}},
            {"url":"text","valueString":"White"}]},
        {"url":"http://hl7.org/fhir/us/core/StructureDefinition/us-core-ethnicity","extension":[
            {"url":"ombCategory","valueCoding":{"system":"urn:oid:2.16.840.1.113883.6.238","code":"2186-5"}},
            {"url":"text","valueString":"Not Hispanic"}]}]}"#,
    r#"{"resourceType":"Condition","id":"us","meta":{"lastUpdated":"2024-05-06T07:08:09.123+02:00"},
        "subject":{"reference":"https://example.org/fhir/Patient/us/_history/1"},"recordedDate":"2024-05",
        "encounter":{"reference":"Encounter/us"},"extension":[
            {"url":"http://hl7.org/fhir/StructureDefinition/condition-assertedDate","valueDateTime":"2024-05-06"}]}"#,
    r#"{"resourceType":"Device","id":"us","type":{"text":"Pump"},"patient":{"reference":"urn:uuid:us"}}"#,
    r#"{"resourceType":"DiagnosticReport","id":"us","meta":{"lastUpdated":"2024-05-06T07:08:09Z"}}"#,
    r#"{"resourceType":"Encounter","id":"us","meta":{"lastUpdated":"2024-05-06T07:08:09Z"}}"#,
    r#"{"resourceType":"Observation","id":"us","meta":{"lastUpdated":"2024-05-06T07:08:09Z"},
        "subject":{"type":"Patient","identifier":{"value":"1"}}}"#,
    r##"{"resourceType":"Observation","id":"us-2","contained":[{"resourceType":"Patient","id":"p"}],
        "subject":{"reference":"#p"}}"##,
];

/// Compares, and fails with what is different.
fn all_equal(version: Version, name: &str, lines: &[String]) -> Seen {
    let seen = compare(version, lines);
    println!(
        "{name}: {} resources, {} answers equal, {} of them with items, of {} parameters",
        lines.len(),
        seen.equal,
        seen.with_items,
        seen.parameters.len()
    );
    assert!(seen.different.is_empty() && seen.failures.is_empty(), "{:#?}\n{:#?}", seen.different, seen.failures);
    seen
}

#[test]
fn every_parameter_of_r4_finds_what_fhirpath_js_finds() {
    let mut lines = common::examples(Version::R4);
    lines.extend(common::generated());
    lines.extend(OWN.map(|line| line.replace('\n', "")));
    let seen = all_equal(Version::R4, "R4", &lines);
    assert!(seen.with_items > 13_000 && seen.parameters.len() > 1350);
    let mut missing = Vec::new();
    for line in US_CORE.trim().lines() {
        let mut names = line.split_whitespace();
        let resource_type = names.next().unwrap();
        let names = names.map(|code| format!("{resource_type}.{code}"));
        missing.extend(names.filter(|name| !seen.parameters.contains(name)));
    }
    assert!(missing.is_empty(), "no values of {missing:?}");
}

#[test]
fn every_parameter_of_r5_finds_what_fhirpath_js_finds() {
    let seen = all_equal(Version::R5, "R5", &common::examples(Version::R5));
    assert!(seen.with_items > 9000 && seen.parameters.len() > 1800);
}

#[test]
fn so_do_they_over_the_data_beside_the_checkout() {
    for (version, file) in [
        (Version::R4, "hl7-examples/r4.examples.ndjson.gz"),
        (Version::R5, "hl7-examples/r5.examples.ndjson.gz"),
        (Version::R4, "synthea-small/all.ndjson.gz"),
    ] {
        let lines = common::shared_lines(file);
        if !lines.is_empty() {
            all_equal(version, file, &lines);
        }
    }
}

/// fhirpath.js has no definitions of R4B, which has the examples of R4 but for some types: those of R4 are near enough.
#[test]
fn every_parameter_of_r4b_finds_what_fhirpath_js_finds() {
    let mut lines = common::examples(Version::R4);
    lines.retain(|line| {
        let resource: Value = serde_json::from_str(line).unwrap();
        Version::R4B.has_resource_type(resource["resourceType"].as_str().unwrap())
    });
    let seen = all_equal(Version::R4B, "R4B", &lines);
    assert!(seen.with_items > 6500 && seen.parameters.len() > 1300);
}
