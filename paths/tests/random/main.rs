//! Random expressions, queries and documents: whatever comes, nothing panics, and nothing takes for ever.

#[path = "../common/mod.rs"]
mod common;
mod strategies;

use common::queries::{parameters, values};
use common::{stored, stored_as_it_is};
use fhir_bulk_codec::fhir::Version;
use fhir_bulk_paths::compile::{compile, compile_within};
use fhir_bulk_paths::model::Model;
use fhir_bulk_paths::program::Scope;
use fhir_bulk_paths::search::{Definition, Filter, Kind, Searched, type_filters};
use fhir_bulk_paths::syntax::parse;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use std::ops::ControlFlow::Continue;
use std::sync::LazyLock;
use strategies::{clause, expression, json, name};

const VERSIONS: [Version; 3] = [Version::R4, Version::R4B, Version::R5];
const TYPES: [&str; 8] =
    ["Patient", "Observation", "Bundle", "MedicationRequest", "Encounter", "Questionnaire", "Custom", "Reference"];

/// Lines of both forms, among them some that are deep or wide.
static LINES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut lines = common::examples(Version::R4);
    lines.retain(|line| line.len() < 6000);
    lines.truncate(200);
    lines
});

/// Everything that an expression could do with a resource is done.
fn run(expression: &str, line: &str) {
    for version in VERSIONS {
        let resource = stored(version, line);
        let resource = resource.resource();
        let model = Model::of(version);
        for resource_type in TYPES {
            let Ok(Some(found)) = compile(model, resource_type, expression) else { continue };
            let within = compile_within(model, resource_type, &found, expression);
            let scope = Scope::new(resource, &[]);
            for program in [Some(found.program), within.ok().flatten().map(|found| found.program)].iter().flatten() {
                let mut count = 0;
                let _ = program.run(&scope, resource.item(), &mut |_| {
                    count += 1;
                    Continue(())
                });
                assert_eq!(program.any(&scope, resource.item(), |_| true), count > 0);
            }
            // As a parameter of one's own, of each type.
            for kind in [Kind::Token, Kind::Reference, Kind::Date, Kind::String, Kind::Quantity, Kind::Uri] {
                let own = [Definition {
                    url: "http://own".to_owned(),
                    code: "own".to_owned(),
                    kind,
                    base: vec![resource_type.to_owned()],
                    targets: Vec::new(),
                    expression: expression.to_owned(),
                    components: Vec::new(),
                }];
                let filter = Filter::new("own=2020", &Searched { version, resource_type, own: &own, bases: &[] });
                let Ok(filter) = filter else { continue };
                filter.matches(resource);
                filter.necessary();
            }
        }
    }
}

const BASES: [&str; 1] = ["https://ours.example/fhir"];

fn filter(version: Version, query: &str) -> Option<Filter> {
    let bases = BASES.map(str::to_owned);
    Filter::new(query, &Searched { version, resource_type: "Observation", own: &[], bases: &bases }).ok()
}

/// Filters with values that Observations have, of each parameter of theirs.
static FILTERS: LazyLock<Vec<Filter>> = LazyLock::new(|| {
    let lines = common::examples(Version::R4).into_iter().chain(common::generated());
    let rows: Vec<_> =
        lines.map(|line| stored(Version::R4, &line)).filter(|row| row.resource_type == "Observation").collect();
    let mut filters = Vec::new();
    for definition in parameters(Version::R4, "Observation") {
        let code = &definition.code;
        let mut all: Vec<_> = rows.iter().flat_map(|row| values(Version::R4, &definition, row)).collect();
        all.sort();
        all.dedup();
        for query in [
            format!("{code}={}", all.first().map_or("", String::as_str)),
            format!("{code}={}", all.iter().take(12).map(String::as_str).collect::<Vec<_>>().join(",")),
            format!("{code}:missing=true"),
            format!("{code}:not={}", all.first().map_or("", String::as_str)),
            format!("{code}=ne2020"),
            format!("{code}=2020"),
        ] {
            filters.extend(filter(Version::R4, &query));
        }
    }
    filters.extend(
        ["combo-code-value-quantity=x$1", "code-value-concept=x$x", "code-value-date=x$ne2020"]
            .map(|query| filter(Version::R4, query).unwrap()),
    );
    filters
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_an_expression_or_not(text in any::<String>(), bytes in vec(any::<u8>(), 0..60)) {
        let _ = parse(&text);
        let _ = parse(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_tokens_are_an_expression_or_not(
        tokens in vec(prop_oneof![name(), select(&[
            ".", "(", ")", "[", "]", ",", "|", "=", "'", "'a'", "1", "-", "/*", "*/", "//", "\n", "\\", "%", "$this", "@", "\"",
        ][..]).prop_map(str::to_owned)], 0..25),
    ) {
        let _ = parse(&tokens.concat());
        let _ = parse(&tokens.join(" "));
    }

    #[test]
    fn any_query_is_a_filter_or_refused(clauses in vec(clause(), 0..4), text in any::<String>(), which in 0..3usize) {
        let query = clauses.join("&");
        for query in [query.as_str(), &text] {
            type_filters(query);
            let Some(filter) = filter(VERSIONS[which], query) else { continue };
            filter.necessary();
            for line in LINES.iter().take(20) {
                filter.matches(stored(VERSIONS[which], line).resource());
            }
        }
    }

    #[test]
    fn any_document_passes_all_filters_or_not(members in vec(json(), 1..5), name in vec(select(&[
        "status", "code", "subject", "value", "effective", "component", "identifier", "contained", "category", "meta",
    ][..]), 4)) {
        let members: Vec<_> = members
            .iter()
            .zip(&name)
            .filter(|(value, name)| **name != "meta" || value.starts_with('{'))
            .map(|(value, name)| format!(",\"{name}\":{value}"))
            .collect();
        let line = format!("{{\"resourceType\":\"Observation\",\"id\":\"x\"{}}}", members.concat());
        for row in [stored(Version::R4, &line), stored_as_it_is(&line)] {
            for filter in FILTERS.iter() {
                filter.matches(row.resource());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_expression_compiles_and_runs_or_is_refused(text in expression(), line in 0..200usize) {
        run(&text, &LINES[line % LINES.len()]);
    }
}

/// Paths have a fixed number of steps, so the depth of a document does not matter.
#[test]
fn deep_documents_are_walked_without_recursion() {
    let deep = |before: &str, middle: &str, after: &str| before.repeat(480) + middle + &after.repeat(480);
    for value in [
        deep(r#"{"coding":["#, r#"{"code":"x"}"#, "]}"),
        deep(r#"[{"url":"u","extension":"#, "[]", "}]"),
        deep("[", "\"x\"", "]"),
        deep(r#"{"Quantity":"#, "1", "}"),
    ] {
        for name in ["status", "code", "subject", "value", "effective", "component", "extension"] {
            let line = format!("{{\"resourceType\":\"Observation\",\"id\":\"x\",\"{name}\":{value}}}");
            let row = stored_as_it_is(&line);
            let found = FILTERS.iter().filter(|filter| filter.matches(row.resource())).count();
            assert!(found < FILTERS.len());
        }
    }
}

/// Wide ones are walked once, also by filters with many values. What references to contained resources refer to is looked up as
/// long as that takes no hours.
#[test]
fn wide_documents_with_many_values_take_linear_time() {
    let codings: Vec<_> = (0..50_000).map(|n| format!("{{\"system\":\"s\",\"code\":\"c{n}\"}}")).collect();
    let references: Vec<_> = (0..50_000).map(|n| format!("{{\"reference\":\"#r{n}\"}}")).collect();
    let contained: Vec<_> = (0..50_000).map(|n| format!("{{\"resourceType\":\"Patient\",\"id\":\"r{n}\"}}")).collect();
    let line =
        format!("{{\"resourceType\":\"Observation\",\"id\":\"x\",\"code\":{{\"coding\":[{}]}}}}", codings.join(","));
    let row = stored(Version::R4, &line);
    let many = |name: &str, value: &dyn Fn(usize) -> String| {
        let values: Vec<_> = (0..1000).map(value).collect();
        filter(Version::R4, &format!("{name}={}", values.join(","))).unwrap()
    };
    // Fifty million comparisons one by one.
    for _ in 0..20 {
        assert!(!many("code", &|n| format!("x{n}")).matches(row.resource()));
        assert!(!many("code", &|n| format!("t|c{n}")).matches(row.resource()));
        assert!(many("code", &|n| format!("s|c{}", n + 40_000)).matches(row.resource()));
    }
    let searched = Searched { version: Version::R4, resource_type: "Provenance", own: &[], bases: &[] };
    let filter = Filter::new("patient:missing=false", &searched).unwrap();
    for (count, found) in [(300, true), (50_000, false)] {
        let line = format!(
            "{{\"resourceType\":\"Provenance\",\"id\":\"x\",\"target\":[{}],\"contained\":[{},{}]}}",
            references[50_000 - count..].join(","),
            contained[50_000 - count..].join(",").replace("Patient", "Group"),
            contained[49_999].replace("r49999", "last"),
        );
        let line = line.replace("#r49999", "#last");
        assert_eq!(filter.matches(stored(Version::R4, &line).resource()), found, "{count}");
    }
}

/// What a parser allows is not too deep for the stack of a backend's thread, nor does it grow where it is compiled.
#[test]
fn the_deepest_expressions_compile_and_run() {
    let lines = &LINES[..3];
    for text in [
        (0..95).fold("value".to_owned(), |inner, _| format!("({inner} is Quantity)")),
        (0..95).fold("value".to_owned(), |inner, _| format!("({inner} as Quantity)")),
        (0..45).fold("name".to_owned(), |inner, _| format!("name.where({inner}.exists().not())")),
        (0..45).fold("name".to_owned(), |inner, _| {
            format!("name.exists({inner}.empty() or {inner_too})", inner_too = "id")
        }),
        (0..95).fold("active".to_owned(), |inner, _| format!("({inner} = true)")),
        "extension.value.".repeat(45) + "extension",
        "name|".repeat(150) + "name",
        vec!["active"; 150].join(" and "),
        "active".to_owned() + &".not()".repeat(90),
        "(active is boolean) is boolean or ".repeat(60) + "active",
    ] {
        parse(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        lines.iter().for_each(|line| run(&text, line));
    }
}
