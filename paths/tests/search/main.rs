//! FHIR's search, as tables: resources, and which of them a query finds.

#[path = "../common/mod.rs"]
mod common;

mod common_parameters;
mod dates;
mod numbers;
mod own;
mod references;
mod refused;
mod texts;
mod tokens;

use common::Stored;
use fhir_bulk_codec::fhir::Version;
use fhir_bulk_paths::search::{Definition, Filter, Refused, Searched};

const BASES: [&str; 3] = ["https://ours.example/fhir", "http://ours.example:8080/r", "https://ours.example/fhir/r4"];

/// Resources of a type, each with a short name.
struct Table {
    version: Version,
    resource_type: &'static str,
    rows: Vec<(String, Stored)>,
    own: Vec<Definition>,
    bases: Vec<String>,
}

impl Table {
    /// A line names a resource, and after the first space has its JSON members without type and id.
    fn new(version: Version, resource_type: &'static str, lines: &str) -> Table {
        let row = |line: &str| {
            let (name, members) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
            let comma = if members.is_empty() { "" } else { "," };
            let json = format!(r#"{{"resourceType":"{resource_type}","id":"{name}"{comma}{members}}}"#);
            (name.to_owned(), common::stored(version, &json))
        };
        let rows = lines.lines().filter(|line| !line.trim().is_empty()).map(row).collect();
        Table { version, resource_type, rows, own: Vec::new(), bases: BASES.map(str::to_owned).to_vec() }
    }

    fn r4(resource_type: &'static str, lines: &str) -> Table {
        Table::new(Version::R4, resource_type, lines)
    }

    fn filter(&self, query: &str) -> Result<Filter, Refused> {
        let Table { version, resource_type, .. } = *self;
        Filter::new(query, &Searched { version, resource_type, own: &self.own, bases: &self.bases })
    }

    fn names(&self, filter: &Filter) -> String {
        let found = self.rows.iter().filter(|(_, stored)| filter.matches(stored.resource()));
        found.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" ")
    }

    /// The names of what a query finds.
    fn found(&self, query: &str) -> String {
        self.names(&self.filter(query).unwrap_or_else(|refused| panic!("{query}: {refused:?}")))
    }

    /// Each case is a query and the names of what it finds.
    fn finds(&self, cases: &[(&str, &str)]) {
        let wrong: Vec<String> = cases
            .iter()
            .map(|(query, expected)| (query, expected, self.found(query)))
            .filter(|(_, expected, found)| found != *expected)
            .map(|(query, expected, found)| format!("{query}\n    finds    {found}\n    expected {expected}"))
            .collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

#[test]
fn one_of_several_filters_is_enough() {
    let table = Table::r4("Observation", "a \"status\":\"final\"\n b \"status\":\"amended\"\n c");
    let filter = |query: &str| table.filter(query).unwrap();
    let any = |queries: &[&str]| Filter::any_of(queries.iter().map(|query| filter(query)));
    assert_eq!(table.names(&any(&["status=final", "_id=c"]).unwrap()), "a c");
    assert_eq!(table.names(&any(&["status=final&_id=b", "_id=b"]).unwrap()), "b");
    assert_eq!(table.names(&any(&["status=final", ""]).unwrap()), "a b c");
    assert_eq!(any(&["status=final,", "_id="]).unwrap().ignored.len(), 2);
    assert!(any(&[]).is_none());
}

#[test]
fn parameters_are_joined_by_and_and_values_by_or() {
    let table = Table::r4(
        "Observation",
        r#"a "status":"final","category":[{"coding":[{"code":"x"}]},{"coding":[{"code":"y"}]}]
        b "status":"final","category":[{"coding":[{"code":"x"}]}]
        c "status":"amended","category":[{"coding":[{"code":"y"}]}]"#,
    );
    table.finds(&[
        ("", "a b c"),
        ("category=x,y", "a b c"),
        ("category=x&category=y", "a"),
        ("category=y&status=final", "a"),
        ("category=y&status=final,amended", "a c"),
        ("&category=y&&", "a c"),
        ("category=y,", "a c"),
        ("category=,&status=", "a b c"),
        ("category%3Anot=y", "b"),
        ("category=%79", "a c"),
        ("category=x%2Cy", "a b c"),
        (r"category=x\,y", ""),
    ]);
    assert_eq!(table.filter("category=y,&status=").unwrap().ignored.len(), 2);
    assert!(table.filter("category=y").unwrap().ignored.is_empty());
}
