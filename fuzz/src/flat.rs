//! Resources as flat rows, a name of a column for each path; and what else is read of a stored resource: its identifiers, and
//! parts of it.

use crate::encode::CREATED_AT_URL;
use crate::{fhir, reference, walk};
use fhir_bulk_codec::flat::Columns;
use fhir_bulk_codec::resource::{Envelope, Form, Selection, Writer, elements, identifiers};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Checks documents, one a line, after a byte for the release and a line with the names of elements.
pub fn check(data: &[u8]) {
    let Some((&release, rest)) = data.split_first() else { return };
    let mut lines = rest.split(|byte| *byte == b'\n');
    let names = String::from_utf8_lossy(lines.next().unwrap_or_default());
    let mut rows = Vec::new();
    for line in lines {
        let Some(Ok(value)) = reference::parse(line) else { continue };
        // Bytes that no encoder of ours made.
        let Some(jsonb) = reference::jsonb(&value) else { continue };
        if value.is_object() {
            rows.push((value, jsonb));
            continue;
        }
        // No resource: a row of it is refused, and everything else reads it.
        walk::check(&value, &jsonb);
        identifiers(&jsonb, |_| panic!("it has no members"));
        let writer = Writer::new(Form::Fhir(fhir::version(release)), CREATED_AT_URL, true);
        let mut out = Vec::new();
        let refused = writer.write(&Envelope::default(), &jsonb, &mut out).is_err();
        assert!(refused && writer.write_meta(&Envelope::default(), &jsonb, &mut out).is_err() && out.is_empty());
        assert!(Columns::default().add(&jsonb).is_err());
    }
    flat(&rows);
    for (value, jsonb) in &rows {
        walk::check(value, jsonb);
        identified(value, jsonb);
        selected(release, &names, value, jsonb);
    }
}

fn flat(rows: &[(Value, Vec<u8>)]) {
    let mut columns = Columns::new();
    let mut expected: BTreeSet<String> = BTreeSet::from(["id".into(), "resourceType".into()]);
    let mut cells = Vec::new();
    for (value, jsonb) in rows {
        columns.add(jsonb).expect("few columns");
        let mut of_row = BTreeMap::from([("id".into(), "i".into()), ("resourceType".into(), "T".into())]);
        leaves(value, String::new(), &mut of_row);
        expected.extend(of_row.keys().cloned());
        cells.push(of_row);
    }
    let mut table = columns.into_table();
    let mut header = Vec::new();
    table.header(&mut header);
    let names: Vec<String> = fields(&header).into_iter().map(Option::unwrap_or_default).collect();
    assert!(names.iter().eq(&expected), "the columns are {names:?}, not {expected:?}");
    for ((_, jsonb), expected) in rows.iter().zip(&cells) {
        let mut line = Vec::new();
        table.row("i", "T", jsonb, &mut line).expect("its columns are there");
        let found = fields(&line);
        assert_eq!(found.len(), names.len());
        for (name, found) in names.iter().zip(found) {
            assert_eq!(found.as_ref(), expected.get(name), "{name}");
        }
    }
}

/// The leaves of a value by their paths, without those that are columns of a row.
fn leaves(value: &Value, path: String, out: &mut BTreeMap<String, String>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let is_of_row = match path.as_str() {
                    "" => matches!(name.as_str(), "id" | "resourceType") || name == "meta" && !value.is_object(),
                    "meta" => matches!(name.as_str(), "createdAt" | "versionId" | "lastUpdated"),
                    _ => false,
                };
                if !is_of_row {
                    let is_plain = !name.contains(|c: char| c == '.' || c == '"' || c.is_ascii_control());
                    let is_index = name.bytes().all(|byte| byte.is_ascii_digit());
                    let mut quoted = String::new();
                    reference::text(&Value::from(name.as_str()), false, &mut quoted).expect("a text");
                    leaves(value, below(if is_plain && !is_index { name } else { &quoted }), out);
                }
            }
        }
        Value::Array(elements) => {
            for (at, value) in elements.iter().enumerate() {
                leaves(value, below(&at.to_string()), out);
            }
        }
        Value::Null => {}
        Value::String(text) => drop(out.insert(path, text.clone())),
        other => {
            let mut text = String::new();
            reference::text(other, false, &mut text).expect("its jsonb was made");
            out.insert(path, text);
        }
    }
}

/// The fields of a line of CSV.
fn fields(line: &[u8]) -> Vec<Option<String>> {
    let read = crate::csv::by_definition(line, b',', "");
    read.into_iter().map(|field| field.map(|text| String::from_utf8(text).expect("UTF-8"))).collect()
}

fn identified(value: &Value, jsonb: &[u8]) {
    let mut found = Vec::new();
    identifiers(jsonb, |identifier| found.push((identifier.system.map(str::to_owned), identifier.value.to_owned())));
    let all = match &value["identifier"] {
        Value::Array(all) => all.iter().collect(),
        one @ Value::Object(_) => vec![one],
        _ => Vec::new(),
    };
    let text = |object: &Value, name: &str| object.as_object()?.get(name)?.as_str().map(str::to_owned);
    let expected: Vec<_> = all
        .into_iter()
        .filter_map(|one| Some((text(one, "system").filter(|system| !system.is_empty()), text(one, "value")?)))
        .collect();
    assert_eq!(found, expected);
}

/// A part of a resource is JSON, has what is always there, and nothing that the whole resource does not have.
fn selected(release: u8, names: &str, value: &Value, jsonb: &[u8]) {
    let version = fhir::version(release);
    let resource_type = value["resourceType"].as_str().unwrap_or("Observation");
    let row = Envelope { id: "i", resource_type, version_id: Some(1), ..Envelope::default() };
    let written = |writer: &Writer| -> Option<Map<String, Value>> {
        let mut line = Vec::new();
        writer.write(&row, jsonb, &mut line).expect("an object");
        let parsed = reference::parse(&line)?.expect("a line is JSON");
        Some(parsed.as_object().expect("an object").clone())
    };
    let elements: BTreeSet<String> = elements(names).map(str::to_owned).collect();
    let mut meta = Vec::new();
    Writer::new(Form::Fhir(version), CREATED_AT_URL, true).write_meta(&row, jsonb, &mut meta).expect("an object");
    assert!(reference::parse(&meta).is_none_or(|meta| meta.is_ok_and(|meta| meta["versionId"] == "1")));
    for form in [Form::Aidbox, Form::Fhir(version)] {
        let selection = Selection {
            elements: Some(elements.clone()),
            id: true,
            meta: false,
            type_member: "resourceType",
            subsetted: false,
        };
        let writer = || Writer::new(form, CREATED_AT_URL, true);
        let (Some(whole), Some(part)) = (written(&writer()), written(&writer().select(selection))) else { continue };
        assert_eq!((&part["id"], &part["resourceType"]), (&"i".into(), &resource_type.into()));
        for (name, found) in &part {
            assert_eq!(Some(found), whole.get(name), "{name} is in the part only");
        }
        // What stands beside a primitive comes with it, and not by itself.
        let is_element =
            |name: &&String| !name.starts_with('_') && !matches!(name.as_str(), "id" | "meta" | "resourceType");
        for name in elements.iter().filter(is_element) {
            assert_eq!(part.get(name), whole.get(name), "{name} is asked for");
        }
    }
}
