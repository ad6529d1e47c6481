//! Resources as flat rows, against a flattening of their JSON text that knows nothing of jsonb.

mod common;

use common::{encode, numeric_text};
use fhir_bulk_codec::error::IdRule;
use fhir_bulk_codec::flat::{Columns, Problem, Table};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Names that spell the paths of others, or that CSV and JSON have a meaning for.
const NAMES: [&str; 16] =
    ["a", "b", "code", "0", "1", "10", "a.0", "", ".", "\"a.0\"", "a\"", "a,b", "line\nend", "Zoë", "id", "meta"];

/// A path as the name of a column.
fn column(path: &[Result<String, usize>]) -> String {
    let part = |step: &Result<String, usize>| match step {
        Err(index) => index.to_string(),
        Ok(name) if name.contains(['.', '"', '\n']) || name.bytes().all(|byte| byte.is_ascii_digit()) => {
            serde_json::to_string(name).unwrap()
        }
        Ok(name) => name.clone(),
    };
    path.iter().map(part).collect::<Vec<_>>().join(".")
}

fn flatten(value: &Value, path: &mut Vec<Result<String, usize>>, cells: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                path.push(Ok(name.clone()));
                flatten(value, path, cells);
                path.pop();
            }
        }
        Value::Array(elements) => {
            for (index, value) in elements.iter().enumerate() {
                path.push(Err(index));
                flatten(value, path, cells);
                path.pop();
            }
        }
        Value::Null => {}
        Value::Bool(_) => assert!(cells.insert(column(path), value.to_string()).is_none()),
        Value::Number(number) => assert!(cells.insert(column(path), numeric_text(&number.to_string())).is_none()),
        Value::String(text) => assert!(cells.insert(column(path), text.clone()).is_none()),
    }
}

fn field(text: &str) -> String {
    let special = text.is_empty() || text.contains([',', '"', '\n', '\r']);
    if special { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

/// The table as it has to be: the header, and a line for each resource.
fn expected(resources: &[Value]) -> Vec<String> {
    let rows: Vec<BTreeMap<String, String>> = resources
        .iter()
        .map(|resource| {
            let mut cells = BTreeMap::new();
            flatten(resource, &mut Vec::new(), &mut cells);
            cells
        })
        .collect();
    let own = ["id", "resourceType"].map(str::to_owned);
    let columns: BTreeSet<&String> = rows.iter().flat_map(BTreeMap::keys).chain(&own).collect();
    let line = |fields: Vec<String>| fields.join(",");
    let cell =
        |row: &BTreeMap<String, String>, name: &String| row.get(name).map(|text| field(text)).unwrap_or_default();
    let header = line(columns.iter().map(|name| field(name)).collect());
    let rows = rows.iter().map(|row| line(columns.iter().map(|name| cell(row, name)).collect()));
    [header].into_iter().chain(rows).collect()
}

/// A resource in its row: id, type, jsonb.
type Stored = (String, String, Vec<u8>);

fn stored(resource: &Value) -> Stored {
    let line = resource.to_string();
    let stored = encode(IdRule::Aidbox, &line).unwrap_or_else(|error| panic!("{line}: {error}"));
    (stored.id, resource["resourceType"].as_str().unwrap_or("Patient").to_owned(), stored.jsonb)
}

fn table(rows: &[Stored]) -> Table {
    let mut columns = Columns::new();
    rows.iter().for_each(|(.., jsonb)| columns.add(jsonb).unwrap());
    columns.into_table()
}

fn written(resources: &[Value]) -> Vec<String> {
    let rows: Vec<Stored> = resources.iter().map(stored).collect();
    let mut table = table(&rows);
    let mut lines = vec![Vec::new()];
    table.header(&mut lines[0]);
    for (id, resource_type, jsonb) in &rows {
        let mut line = Vec::new();
        table.row(id, resource_type, jsonb, &mut line).unwrap();
        lines.push(line);
    }
    lines.into_iter().map(|line| String::from_utf8(line).unwrap()).collect()
}

#[test]
fn the_documented_table_comes_out_byte_for_byte() {
    let patient = |id: &str, given: &str| json!({"id": id, "resourceType": "Patient", "name": [{"given": [given]}]});
    let mut charles = patient("pt-3", "Charles");
    charles["citizenship"] = json!([{"code": {"text": "ru"}}]);
    assert_eq!(
        written(&[patient("pt-1", "Alice"), patient("pt-2", "Bob"), charles]),
        [
            "citizenship.0.code.text,id,name.0.given.0,resourceType",
            ",pt-1,Alice,Patient",
            ",pt-2,Bob,Patient",
            "ru,pt-3,Charles,Patient",
        ]
    );
    assert_eq!(written(&[]), ["id,resourceType"]);
}

#[test]
fn paths_that_would_have_the_same_name_have_columns_of_their_own() {
    let resource = json!({"id": "x", "resourceType": "T", "a": ["index"], "a.0": "dot", "b": {"0": "digit"}, "\"a.0\"": "quotes",
        "": "empty", "c": {"": {"": "deep"}}, "d": [{"": "element"}]});
    let second = json!({"id": "y", "resourceType": "T", "a": "leaf", "b": ["index"]});
    let lines = written(&[resource.clone(), second.clone()]);
    assert_eq!(lines, expected(&[resource, second]));
    let header = [
        r#""""""""#,
        r#""""\""a.0\""""""#,
        r#""""a.0""""#,
        "a",
        "a.0",
        r#""b.""0""""#,
        "b.0",
        r#""c."""".""""""#,
        r#""d.0.""""""#,
        "id",
        "resourceType",
    ];
    assert_eq!(lines[0], header.join(","));
}

#[test]
fn what_the_rows_columns_have_is_not_taken_from_the_jsonb() {
    let whole = json!({"id": "x", "resourceType": "T", "meta": {"profile": ["p"], "tag": [], "versionId": "7"},
        "contained": [{"id": "c", "resourceType": "B", "meta": {"versionId": "1"}}]});
    assert_eq!(
        written(&[whole]),
        [
            "contained.0.id,contained.0.meta.versionId,contained.0.resourceType,id,meta.profile.0,resourceType",
            "c,1,B,x,p,T",
        ]
    );
    // A jsonb that was not stored by a load. An element is a jsonb of its own.
    let around = json!({"id": "x", "a": {"id": "other", "resourceType": "U", "meta": {"lastUpdated": "t", "createdAt": "t", "source": "s"}}});
    let (.., jsonb) = stored(&around);
    let row = ("x".to_owned(), "T".to_owned(), jsonb[16..].to_vec());
    let mut table = table(std::slice::from_ref(&row));
    let mut out = Vec::new();
    table.header(&mut out);
    out.push(b'\n');
    table.row(&row.0, &row.1, &row.2, &mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), "id,meta.source,resourceType\nx,s,T");
}

#[test]
fn nulls_and_empty_containers_are_like_missing_and_empty_strings_are_not() {
    let resources = [
        json!({"id": "x", "resourceType": "T", "n": null, "o": {}, "l": [], "deep": [[], {"x": {}}, null], "s": ""}),
        json!({"id": "y", "resourceType": "T", "deep": [null, null, true]}),
    ];
    assert_eq!(written(&resources), ["deep.2,id,resourceType,s", ",x,T,\"\"", "true,y,T,"]);
}

#[test]
fn a_thousand_levels_need_no_stack() {
    let deep =
        (0..990).fold(json!("leaf"), |inner, level| if level % 2 == 0 { json!([inner]) } else { json!({"x": inner}) });
    let bare = (0..990).fold(json!([]), |inner, _| json!([inner]));
    let resources = [json!({"id": "1", "resourceType": "T", "deep": deep, "bare": bare})];
    let lines = std::thread::Builder::new().stack_size(8 << 20);
    let lines = lines.spawn(move || written(&resources)).unwrap().join().unwrap();
    assert_eq!(lines[0], format!("deep{},id,resourceType", ".x.0".repeat(495)));
    assert_eq!(lines[1], "leaf,1,T");
}

#[test]
fn a_table_has_its_limits_and_says_which() {
    let wide = |first: usize, count: usize| {
        let members = (first..first + count).map(|n| (format!("k{n}"), json!(n)));
        stored(&json!({"id": "x", "resourceType": "T", "a": members.collect::<serde_json::Map<_, _>>()})).2
    };
    let mut columns = Columns::new();
    // Backwards, so that none goes to the end.
    for first in (0..99_998).step_by(49_999).rev() {
        columns.add(&wide(first, 49_999)).unwrap();
    }
    assert_eq!(columns.add(&wide(99_998, 1)), Err(Problem::TooManyColumns { limit: 100_000 }));
    // What is there already is no new column.
    columns.add(&wide(500, 1000)).unwrap();
    let mut header = Vec::new();
    columns.into_table().header(&mut header);
    assert_eq!(header.iter().filter(|byte| **byte == b',').count(), 99_999);

    let mut columns = Columns::new();
    let long = |n: usize| stored(&json!({"id": "x", format!("{n}{}", "k".repeat(1 << 20)): [0]})).2;
    let refused = (0..100).find_map(|n| columns.add(&long(n)).err().map(|problem| (n, problem)));
    assert!(matches!(refused, Some((25..40, Problem::NamesTooLong { .. }))), "{refused:?}");
    // Containers without leaves take no room.
    let mut columns = Columns::new();
    let hollow = stored(&json!({"id": "x", "l": vec![json!([{}]); 3_000_000]})).2;
    columns.add(&hollow).unwrap();
}

#[test]
fn a_row_that_was_not_there_before_is_refused_and_leaves_the_table_as_it_was() {
    let rows = [json!({"id": "x", "resourceType": "T", "a": [1]})];
    let mut table = table(&rows.each_ref().map(stored));
    let mut out = Vec::new();
    for (new, member) in [
        (json!({"id": "y", "b.c": 1}), "\"b.c\""),
        (json!({"id": "y", "a": [1, {"x": {"y": 2}}]}), "a"),
        (json!({"id": "y", "a": 1}), "a"),
        (json!({"id": "y", "a": [[1]]}), "a"),
    ] {
        let result = table.row("y", "T", &stored(&new).2, &mut out);
        assert_eq!(result, Err(Problem::NewPath(member.to_owned())), "{new}");
        assert!(out.is_empty());
    }
    let array = stored(&json!({"id": "x", "a": [1]})).2;
    assert_eq!(table.row("x", "T", &array[16..], &mut out), Err(Problem::NotAnObject));
    assert_eq!(Columns::new().add(&array[16..]), Err(Problem::NotAnObject));
    table.row("x", "T", &stored(&rows[0]).2, &mut out).unwrap();
    assert_eq!(out, b"1,x,T");
}

fn value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        select(&["0", "-1.50", "1e3", "123456789012345678901234567890.10"])
            .prop_map(|n| serde_json::from_str(n).unwrap()),
        "[ -~äß\n\r\t]{0,6}".prop_map(Value::String),
    ];
    scalar.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::Array),
            vec((select(&NAMES), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().map(|(n, v)| (n.to_owned(), v)).collect())),
        ]
    })
}

fn resource() -> impl Strategy<Value = Value> {
    let members = vec((select(&NAMES), value()), 0..8);
    (members, 0..1000).prop_map(|(members, number)| {
        let mut resource: serde_json::Map<_, _> =
            members.into_iter().filter(|(name, _)| *name != "meta").map(|(n, v)| (n.to_owned(), v)).collect();
        resource.insert("id".to_owned(), json!(format!("r-{number}")));
        resource.insert("resourceType".to_owned(), json!("Basic"));
        Value::Object(resource)
    })
}

proptest! {
    #[test]
    fn any_resources_are_flattened_as_their_text_says(resources in vec(resource(), 0..6)) {
        prop_assert_eq!(written(&resources), expected(&resources));
    }
}
