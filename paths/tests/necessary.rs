//! Queries of the values that resources have: each finds its resource, many values at once find what they find one by one, and
//! what an index would be asked for is true of all that is found.

mod common;

use common::queries::{Random, parameters, values};
use common::{Stored, stored, stored_as_it_is};
use fhir_bulk_codec::fhir::Version;
use fhir_bulk_codec::jsonb::text::{Spacing, TextWriter};
use fhir_bulk_paths::search::{Filter, Necessary, Searched};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const BASES: [&str; 2] = ["https://ours.example/fhir", "http://hl7.org/fhir"];

/// PostgreSQL's `@>` of jsonb, without the exception for a scalar in an array, which concerns no object.
fn contains(all: &Value, part: &Value) -> bool {
    match (all, part) {
        (Value::Object(all), Value::Object(part)) => {
            part.iter().all(|(name, part)| all.get(name).is_some_and(|all| contains(all, part)))
        }
        (Value::Array(all), Value::Array(part)) => part.iter().all(|part| all.iter().any(|all| contains(all, part))),
        (all, part) => all == part,
    }
}

struct Row {
    stored: Stored,
    /// The stored jsonb.
    json: Value,
}

fn row(stored: Stored) -> Row {
    let mut text = Vec::new();
    TextWriter::new(Spacing::Compact).write(&stored.jsonb, &mut text);
    Row { json: serde_json::from_slice(&text).unwrap(), stored }
}

fn holds(necessary: &Necessary, row: &Row) -> bool {
    match necessary {
        Necessary::Ids(ids) => ids.contains(&row.stored.id),
        Necessary::Changed { from, until } => row
            .stored
            .last_updated
            .is_some_and(|at| from.is_none_or(|from| at >= from) && until.is_none_or(|until| at < until)),
        Necessary::Contains(patterns) => {
            patterns.iter().any(|pattern| contains(&row.json, &serde_json::from_str(pattern).unwrap()))
        }
    }
}

/// The resources by type.
fn by_type(version: Version) -> BTreeMap<String, Vec<Row>> {
    let mut lines = common::examples(version);
    if version == Version::R4 {
        lines.extend(common::generated());
    }
    let mut rows: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for line in lines {
        // Some references are to our own resources.
        let line = line.replace("\"reference\":\"Patient/", "\"reference\":\"https://ours.example/fhir/Patient/");
        for line in [line.as_str(), &line.replace("https://ours.example/fhir/", "")] {
            let row = row(stored(version, line));
            rows.entry(row.stored.resource_type.clone()).or_default().push(row);
        }
    }
    rows
}

#[derive(Default)]
struct Counts {
    /// Queries, and those of which an index can find something.
    queries: usize,
    narrowed: usize,
    /// Resources that were found by these.
    found: usize,
}

struct Checked<'c> {
    version: Version,
    resource_type: &'c str,
    rows: &'c [Row],
    /// Rows that are not what the definitions say.
    damaged: &'c [Row],
    counts: &'c mut Counts,
}

impl Checked<'_> {
    fn filter(&self, query: &str) -> Filter {
        let bases = BASES.map(str::to_owned);
        let Checked { version, resource_type, .. } = *self;
        Filter::new(query, &Searched { version, resource_type, own: &[], bases: &bases })
            .unwrap_or_else(|refused| panic!("{resource_type}?{query}: {refused:?}"))
    }

    fn check(&mut self, name: &str, filter: &Filter) {
        let necessary = filter.necessary();
        self.counts.queries += 1;
        self.counts.narrowed += usize::from(!necessary.is_empty());
        for row in self.rows.iter().chain(self.damaged).filter(|row| filter.matches(row.stored.resource())) {
            for necessary in &necessary {
                self.counts.found += 1;
                let told = || format!("{}?{name} finds {}\nwithout {necessary:?}", self.resource_type, row.json);
                assert!(holds(necessary, row), "{}", told());
            }
        }
    }

    fn query(&mut self, query: &str) -> Filter {
        let filter = self.filter(query);
        self.check(query, &filter);
        filter
    }
}

/// The value with one part of it replaced by another one, or moved into a list or out of one.
fn damaged(value: &Value, random: &mut Random) -> Value {
    match value {
        Value::Object(members) if !members.is_empty() && random.below(6) > 0 => {
            let at = random.below(members.len());
            let change = |(n, (name, value)): (usize, (&String, &Value))| {
                (name.clone(), if n == at { damaged(value, random) } else { value.clone() })
            };
            Value::Object(members.iter().enumerate().map(change).collect())
        }
        Value::Array(elements) if !elements.is_empty() && random.below(3) > 0 => {
            let at = random.below(elements.len());
            let change = |(n, value): (usize, &Value)| if n == at { damaged(value, random) } else { value.clone() };
            Value::Array(elements.iter().enumerate().map(change).collect())
        }
        Value::Array(elements) => elements.first().cloned().unwrap_or(Value::Null),
        value => match random.below(6) {
            // Its last text or number alone.
            5 => leaf(value).cloned().unwrap_or(Value::Null),
            0 => json!({"code": value, "value": value}),
            1 => json!({"reference": value}),
            2 => json!({"coding": value, "concept": value}),
            _ => json!([value]),
        },
    }
}

fn leaf(value: &Value) -> Option<&Value> {
    match value {
        Value::Object(members) => members.values().rev().find_map(leaf),
        Value::Array(elements) => elements.iter().rev().find_map(leaf),
        value => Some(value),
    }
}

fn damaged_rows(rows: &[Row], random: &mut Random) -> Vec<Row> {
    let copy = |row: &Row| {
        let mut json = damaged(&row.json, random);
        let members = json.as_object_mut()?;
        members.insert("resourceType".to_owned(), json!(row.stored.resource_type));
        members.insert("id".to_owned(), json!(row.stored.id));
        // The codec takes only objects here.
        members.retain(|name, value| name != "meta" || value.is_object());
        Some(self::row(stored_as_it_is(&json.to_string())))
    };
    rows.iter().cycle().take(rows.len() * 4).filter_map(copy).collect()
}

fn check_all(version: Version) -> Counts {
    let mut counts = Counts::default();
    let mut random = Random(1);
    for (resource_type, rows) in &by_type(version) {
        let damaged = damaged_rows(rows, &mut random);
        let counts = &mut counts;
        let mut checked = Checked { version, resource_type, rows, damaged: &damaged, counts };
        let mut all = Vec::new();
        for definition in parameters(version, resource_type) {
            let code = &definition.code;
            let mut distinct = BTreeSet::new();
            for row in rows {
                for value in values(version, &definition, &row.stored) {
                    // What a resource has finds it.
                    if distinct.len() < 40 && distinct.insert(value.clone()) {
                        let query = format!("{code}={value}");
                        let found = checked.query(&query).matches(row.stored.resource());
                        assert!(found, "{resource_type}?{query} does not find {}", row.json);
                    }
                }
            }
            let distinct: Vec<String> = distinct.into_iter().collect();
            if distinct.is_empty() {
                continue;
            }
            // Together they find what they find one by one.
            let together = checked.query(&format!("{code}={}", distinct.join(",")));
            let one_by_one = distinct.iter().map(|value| checked.filter(&format!("{code}={value}")));
            let one_by_one = Filter::any_of(one_by_one).unwrap();
            checked.check(&format!("{code}: any of {distinct:?}"), &one_by_one);
            for row in rows.iter().chain(&damaged) {
                let resource = row.stored.resource();
                let equal = together.matches(resource) == one_by_one.matches(resource);
                assert!(equal, "{resource_type}?{code}={} and {}", distinct.join(","), row.json);
            }
            all.extend(distinct.into_iter().map(|value| (code.clone(), value)));
        }
        for _ in 0..if all.is_empty() { 0 } else { 60 } {
            let ((a, x), (b, y)) = (random.pick(&all), random.pick(&all));
            let both = checked.query(&format!("{a}={x}&{b}={y}"));
            let either = Filter::any_of([checked.filter(&format!("{a}={x}")), checked.filter(&format!("{b}={y}"))]);
            checked.check(&format!("{a}={x} or {b}={y}"), &either.unwrap());
            let missing = checked.query(&format!("{a}:missing=true&{b}={y}"));
            for row in rows {
                let resource = row.stored.resource();
                assert!(!(both.matches(resource) && missing.matches(resource)));
            }
        }
    }
    counts
}

#[test]
fn what_an_index_finds_has_all_that_queries_find_in_r4() {
    let Counts { queries, narrowed, found } = check_all(Version::R4);
    println!("{queries} queries, {narrowed} of them narrowed, {found} times found");
    assert!(queries > 10_000 && narrowed > 8_000 && found > 40_000);
}

#[test]
fn what_an_index_finds_has_all_that_queries_find_in_r5() {
    let Counts { queries, narrowed, found } = check_all(Version::R5);
    println!("{queries} queries, {narrowed} of them narrowed, {found} times found");
    assert!(queries > 10_000 && narrowed > 8_000 && found > 40_000);
}
