//! All search parameters of HL7's: each compiles for each of its types, or stands on a list that says why not.

use fhir_bulk_codec::fhir::Version;
use fhir_bulk_paths::compile::{compile, compile_within};
use fhir_bulk_paths::model::Model;
use fhir_bulk_paths::search::{Definition, Filter, Kind, Searched, all_parameters};
use std::collections::BTreeSet;

const RELEASES: [(Version, &str, usize); 3] =
    [(Version::R4, "R4", 1375), (Version::R4B, "R4B", 1414), (Version::R5, "R5", 1239)];

/// Why a parameter does not compile for a type.
fn failure(model: &Model, resource_type: &str, parameter: &Definition) -> Option<String> {
    if parameter.expression.is_empty() {
        return Some("HL7 defines it in words only".to_owned());
    }
    let base = match compile(model, resource_type, &parameter.expression) {
        Ok(Some(base)) => base,
        Ok(None) => return Some("its expression finds nothing in this type".to_owned()),
        Err(mistake) => return Some(mistake.to_string()),
    };
    assert_eq!(parameter.kind == Kind::Composite, !parameter.components.is_empty(), "{}", parameter.url);
    parameter.components.iter().find_map(|component| {
        match compile_within(model, resource_type, &base, &component.expression) {
            Ok(Some(_)) => None,
            Ok(None) => Some(format!("part {} finds nothing", component.expression)),
            Err(mistake) => Some(format!("part {}: {mistake}", component.expression)),
        }
    })
}

#[test]
fn every_parameter_compiles_or_the_list_says_why_not() {
    let mut found = BTreeSet::new();
    for (version, release, at_least) in RELEASES {
        let model = Model::of(version);
        let parameters: Vec<Definition> = all_parameters(version).collect();
        assert!(parameters.len() >= at_least, "{release} has {} parameters", parameters.len());
        for parameter in &parameters {
            for resource_type in &parameter.base {
                if let Some(why) = failure(model, resource_type, parameter) {
                    found.insert(format!("{release}\t{resource_type}\t{}\t{why}", parameter.code));
                }
            }
        }
    }
    let list = include_str!("../definitions/not-compiled.txt");
    let listed: BTreeSet<String> = list.lines().map(str::to_owned).collect();
    let missing: Vec<_> = found.difference(&listed).collect();
    let stale: Vec<_> = listed.difference(&found).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "not on the list: {missing:#?}\non the list, but compiled: {stale:#?}"
    );
}

/// A query of each parameter that compiles: what HL7 defines in words only, for maps or by
/// other resources, is refused, and nothing else.
#[test]
fn every_parameter_takes_a_query() {
    let expected = [
        "R4 Location?near",
        "R4B Location?near",
        "R5 Composition?section-code-text",
        "R5 Composition?section-text",
        "R5 Location?contains",
        "R5 Location?near",
        "R5 Resource?_in",
    ];
    let mut refused = BTreeSet::new();
    let mut taken = 0;
    for (version, release, _) in RELEASES {
        let model = Model::of(version);
        for parameter in all_parameters(version) {
            // A date, which is also a code, a number, a text and an id.
            let value = vec!["2020"; parameter.components.len().max(1)].join("$");
            let query = format!("{}={value}", parameter.code);
            for resource_type in parameter.base.iter().filter(|name| failure(model, name, &parameter).is_none()) {
                let searched = Searched { version, resource_type, own: &[], bases: &[] };
                match Filter::new(&query, &searched) {
                    Ok(_) => taken += 1,
                    Err(why) => drop(refused.insert(format!("{release} {resource_type}?{}", why.parameter))),
                }
            }
        }
    }
    assert!(taken > 5000, "{taken}");
    assert_eq!(refused.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}
