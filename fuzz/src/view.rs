//! ViewDefinitions over stored resources: compiled or refused, and all formats have the same rows.

use crate::encode::{CREATED_AT_URL, encode};
use crate::fhir::version;
use fhir_bulk_codec::error::IdRule;
use fhir_bulk_codec::resource::Encoder;
use fhir_bulk_codec::rows::csv::Csv;
use fhir_bulk_paths::item::Resource;
use fhir_bulk_views::rows::{CsvRows, ObjectRows, RowWriter, SqlRows};
use fhir_bulk_views::{Cell, Resources, Rows, View};
use serde_json::Value;
use std::ops::ControlFlow::{self, Break, Continue};
use std::rc::Rc;

/// After so many rows, or looks whether to go on, the view ends.
const MOST: usize = 200;

struct Written {
    objects: ObjectRows,
    csv: CsvRows,
    sql: SqlRows,
    columns: Vec<String>,
    left: usize,
}

impl Rows for Written {
    fn row(&mut self, resource: &Resource<'_>, cells: &[Cell<'_>]) -> ControlFlow<()> {
        assert_eq!(cells.len(), self.columns.len());
        let (mut object, mut line, mut values) = (Vec::new(), Vec::new(), Vec::new());
        self.objects.row(resource, cells, &mut object);
        self.csv.row(resource, cells, &mut line);
        self.sql.row(resource, cells, &mut values);
        let values = String::from_utf8(values).expect("UTF-8");
        assert!(values.contains("\n(") && values.ends_with([')', ';']), "{values}");
        let fields = crate::csv::by_definition(&line, b',', "");
        assert_eq!(fields.len(), self.columns.len().max(1), "{}", String::from_utf8_lossy(&line));
        if let Some(object) = crate::reference::parse(&object) {
            let object = object.expect("a row is JSON");
            let members = object.as_object().expect("a row is an object");
            assert!(self.columns.iter().all(|name| members.contains_key(name)) && members.len() == self.columns.len());
            for (name, field) in self.columns.iter().zip(&fields) {
                assert_eq!(object[name].is_null(), field.is_none(), "{name}: {object} and {field:?}");
                if let (Value::String(text), Some(field)) = (&object[name], field) {
                    assert_eq!(text.as_bytes(), field, "{name}");
                }
            }
        }
        self.tick()
    }

    fn tick(&mut self) -> ControlFlow<()> {
        self.left -= 1;
        if self.left == 0 { Break(()) } else { Continue(()) }
    }
}

/// Checks a view, and resources in FHIR form on the lines after it, after a byte for the release.
pub fn check(data: &[u8]) {
    let Some((&release, rest)) = data.split_first() else { return };
    let mut lines = rest.split(|byte| *byte == b'\n');
    let Some(Some(Ok(definition))) = lines.next().map(crate::reference::parse) else { return };
    let version = version(release);
    let Ok(view) = View::compile(version, &definition) else { return };
    let view = Rc::new(view);
    view.columns().iter().for_each(|column| drop(column.sql_type()));
    let mut resources = Resources::new(view.clone(), vec!["https://ours.example/fhir".to_owned()], || ());
    let mut encoder = Encoder::new(IdRule::Aidbox, CREATED_AT_URL).from_fhir(version, true, None);
    for line in lines {
        let Ok(stored) = encode(&mut encoder, line) else { continue };
        let resource = Resource {
            id: &stored.id,
            resource_type: view.resource_type(),
            last_updated: Some(700_000_000_000_000),
            version_id: Some(3),
            json: &stored.jsonb,
        };
        let mut rows = Written {
            objects: ObjectRows::new(&view),
            csv: CsvRows::new(&view, Csv::new(",", "").expect("a comma"), true),
            sql: SqlRows::new(&view, "t", 2),
            columns: view.columns().iter().map(|column| column.name.clone()).collect(),
            left: MOST,
        };
        if let Ok(Break(())) | Err(_) = resources.rows(resource, &mut rows) {
            return;
        }
    }
}
