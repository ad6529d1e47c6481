//! Search queries over stored resources: a filter is compiled or refused, never fails, and says of each resource what its parts
//! say; what an index would be asked for is true of all that is found.

use crate::encode::{CREATED_AT_URL, encode, text};
use crate::fhir::version;
use fhir_bulk_codec::error::IdRule;
use fhir_bulk_codec::jsonb::text::Spacing;
use fhir_bulk_codec::resource::Encoder;
use fhir_bulk_paths::item::Resource;
use fhir_bulk_paths::search::{Compartment, Filter, Necessary, Searched, each_reference, type_filters};
use serde_json::Value;
use std::ops::ControlFlow;

/// The url of a server whose resources are ours.
const BASE: &str = "https://ours.example/fhir";

/// Checks a query, and a resource in FHIR form on the line after it, after a byte for the release.
pub fn check(data: &[u8]) {
    let Some((&release, rest)) = data.split_first() else { return };
    let (query, line) = rest.split_at(rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()));
    let Ok(query) = str::from_utf8(query) else { return };
    let version = version(release);
    type_filters(query);
    let mut encoder = Encoder::new(IdRule::Aidbox, CREATED_AT_URL).from_fhir(version, true, None);
    let stored = encode(&mut encoder, line).ok();
    let resource_type = stored.as_ref().and_then(|stored| stored.resource_type.as_deref()).unwrap_or("Observation");
    let bases = [BASE.to_owned()];
    let searched = Searched { version, resource_type, own: &[], bases: &bases };
    let filter = Filter::new(query, &searched);
    let Some(stored) = &stored else { return };
    let resource = Resource {
        id: &stored.id,
        resource_type,
        last_updated: Some(700_000_000_000_000),
        version_id: Some(3),
        json: &stored.jsonb,
    };
    each_reference(resource, &bases, |_, _| ());
    if let Some(compartment) = Compartment::of(version, resource_type) {
        let done = compartment.each_patient(resource, &bases, |_| ControlFlow::Continue(()));
        assert!(done.is_continue());
    }
    let Ok(filter) = filter else { return };
    let found = filter.matches(resource);
    // What is said twice is said; one of two is one.
    let twice = Filter::new(&format!("{query}&{query}"), &searched).expect("a query may be repeated");
    assert_eq!(twice.matches(resource), found, "{query} twice");
    let either = Filter::any_of([filter.clone(), twice]).expect("two filters");
    assert_eq!(either.matches(resource), found, "{query} or itself");
    // All clauses have to hold, and of a clause's values one.
    let of = |query: &str| Filter::new(query, &searched).ok().map(|filter| filter.matches(resource));
    if let Some((first, rest)) = query.split_once('&')
        && let (Some(first), Some(rest)) = (of(first), of(rest))
    {
        assert_eq!(found, first && rest, "{query} and its clauses");
    }
    if let Some((name, values)) = query.split_once('=')
        && !query.contains(['&', '\\', ':', '%', '$'])
        && let Some((first, rest)) = values.split_once(',')
        // A parameter without any value is passed over, an empty one of several finds nothing.
        && !first.is_empty()
        && !rest.is_empty()
        && let (Some(first), Some(rest)) = (of(&format!("{name}={first}")), of(&format!("{name}={rest}")))
    {
        assert_eq!(found, first || rest, "{query} and its values");
    }
    if found {
        let json: Value = match crate::reference::parse(text(&stored.jsonb, Spacing::Compact).as_bytes()) {
            Some(json) => json.expect("text of jsonb is JSON"),
            None => return,
        };
        for necessary in filter.necessary().into_iter().chain(either.necessary()) {
            assert!(holds(&necessary, &resource, &json), "{query} finds it without {necessary:?}");
        }
    }
}

fn holds(necessary: &Necessary, resource: &Resource<'_>, json: &Value) -> bool {
    match necessary {
        Necessary::Ids(ids) => ids.iter().any(|id| id == resource.id),
        Necessary::Changed { from, until } => resource
            .last_updated
            .is_some_and(|at| from.is_none_or(|from| at >= from) && until.is_none_or(|until| at < until)),
        Necessary::Contains(patterns) => {
            patterns.iter().any(|pattern| contains(json, &serde_json::from_str(pattern).expect("a pattern is JSON")))
        }
    }
}

/// PostgreSQL's `@>` of jsonb.
fn contains(all: &Value, part: &Value) -> bool {
    match (all, part) {
        (Value::Object(all), Value::Object(part)) => {
            part.iter().all(|(name, part)| all.get(name).is_some_and(|all| contains(all, part)))
        }
        (Value::Array(all), Value::Array(part)) => part.iter().all(|part| all.iter().any(|all| contains(all, part))),
        (all, part) => all == part,
    }
}
