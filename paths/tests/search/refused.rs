use super::Table;
use fhir_bulk_codec::fhir::Version;
use fhir_bulk_paths::search::Problem::{self, Invalid, NotSupported};

fn refused(table: &Table, cases: &[(&str, Problem, &str)]) {
    for (query, problem, parameter) in cases {
        let error = match table.filter(query) {
            Ok(filter) => panic!("{query} is not refused: {filter:?}"),
            Err(error) => error,
        };
        assert_eq!((error.problem, error.parameter.as_str()), (*problem, *parameter), "{query}: {error:?}");
        assert!(!error.message.is_empty() && error.message.len() < 400, "{query}: {error:?}");
    }
}

#[test]
fn what_is_not_supported_names_the_parameter() {
    let table = Table::r4("Observation", "");
    refused(
        &table,
        &[
            ("foo=1", NotSupported, "foo"),
            ("status=final&foo=1", NotSupported, "foo"),
            ("=1", NotSupported, ""),
            // A parameter of another type, and of another release.
            ("family=x", NotSupported, "family"),
            ("Status=final", NotSupported, "Status"),
            // Modifiers.
            ("code:in=http://v", NotSupported, "code:in"),
            ("code:not-in=http://v", NotSupported, "code:not-in"),
            ("code:below=x", NotSupported, "code:below"),
            ("code:above=x", NotSupported, "code:above"),
            ("code:text=x", NotSupported, "code:text"),
            ("code:of-type=x", NotSupported, "code:of-type"),
            ("code:exact=x", NotSupported, "code:exact"),
            ("code:=x", NotSupported, "code:"),
            ("code:not:missing=true", NotSupported, "code:not:missing"),
            ("subject:not=1", NotSupported, "subject:not"),
            ("subject:below=1", NotSupported, "subject:below"),
            ("date:not=2020", NotSupported, "date:not"),
            ("date:exact=2020", NotSupported, "date:exact"),
            ("value-quantity:not=1", NotSupported, "value-quantity:not"),
            ("value-string:not=1", NotSupported, "value-string:not"),
            ("code-value-quantity:not=a$1", NotSupported, "code-value-quantity:not"),
            // The type of a reference.
            ("subject:Foo=1", NotSupported, "subject:Foo"),
            // Prefixes.
            ("date=ap2020", NotSupported, "date"),
            ("value-quantity=ap5", NotSupported, "value-quantity"),
            // Other resources.
            ("subject.name=x", NotSupported, "subject.name"),
            ("patient:Patient.gender=male", NotSupported, "patient:Patient.gender"),
            ("_has:Provenance:target:agent=x", NotSupported, "_has:Provenance:target:agent"),
            ("_list=1", NotSupported, "_list"),
            ("_text=x", NotSupported, "_text"),
            ("_content=x", NotSupported, "_content"),
            ("_filter=x", NotSupported, "_filter"),
            ("_query=x", NotSupported, "_query"),
            ("_type=Patient", NotSupported, "_type"),
            // How results are returned.
            ("_sort=date", NotSupported, "_sort"),
            ("_count=1", NotSupported, "_count"),
            ("_include=Observation:patient", NotSupported, "_include"),
            ("_include:iterate=Observation:patient", NotSupported, "_include:iterate"),
            ("_revinclude=Provenance:target", NotSupported, "_revinclude"),
            ("_elements=id", NotSupported, "_elements"),
            ("_summary=true", NotSupported, "_summary"),
            ("_total=accurate", NotSupported, "_total"),
            ("_contained=true", NotSupported, "_contained"),
            ("_containedType=container", NotSupported, "_containedType"),
            ("_maxresults=1", NotSupported, "_maxresults"),
            ("_score=1", NotSupported, "_score"),
            ("_format=json", NotSupported, "_format"),
            ("_pretty=true", NotSupported, "_pretty"),
        ],
    );
    // An empty value of an unknown parameter is still an unknown parameter.
    refused(&table, &[("foo=", NotSupported, "foo"), ("code:in=", NotSupported, "code:in")]);
    refused(&Table::new(Version::R5, "Observation", ""), &[("issued:below=1", NotSupported, "issued:below")]);
    refused(&Table::r4("Location", ""), &[("near=1|2|3|km", NotSupported, "near")]);
}

#[test]
fn what_is_invalid_names_the_parameter() {
    refused(
        &Table::r4("Observation", ""),
        &[
            ("status", Invalid, "status"),
            ("status=final&code", Invalid, "code"),
            ("status=%", Invalid, "status"),
            ("status=%zz", Invalid, "status"),
            ("status=%ff", Invalid, "status"),
            ("status=%00", Invalid, "status"),
            ("date=yesterday", Invalid, "date"),
            ("date=2020-13", Invalid, "date"),
            ("date=2020-02-30", Invalid, "date"),
            ("date=2020-01-01T25:00", Invalid, "date"),
            ("date=20200101", Invalid, "date"),
            ("date=gt", Invalid, "date"),
            ("date=2020,x", Invalid, "date"),
            ("date=> 2020", Invalid, "date"),
            ("value-string=%CC%88", Invalid, "value-string"),
            ("value-string:contains=%CC%88", Invalid, "value-string:contains"),
            ("date:missing=2020", Invalid, "date:missing"),
            ("date:missing=true,false", Invalid, "date:missing"),
            ("value-quantity=x", Invalid, "value-quantity"),
            ("value-quantity=1.", Invalid, "value-quantity"),
            ("value-quantity=.5", Invalid, "value-quantity"),
            ("value-quantity=1e", Invalid, "value-quantity"),
            ("value-quantity=1e9999", Invalid, "value-quantity"),
            ("value-quantity=1e-9223372036854775808", Invalid, "value-quantity"),
            ("value-quantity=0x10", Invalid, "value-quantity"),
            ("value-quantity=NaN", Invalid, "value-quantity"),
            ("value-quantity=--1", Invalid, "value-quantity"),
            ("value-quantity=1234567890123456789012345678901234567", Invalid, "value-quantity"),
            ("value-quantity=1|mg", Invalid, "value-quantity"),
            ("value-quantity=1|a|b|c", Invalid, "value-quantity"),
            ("value-quantity=|s|c", Invalid, "value-quantity"),
            ("code-value-quantity=a", Invalid, "code-value-quantity"),
            ("code-value-quantity=a$1$2", Invalid, "code-value-quantity"),
            ("code-value-quantity=a$x", Invalid, "code-value-quantity"),
            (r"code-value-quantity=a\$1", Invalid, "code-value-quantity"),
            // A type that the value contradicts.
            ("subject:Group=Patient/1", Invalid, "subject:Group"),
            ("subject:Group=https://ours.example/fhir/Patient/1", Invalid, "subject:Group"),
        ],
    );
}

#[test]
fn too_much_is_refused() {
    let table = Table::r4("Observation", "");
    let values = |count: usize| format!("code={}", vec!["x"; count].join(","));
    assert!(table.filter(&values(1000)).is_ok());
    let long = "x".repeat(1 << 20);
    refused(
        &table,
        &[
            (&values(1001), Invalid, "code"),
            (&format!("code={long}"), Invalid, ""),
            (&long, Invalid, ""),
            (&"code=x&".repeat(101), Invalid, ""),
            (&format!("{}=x", "y".repeat(60_000)), NotSupported, &format!("{}...", "y".repeat(80))),
            (&format!("value-string:contains={}", "x".repeat(1001)), Invalid, "value-string:contains"),
            (&format!("date={}", "9".repeat(60_000)), Invalid, "date"),
            (&format!("value-quantity={}", "9".repeat(60_000)), Invalid, "value-quantity"),
            (&format!("code-value-quantity={}", "$".repeat(60_000)), Invalid, "code-value-quantity"),
        ],
    );
    assert!(table.filter(&"code=x&".repeat(100)).is_ok());
}
