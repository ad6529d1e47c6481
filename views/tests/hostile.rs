//! Views that someone writes to do harm, and rows that no load has made.

mod common;

use allocation_counter::measure;
use common::{Stored, lines};
use fhir_bulk_codec::fhir::Version;
use fhir_bulk_codec::rows::csv::Csv;
use fhir_bulk_paths::item::Resource;
use fhir_bulk_sample::{ResourceType, Sample};
use fhir_bulk_views::rows::{CsvRows, ObjectRows, RowWriter};
use fhir_bulk_views::{Cell, Resources, Rows, View};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::ops::ControlFlow::{self, Break, Continue};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// Runs on a stack as large as PostgreSQL lets its own recursion have.
fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(2 << 20).spawn(test).unwrap().join().unwrap();
}

fn compile(view: &Value) -> Result<View, String> {
    View::compile(Version::R4, view).map_err(|error| error.to_string())
}

fn column(name: &str, path: &str) -> Value {
    json!({"name": name, "path": path})
}

/// Counts rows, and breaks after so many rows or ticks.
struct Counted {
    rows: u64,
    ticks: u64,
    most: u64,
}

impl Rows for Counted {
    fn row(&mut self, _: &Resource<'_>, _: &[Cell<'_>]) -> ControlFlow<()> {
        self.rows += 1;
        if self.rows == self.most { Break(()) } else { Continue(()) }
    }

    fn tick(&mut self) -> ControlFlow<()> {
        self.ticks += 1;
        if self.ticks == self.most { Break(()) } else { Continue(()) }
    }
}

fn patient(names: usize) -> Stored {
    let names: Vec<Value> = (0..names).map(|at| json!({"family": format!("f{at}"), "given": ["a", "b"]})).collect();
    Stored::new(Version::R4, &json!({"resourceType": "Patient", "id": "p", "name": names}), true)
}

#[test]
fn what_nests_or_multiplies_too_much_is_refused_and_less_fits_the_stack() {
    on_a_small_stack(|| {
        // A product of products: siblings multiply as well as what is inside.
        let each = |at: usize| json!({"forEach": "name", "column": [column(&format!("c{at}"), "family")]});
        let siblings =
            |count: usize| json!({"resource": "Patient", "select": (0..count).map(each).collect::<Vec<_>>()});
        let error = compile(&siblings(200)).unwrap_err();
        assert_eq!(error, "select: 201 selects nest or multiply; 100 may");
        let view = compile(&siblings(99)).unwrap();
        let mut counted = Counted { rows: 0, ticks: 0, most: 1000 };
        let row = patient(2);
        assert!(
            Resources::new(Rc::new(view.clone()), Vec::new(), || ())
                .rows(row.resource(), &mut counted)
                .unwrap()
                .is_break()
        );
        // Paths as deep as they may be, each inside of the other one.
        let deep = format!("{}true{}", "where(".repeat(45), ")".repeat(45));
        let path = format!("$this.{deep}");
        let mut select = json!({"column": [column("a", "id")]});
        let mut views = Vec::new();
        for _ in 0..60 {
            select = json!({"forEach": path, "select": [select]});
            views.push(json!({"resource": "Patient", "select": [select]}));
        }
        let fits: Vec<bool> = views.iter().map(|view| compile(view).is_ok()).collect();
        assert!(fits[5] && !fits[59]);
        let view = views.iter().filter_map(|view| compile(view).ok()).next_back().unwrap();
        assert_eq!(lines(&view, &[patient(1)]).unwrap(), [r#"{"a":"p"}"#]);
    });
}

#[test]
fn a_view_of_many_columns_or_branches_is_compiled_or_refused() {
    on_a_small_stack(|| {
        let columns =
            |count: usize| (0..count).map(|at| column(&format!("c{at}"), "name.family.first()")).collect::<Vec<_>>();
        let view = compile(&json!({"resource": "Patient", "select": [{"column": columns(10_000)}]})).unwrap();
        assert_eq!(view.columns().len(), 10_000);
        assert_eq!(lines(&view, &[patient(1)]).unwrap()[0].matches("\"f0\"").count(), 10_000);
        let error = compile(&json!({"resource": "Patient", "select": [{"column": columns(10_001)}]})).unwrap_err();
        assert_eq!(error, "select[0].column[10000]: the view has more than 10000 columns");
        let branch = json!({"forEach": "name", "column": [column("a", "family")]});
        let view = json!({"resource": "Patient", "select": [{"unionAll": vec![branch.clone(); 20_000]}]});
        assert_eq!(lines(&compile(&view).unwrap(), &[patient(2)]).unwrap().len(), 40_000);
        let view = json!({"resource": "Patient", "select": [{"unionAll": vec![branch; 60_000]}]});
        assert!(compile(&view).unwrap_err().contains("more than 100000 columns and selects"));
        let long = column("a", &format!("'{}'", "x".repeat(90_000)));
        let view = json!({"resource": "Patient", "select": [{"unionAll": vec![json!({"column": [long]}); 60]}]});
        assert!(compile(&view).unwrap_err().contains("more than 4194304 bytes"));
    });
}

#[test]
fn a_criterion_of_criteria_is_compiled_once() {
    // Each level would be compiled twice, if what is on the left were.
    let path = (0..90).fold("active".to_owned(), |inner, _| format!("({inner} = 'a')"));
    let view = compile(&json!({"resource": "Patient", "select": [{"column": [column("a", &path)]}]})).unwrap();
    assert_eq!(lines(&view, &[patient(1)]).unwrap(), [r#"{"a":null}"#]);
}

#[test]
fn a_product_is_ended_by_its_consumer_also_without_rows() {
    let each = |path: &str, at: usize| json!({"forEach": path, "column": [column(&format!("c{at}"), "family")]});
    let mut selects: Vec<Value> = (0..8).map(|at| each("name", at)).collect();
    let row = patient(100);
    for path in ["name", "name.where(false)"] {
        selects.push(each(path, selects.len()));
        let view = compile(&json!({"resource": "Patient", "select": selects})).unwrap();
        let mut counted = Counted { rows: 0, ticks: 0, most: 10_000 };
        assert!(
            Resources::new(Rc::new(view.clone()), Vec::new(), || ())
                .rows(row.resource(), &mut counted)
                .unwrap()
                .is_break()
        );
        assert!(counted.rows == 10_000 || counted.ticks == 10_000);
    }
}

#[test]
fn what_one_item_needs_too_much_of_is_an_error_and_no_lack_of_rows() {
    let many = patient(20_000);
    let quadratic =
        "name.where($this.family.exists() and %resource.name.where(family = 'none').exists()).family.first()";
    for (path, collection) in [(quadratic, false), ("name.given.join('0123456789')", false)] {
        let mut found = column("a", path);
        found["collection"] = json!(collection);
        let view = compile(&json!({"resource": "Patient", "select": [{"column": [found]}]})).unwrap();
        let found = lines(&view, std::slice::from_ref(&many));
        if path == quadratic {
            assert!(found.unwrap_err().contains("TooMuch"));
        } else {
            assert!(found.unwrap()[0].len() > 40_000);
        }
    }
    // Doubled again and again: 2^40 bytes.
    let path = (0..40).fold("id".to_owned(), |inner, _| format!("iif({inner})"));
    assert!(compile(&json!({"resource": "Patient", "select": [{"column": [column("a", &path)]}]})).is_err());
    let long = format!("name.given.join('{}')", "x".repeat(20_000));
    let view = compile(&json!({"resource": "Patient", "select": [{"column": [column("a", &long)]}]})).unwrap();
    assert!(lines(&view, &[many]).unwrap_err().contains("TooMuch"));
}

#[test]
fn elements_that_repeat_as_deep_as_documents_may_be_are_all_found() {
    on_a_small_stack(|| {
        let mut item = "{\"linkId\":\"0\"}".to_owned();
        for level in 1..480 {
            item = format!("{{\"linkId\":\"{level}\",\"item\":[{item}]}}");
        }
        let line = format!("{{\"resourceType\":\"Questionnaire\",\"id\":\"q\",\"item\":[{item}]}}");
        let mut encoder = fhir_bulk_codec::resource::Encoder::new(fhir_bulk_codec::error::IdRule::Aidbox, "")
            .from_fhir(Version::R4, true, None);
        let mut jsonb = Vec::new();
        encoder.encode(line.as_bytes()).unwrap().write(&mut jsonb).unwrap();
        let stored = Stored {
            id: "q".into(),
            resource_type: "Questionnaire".into(),
            last_updated: None,
            version_id: None,
            jsonb,
        };
        let select = json!({"repeat": ["item"], "column": [column("a", "linkId"), column("n", "%rowIndex")]});
        let view = compile(&json!({"resource": "Questionnaire", "select": [select]})).unwrap();
        let rows = lines(&view, &[stored]).unwrap();
        assert_eq!(rows.len(), 480);
        assert_eq!(rows[479], r#"{"a":"0","n":479}"#);
    });
}

#[test]
fn rows_are_made_without_an_allocation() {
    struct Written<W>(W, Vec<u8>, u64);
    impl<W: RowWriter> Rows for Written<W> {
        fn row(&mut self, resource: &Resource<'_>, cells: &[Cell<'_>]) -> ControlFlow<()> {
            self.1.clear();
            self.0.row(resource, cells, &mut self.1);
            self.2 += 1;
            Continue(())
        }
    }
    let mut text = Vec::new();
    Sample::new(7, 400).write(ResourceType::Observation, &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let resources: Vec<Stored> =
        text.lines().map(|line| Stored::new(Version::R4, &serde_json::from_str(line).unwrap(), true)).collect();
    let view = json!({"resource": "Observation", "constant": [{"name": "s", "valueString": "http://loinc.org"}],
        "where": [{"path": "status = 'final'"}],
        "select": [{"column": [
            column("id", "id"), column("patient", "subject.getReferenceKey(Patient)"), column("reference", "subject.reference"),
            column("at", "effective.ofType(dateTime)"), column("value", "value.ofType(Quantity).value"),
            column("more", "value.ofType(Quantity).value * 2 + 1"), column("unit", "value.ofType(Quantity).unit"),
            column("joined", "category.coding.code.join(',')"), column("late", "effective.ofType(dateTime) > @2015-01-01"),
            column("updated", "meta.lastUpdated")]},
            {"forEach": "code.coding.where(system = %s)", "column": [column("code", "code"), column("n", "%rowIndex")]}]});
    let view = compile(&view).unwrap();
    let mut csv = Written(CsvRows::new(&view, Csv::new(",", "").unwrap(), false), Vec::new(), 0);
    let mut objects = Written(ObjectRows::new(&view), Vec::new(), 0);
    let mut run = Resources::new(Rc::new(view.clone()), Vec::new(), || ());
    let mut all = |rows: &mut dyn Rows| {
        for stored in &resources {
            assert!(run.rows(stored.resource(), rows).unwrap().is_continue());
        }
    };
    for rows in [&mut csv as &mut dyn Rows, &mut objects] {
        // The buffers grow to the size of the largest row.
        all(rows);
        let counted = measure(|| all(rows));
        assert_eq!(counted.count_total, 0);
    }
    assert!(csv.2 > 100 && csv.2 == objects.2, "{}", csv.2);
}

/// Paths that mostly compile.
fn paths() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "name",
        "name.given",
        "name.family",
        "birthDate",
        "deceased",
        "active",
        "telecom",
        "contact",
        "contact.name",
        "id",
        "meta",
        "meta.lastUpdated",
        "extension('u')",
        "extension",
        "managingOrganization",
        "managingOrganization.reference",
        "link.other",
        "$this",
        "%resource",
        "%context",
        "%rowIndex",
        "%c",
        "1",
        "2.50",
        "'a'",
        "true",
        "{}",
        "@2020-01",
        "@T12:00",
        "maritalStatus.coding",
        "multipleBirth",
        "contained",
        "period",
        "value",
        "code",
        "system",
        "address.line",
        "communication.language",
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(5, 24, 3, |inner| {
        let unary = prop::sample::select(vec![
            "({}).first()",
            "({}).exists()",
            "({}).empty()",
            "({}).not()",
            "({})[0]",
            "({})[1]",
            "({}).where(true)",
            "({}).join(',')",
            "({}).lowBoundary()",
            "({}).highBoundary()",
            "-({})",
            "({}).getReferenceKey()",
            "({}).ofType(string)",
            "({}).getResourceKey()",
            "({}).ofType(Patient)",
            "({}) is dateTime",
            "({}).extension('u').value",
            "({}).where($this.exists())",
        ]);
        let binary = prop::sample::select(vec![
            "({}) and ({})",
            "({}) or ({})",
            "({}) xor ({})",
            "({}) implies ({})",
            "({}) = ({})",
            "({}) != ({})",
            "({}) < ({})",
            "({}) >= ({})",
            "({}) + ({})",
            "({}) - ({})",
            "({}) * ({})",
            "({}) / ({})",
            "({}) & ({})",
            "({}) | ({})",
            "({}).where({})",
            "({}).exists({})",
        ]);
        prop_oneof![
            (unary, inner.clone()).prop_map(|(form, inner)| form.replacen("{}", &inner, 1)),
            (binary, inner.clone(), inner)
                .prop_map(|(form, a, b)| form.replacen("({})", &format!("({a})"), 1).replacen("{}", &b, 1)),
        ]
    })
}

/// Selects of them.
fn selects() -> impl Strategy<Value = Value> {
    let columns = (paths(), any::<bool>())
        .prop_map(|(path, collection)| json!({"column": [{"name": "v", "path": path, "collection": collection}]}));
    columns.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (prop::sample::select(vec!["forEach", "forEachOrNull"]), paths(), inner.clone())
                .prop_map(|(name, path, inner)| json!({name: path, "select": [inner]})),
            (prop::collection::vec(paths(), 1..3), inner.clone())
                .prop_map(|(paths, inner)| json!({"repeat": paths, "select": [inner]})),
            prop::collection::vec(inner.clone(), 1..3).prop_map(|branches| json!({"unionAll": branches})),
            prop::collection::vec(inner, 1..3).prop_map(|selects| json!({"select": selects})),
        ]
    })
}

/// Gives each column a name of its own, but those of a union the same ones.
fn named(select: &mut Value, next: &mut usize) {
    for column in select.get_mut("column").and_then(Value::as_array_mut).into_iter().flatten() {
        column["name"] = json!(format!("c{next}"));
        *next += 1;
    }
    for inner in select.get_mut("select").and_then(Value::as_array_mut).into_iter().flatten() {
        named(inner, next);
    }
    let first = *next;
    for branch in select.get_mut("unionAll").and_then(Value::as_array_mut).into_iter().flatten() {
        *next = first;
        named(branch, next);
    }
}

fn documents() -> Vec<Stored> {
    let full = json!({"resourceType": "Patient", "id": "p", "active": true, "birthDate": "1970-06", "deceasedDateTime": "2020-01-01T10:00:00Z",
        "name": [{"family": "a", "given": ["b", "c"]}, {"given": ["d"]}], "telecom": [{"system": "phone", "value": "1"}],
        "contact": [{"name": {"family": "x"}, "period": {"start": "2020"}}], "multipleBirthInteger": 2,
        "extension": [{"url": "u", "valueString": "v", "extension": [{"url": "u", "valueBoolean": true}]}],
        "managingOrganization": {"reference": "Organization/o"}, "link": [{"other": {"reference": "Patient/q"}, "type": "seealso"}],
        "maritalStatus": {"coding": [{"system": "s", "code": "M"}, {"code": "N"}]},
        "contained": [{"resourceType": "Patient", "id": "c", "name": [{"family": "in"}]}]});
    let odd = json!({"resourceType": "Patient", "id": "q", "name": {"family": ["x", null]}, "active": "yes", "birthDate": 7,
        "deceasedBoolean": null, "telecom": [[], [[1]], "x", 2], "contact": [null], "extension": {"url": ["u"]}, "multipleBirthInteger": "1e400",
        "managingOrganization": "Organization/o", "contained": [{"resourceType": 1}, "x"]});
    vec![
        Stored::new(Version::R4, &full, true),
        Stored::new(Version::R4, &odd, true),
        Stored::new(Version::R4, &full, false),
    ]
}

#[test]
fn columns_that_are_found_together_are_what_each_path_finds() {
    let paths = [
        "active",
        "birthDate",
        "gender",
        "name.first().family",
        "name.first().given.first()",
        "name[0].use",
        "name.first()",
        "telecom.first().system",
        "telecom.first().value",
        "contact.first().name.family",
        "contact.first().period.start",
        "maritalStatus.coding.first().code",
        "maritalStatus.coding.first().system",
        "maritalStatus.text",
        "maritalStatus",
        "managingOrganization.reference",
        "managingOrganization.getReferenceKey()",
        "managingOrganization",
        "managingOrganization.getReferenceKey(Patient)",
        "link.first().other.reference",
        "link.first().type",
        "extension.first().url",
        "multipleBirth.ofType(integer)",
        "deceased.ofType(dateTime)",
        "deceased.ofType(boolean)",
        "photo.first().data",
        "active",
    ];
    let view = |of: &dyn Fn(&str) -> String| {
        let columns: Vec<Value> =
            paths.iter().enumerate().map(|(at, path)| column(&format!("c{at}"), &of(path))).collect();
        compile(&json!({"resource": "Patient", "select": [{"column": columns}]})).unwrap()
    };
    // A criterion is no plain path, and each is found alone.
    let (together, alone) = (view(&|path| path.to_owned()), view(&|path| format!("where(true).{path}")));
    for stored in documents() {
        let found = lines(&together, std::slice::from_ref(&stored));
        assert_eq!(found, lines(&alone, &[stored]));
        assert!(found.unwrap()[0].len() > 100);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn any_view_makes_rows_of_json_or_says_why_not(mut select in selects(), condition in prop::option::of(paths())) {
        named(&mut select, &mut 0);
        let mut view = json!({"resource": "Patient", "constant": [{"name": "c", "valueString": "a"}], "select": [select]});
        if let Some(path) = condition {
            view["where"] = json!([{"path": path}]);
        }
        if let Ok(view) = View::compile(Version::R4, &view) {
            for stored in documents() {
                for line in lines(&view, &[stored]).into_iter().flatten() {
                    let row: Value = serde_json::from_str(&line).unwrap();
                    prop_assert_eq!(row.as_object().unwrap().len(), view.columns().len());
                }
            }
        }
    }

    #[test]
    fn damaged_bytes_end_a_view_at_worst_by_unwinding(select in selects(), at in any::<prop::sample::Index>(), word in any::<u32>()) {
        let mut select = select;
        named(&mut select, &mut 0);
        let view = json!({"resource": "Patient", "constant": [{"name": "c", "valueString": "a"}], "select": [select]});
        if let Ok(view) = View::compile(Version::R4, &view) {
            for mut stored in documents() {
                let at = at.index(stored.jsonb.len() / 4) * 4;
                stored.jsonb[at..at + 4].copy_from_slice(&word.to_le_bytes());
                let mut counted = Counted { rows: 0, ticks: 0, most: 10_000 };
                let _ = catch_unwind(AssertUnwindSafe(|| {
                    let _ = Resources::new(Rc::new(view.clone()), Vec::new(), || ()).rows(stored.resource(), &mut counted);
                }));
            }
        }
    }
}
