//! Random expressions, queries and documents: whatever comes, nothing panics, and nothing takes for ever.

mod common;

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

const VERSIONS: [Version; 3] = [Version::R4, Version::R4B, Version::R5];
const TYPES: [&str; 8] =
    ["Patient", "Observation", "Bundle", "MedicationRequest", "Encounter", "Questionnaire", "Custom", "Reference"];

/// Names of elements, types, functions, and of nothing.
fn name() -> impl Strategy<Value = String> {
    const NAMES: [&str; 40] = [
        "Patient",
        "Observation",
        "Resource",
        "DomainResource",
        "name",
        "value",
        "code",
        "coding",
        "subject",
        "component",
        "entry",
        "resource",
        "extension",
        "contained",
        "meta",
        "lastUpdated",
        "id",
        "reference",
        "effective",
        "deceased",
        "item",
        "active",
        "system",
        "is",
        "as",
        "div",
        "mod",
        "in",
        "contains",
        "and",
        "or",
        "xor",
        "implies",
        "true",
        "false",
        "FHIR",
        "System",
        "medication",
        "text",
        "event",
    ];
    prop_oneof![9 => select(&NAMES).prop_map(str::to_owned), 1 => "[a-zA-Z_][a-z0-9_]{0,5}|`[^`\\\\]{0,4}`"]
}

/// Expressions that are mostly grammatical.
fn expression() -> impl Strategy<Value = String> {
    const CONSTANTS: [&str; 14] = [
        "'x'",
        "1",
        "1.50",
        "0",
        "{}",
        "@2020-01-01T00:00:00Z",
        "@T12:00",
        "%resource",
        "%context",
        "%'a-b'",
        "$this",
        "99999999999999999999999999999999999999999",
        "'\\u00e9\\n'",
        "1 'mg'",
    ];
    const OPERATORS: [&str; 14] = ["|", "=", "!=", "and", "or", "+", "-", "<", ">=", "~", "in", "&", "*", "implies"];
    const CALLS: [&str; 14] = [
        "where",
        "exists",
        "first",
        "extension",
        "hasExtension",
        "ofType",
        "as",
        "not",
        "resolve",
        "empty",
        "is",
        "all",
        "select",
        "last",
    ];
    let leaf = prop_oneof![3 => name(), 1 => select(&CONSTANTS).prop_map(str::to_owned)];
    leaf.prop_recursive(6, 40, 3, |inner| {
        prop_oneof![
            4 => (inner.clone(), name()).prop_map(|(of, name)| format!("{of}.{name}")),
            3 => (inner.clone(), select(&CALLS), vec(inner.clone(), 0..3))
                .prop_map(|(of, call, arguments)| format!("{of}.{call}({})", arguments.join(", "))),
            2 => (inner.clone(), select(&OPERATORS), inner.clone()).prop_map(|(a, sign, b)| format!("{a} {sign} {b}")),
            1 => (inner.clone(), name()).prop_map(|(of, name)| format!("({of} as {name})")),
            1 => (inner.clone(), name()).prop_map(|(of, name)| format!("({of} is {name})")),
            1 => (inner.clone(), inner.clone()).prop_map(|(of, index)| format!("{of}[{index}]")),
            1 => inner.prop_map(|of| format!("-({of})")),
        ]
    })
}

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
            let scope = Scope { resource, bases: &[] };
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

/// The name of a parameter, a modifier, and what might be a value.
fn clause() -> impl Strategy<Value = String> {
    const NAMES: [&str; 22] = [
        "code",
        "date",
        "subject",
        "patient",
        "value-quantity",
        "code-value-quantity",
        "combo-code-value-quantity",
        "_id",
        "_lastUpdated",
        "_tag",
        "_profile",
        "_source",
        "status",
        "identifier",
        "value-string",
        "component-value-concept",
        "foo",
        "_has:a",
        "subject.name",
        "category",
        "issued",
        "",
    ];
    const MODIFIERS: [&str; 12] =
        ["", "", "", "", ":not", ":missing", ":Patient", ":identifier", ":exact", ":contains", ":below", ":x"];
    const PARTS: [&str; 34] = [
        "2020",
        "-01",
        "T10:00",
        "Z",
        "gt",
        "ne",
        "ap",
        "1",
        "e5",
        ".5",
        "true",
        "|",
        "|",
        ",",
        "$",
        "\\",
        "\\,",
        "%",
        "%20",
        "%C3%A9",
        "%ff",
        "%00",
        "Patient/",
        "https://ours.example/fhir/",
        "urn:",
        "http://x|1",
        "x",
        "Ä",
        "u\u{308}",
        "/",
        "_history/",
        "+01:00",
        "-",
        "9999999999999999999999999999999999999",
    ];
    let value = prop_oneof![9 => vec(select(&PARTS), 0..6).prop_map(|parts| parts.concat()), 1 => any::<String>()];
    (select(&NAMES), select(&MODIFIERS), value).prop_map(|(name, modifier, value)| format!("{name}{modifier}={value}"))
}

/// JSON, with names that mean something in FHIR and in Aidbox's form.
fn json() -> impl Strategy<Value = String> {
    const NAMES: [&str; 40] = [
        "status",
        "code",
        "coding",
        "system",
        "value",
        "Quantity",
        "string",
        "dateTime",
        "Period",
        "Timing",
        "start",
        "end",
        "effective",
        "subject",
        "id",
        "resourceType",
        "uri",
        "localRef",
        "reference",
        "type",
        "contained",
        "component",
        "category",
        "concept",
        "identifier",
        "SampledData",
        "origin",
        "lowerLimit",
        "low",
        "high",
        "Range",
        "repeat",
        "bounds",
        "event",
        "issued",
        "tag",
        "extension",
        "url",
        "text",
        "unit",
    ];
    const SCALARS: [&str; 16] = [
        "null",
        "true",
        "1",
        "-1.50",
        "1e20",
        "\"x\"",
        "\"2020\"",
        "\"2020-05-10T10:00:00Z\"",
        "\"Patient/1\"",
        "\"Patient\"",
        "\"\"",
        "\"http://x|1\"",
        "\"Ä\"",
        "\"urn:x\"",
        "\"x\\u0001\"",
        "0",
    ];
    select(&SCALARS).prop_map(str::to_owned).prop_recursive(8, 60, 6, |inner| {
        prop_oneof![
            1 => vec(inner.clone(), 0..5).prop_map(|elements| format!("[{}]", elements.join(","))),
            3 => vec((select(&NAMES), inner), 0..6).prop_map(|members| {
                let members: Vec<_> = members.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
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

/// Wide ones are walked once, also by filters with many values.
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
    let line = format!(
        "{{\"resourceType\":\"Provenance\",\"id\":\"x\",\"target\":[{}],\"contained\":[{}]}}",
        references.join(","),
        contained.join(",")
    );
    let row = stored(Version::R4, &line);
    let searched = Searched { version: Version::R4, resource_type: "Provenance", own: &[], bases: &[] };
    assert!(!Filter::new("patient=1", &searched).unwrap().matches(row.resource()));
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
