//! The public test suite of SQL on FHIR, and resources as rows store them.
#![allow(dead_code)] // Each test file uses a part of it.

use fhir_bulk_codec::error::IdRule;
use fhir_bulk_codec::fhir::Version;
use fhir_bulk_codec::instant::{Micros, parse};
use fhir_bulk_codec::resource::Encoder;
use fhir_bulk_paths::item::Resource;
use fhir_bulk_views::rows::{ObjectRows, RowWriter};
use fhir_bulk_views::{Cell, Resources, Rows, View};
use serde_json::{Map, Value, json};
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::rc::Rc;

/// A resource as a row stores it.
#[derive(Clone, Debug)]
pub struct Stored {
    pub id: String,
    pub resource_type: String,
    pub last_updated: Option<Micros>,
    pub version_id: Option<i64>,
    pub jsonb: Vec<u8>,
}

impl Stored {
    /// A resource in FHIR form as a load stores it. Those of the suite may be without an id.
    pub fn new(version: Version, resource: &Value, convert_extensions: bool) -> Stored {
        let mut resource = resource.clone();
        if resource.get("id").is_none() {
            resource["id"] = json!("none");
        }
        let line = resource.to_string();
        let mut encoder = Encoder::new(IdRule::Aidbox, "ex:createdAt").from_fhir(version, convert_extensions, None);
        let encoded = encoder.encode(line.as_bytes()).unwrap_or_else(|error| panic!("{error}: {line}"));
        let mut jsonb = Vec::new();
        encoded.write(&mut jsonb).unwrap();
        Stored {
            id: encoded.id().to_owned(),
            resource_type: encoded.resource_type().unwrap_or("Basic").to_owned(),
            last_updated: resource["meta"]["lastUpdated"].as_str().and_then(parse),
            version_id: resource["meta"]["versionId"].as_str().and_then(|text| text.parse().ok()),
            jsonb,
        }
    }

    pub fn resource(&self) -> Resource<'_> {
        Resource {
            id: &self.id,
            resource_type: &self.resource_type,
            last_updated: self.last_updated,
            version_id: self.version_id,
            json: &self.jsonb,
        }
    }
}

/// Collects rows as NDJSON.
pub struct Lines<'v> {
    writer: ObjectRows,
    view: &'v View,
    pub lines: Vec<String>,
}

impl Rows for Lines<'_> {
    fn row(&mut self, resource: &Resource<'_>, cells: &[Cell<'_>]) -> ControlFlow<()> {
        let mut out = Vec::new();
        self.writer.row(resource, cells, &mut out);
        self.lines.push(String::from_utf8(out).unwrap());
        assert_eq!(cells.len(), self.view.columns().len());
        ControlFlow::Continue(())
    }
}

/// The rows of a view over resources, as JSON texts.
pub fn lines(view: &View, resources: &[Stored]) -> Result<Vec<String>, String> {
    let mut rows = Lines { writer: ObjectRows::new(view), view, lines: Vec::new() };
    let mut run = Resources::new(Rc::new(view.clone()), Vec::new(), || ());
    for stored in resources.iter().filter(|stored| stored.resource_type == view.resource_type()) {
        let done = run.rows(stored.resource(), &mut rows).map_err(|error| format!("{error:?}"))?;
        assert!(done.is_continue());
    }
    Ok(rows.lines)
}

/// A test of the suite.
pub struct Case {
    pub file: String,
    pub title: String,
    pub resources: Vec<Value>,
    pub test: Value,
}

/// All tests of the suite.
pub fn suite() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sql-on-fhir");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    let mut cases = Vec::new();
    for path in files {
        let suite: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for test in suite["tests"].as_array().unwrap() {
            cases.push(Case {
                file: path.file_name().unwrap().to_string_lossy().into_owned(),
                title: test["title"].as_str().unwrap().to_owned(),
                resources: suite["resources"].as_array().unwrap().clone(),
                test: test.clone(),
            });
        }
    }
    cases
}

impl Case {
    /// Whether the view makes the rows that it should make.
    pub fn check(&self, version: Version) -> Result<(), String> {
        let resources: Vec<Stored> =
            self.resources.iter().map(|resource| Stored::new(version, resource, true)).collect();
        let compiled = View::compile(version, &self.test["view"]);
        let made = compiled.map_err(|error| error.to_string()).and_then(|view| {
            let names: Vec<&str> = view.columns().iter().map(|column| column.name.as_str()).collect();
            match &self.test["expectColumns"] {
                Value::Null => {}
                expected if *expected == json!(names) => {}
                expected => return Err(format!("the columns are {names:?} instead of {expected}")),
            }
            lines(&view, &resources)
        });
        if self.test["expectError"] == json!(true) {
            return made.map_or(Ok(()), |lines| Err(format!("there is no error, but {lines:?}")));
        }
        let mut made: Vec<String> = made?.iter().map(|line| canonical(&serde_json::from_str(line).unwrap())).collect();
        let mut expected: Vec<String> = self.test["expect"].as_array().unwrap().iter().map(canonical).collect();
        made.sort();
        expected.sort();
        if made == expected { Ok(()) } else { Err(format!("the rows are {made:?} instead of {expected:?}")) }
    }
}

/// A row as text: without nulls, which may be left out, and with numbers as they count.
fn canonical(row: &Value) -> String {
    fn value(found: &Value) -> Value {
        match found {
            Value::Number(number) => json!(number.as_f64().unwrap().to_string()),
            Value::Array(list) => list.iter().map(value).collect(),
            other => other.clone(),
        }
    }
    let members = row.as_object().unwrap().iter().filter(|(_, found)| !found.is_null());
    let mut members: Vec<_> = members.map(|(name, found)| (name.clone(), value(found))).collect();
    members.sort_by(|(a, _), (b, _)| a.cmp(b));
    Value::Object(members.into_iter().collect::<Map<_, _>>()).to_string()
}

/// The results in the suite's own format.
pub fn report(version: Version) -> Value {
    let mut files: Map<String, Value> = Map::new();
    for case in suite() {
        let result = match case.check(version) {
            Ok(()) => json!({"passed": true}),
            Err(reason) => json!({"passed": false, "reason": reason}),
        };
        let file = files.entry(case.file).or_insert_with(|| json!({"tests": []}));
        file["tests"].as_array_mut().unwrap().push(json!({"name": case.title, "result": result}));
    }
    Value::Object(files)
}
