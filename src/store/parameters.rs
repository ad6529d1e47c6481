//! Users' own search parameters: FHIR's SearchParameters in table `bulk_search_parameter`. The extension's owner and
//! superusers write them, whatever is granted; everybody's filters may use them.

use super::ResourceType;
use crate::{extension, own_tables, settings};
use fhir_bulk_codec::fhir::Version;
use fhir_bulk_paths::compile::{compile, compile_within};
use fhir_bulk_paths::model::Model;
use fhir_bulk_paths::search::{Component, Definition, Kind, Searched, find_parameter, usable_parameters};
use fhir_bulk_pg::error::{self, Error, or_raise};
use fhir_bulk_pg::replication;
use pgrx::heap_tuple::PgHeapTupleError;
use pgrx::prelude::*;
use pgrx::{JsonB, PgSqlErrorCode};
use serde::Deserialize;
use serde_json::Value;

/// The members of a SearchParameter that count.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SearchParameter {
    resource_type: String,
    url: String,
    code: String,
    #[serde(rename = "type")]
    kind: String,
    base: Vec<String>,
    #[serde(default)]
    target: Vec<String>,
    expression: String,
    #[serde(default)]
    component: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    definition: String,
    expression: String,
}

/// The most types of a parameter: FHIR has some 160.
const MAX_BASES: usize = 300;
const RELEASES: [Version; 3] = [Version::R4, Version::R4B, Version::R5];

/// All parameters of the table, by their urls. One that another version of the library has stored, and that is not understood,
/// is left out.
pub(super) fn own_parameters() -> Vec<Definition> {
    let owner = extension::this_extension().owner;
    let stored: Vec<String> = own_tables::rows(owner, "search_parameters()", Vec::new);
    let read = |text: &String| definition(serde_json::from_str(text).ok()?).ok();
    stored.iter().filter_map(read).collect()
}

/// The parameters that filters may have, HL7's and users' own: each type with its own, sorted by code.
pub fn search_parameters(types: &[ResourceType]) -> Vec<(&str, Definition)> {
    let (own, version) = (own_parameters(), settings::fhir_version());
    let of_type = |of: &ResourceType| {
        usable_parameters(&Searched { version, resource_type: of.canonical(), own: &own, bases: &[] })
    };
    types.iter().flat_map(|of| of_type(of).into_iter().map(|known| (of.canonical(), known))).collect()
}

fn definition(resource: Value) -> Result<Definition, String> {
    let parameter: SearchParameter = serde_json::from_value(resource).map_err(|error| error.to_string())?;
    if parameter.resource_type != "SearchParameter" {
        return Err(format!("it is a {}", parameter.resource_type));
    }
    let kind = Kind::of(&parameter.kind).filter(|kind| *kind != Kind::Special);
    let component = |part: Part| Component { definition: part.definition, expression: part.expression };
    Ok(Definition {
        kind: kind.ok_or_else(|| format!("parameters of type {} cannot be defined", parameter.kind))?,
        url: parameter.url,
        code: parameter.code,
        base: parameter.base,
        targets: parameter.target,
        expression: parameter.expression,
        components: parameter.component.into_iter().map(component).collect(),
    })
}

/// Trigger before each change of `bulk_search_parameter` and before TRUNCATE.
#[pg_trigger(sql = r#"
CREATE FUNCTION fhir_bulk_internal.check_search_parameter() RETURNS trigger LANGUAGE c
    AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn check_search_parameter<'a>(
    trigger: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, PgHeapTupleError> {
    if !extension::is_administered() {
        if replication::is_applying() {
            return Ok(None);
        }
        Error::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            "only the owner of the extension fhir_bulk and superusers may change bulk_search_parameter",
        )
        .hint("Ask one of them: a search parameter is for everybody's filters.")
        .raise();
    }
    if let Some(row) = trigger.new() {
        let url = row.get_by_name::<String>("url").ok().flatten().unwrap_or_default();
        // It is JSON; what cannot be read is too deep.
        let read = error::caught(|| Ok(row.get_by_name::<JsonB>("resource").ok().flatten()));
        let resource = or_raise(read.map_err(|_| {
            Error::invalid_argument(format!("search parameter {url}: its resource is nested too deeply"))
                .hint("Its objects and arrays nest 127 levels deep at most.")
        }));
        // A row without a resource is refused by its column.
        or_raise(resource.map_or(Ok(()), |JsonB(resource)| check(&url, resource)));
    }
    Ok(trigger.new().or_else(|| trigger.old()))
}

/// # Errors
/// 22023 for what is no SearchParameter, cannot be compiled, or would take the place of one of HL7's.
fn check(url: &str, resource: Value) -> error::Result<()> {
    let wrong = |why: String| Error::invalid_argument(format!("search parameter {url}: {why}"));
    let parameter = definition(resource).map_err(wrong)?;
    if parameter.url != url {
        return Err(wrong(format!("the url of its resource is {}", parameter.url)));
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if parameter.code.is_empty() || !parameter.code.chars().all(is_name) {
        return Err(wrong(format!("\"{}\" is not a code: it has letters, digits, - and _", parameter.code)));
    }
    if !(1..=MAX_BASES).contains(&parameter.base.len()) {
        return Err(wrong(format!("it has {} types as base; 1 to {MAX_BASES} are allowed", parameter.base.len())));
    }
    for base in &parameter.base {
        if RELEASES.into_iter().any(|release| find_parameter(release, base, &parameter.code).is_some()) {
            let hint = "Choose another code: HL7's parameters cannot be replaced.";
            return Err(wrong(format!("{base} has the parameter {} already", parameter.code)).hint(hint));
        }
        // It need not be for all releases.
        let failures: Vec<String> =
            RELEASES.into_iter().filter_map(|release| failure(release, base, &parameter)).collect();
        if failures.len() == RELEASES.len() {
            return Err(wrong(format!("its expression cannot be used for {base}: {}", failures[0])));
        }
    }
    Ok(())
}

/// Why an expression does not compile by a release.
fn failure(release: Version, base: &str, parameter: &Definition) -> Option<String> {
    let model = Model::of(release);
    let of_all = matches!(base, "Resource" | "DomainResource");
    let resource_type = if of_all { "Patient" } else { base };
    let found = match compile(model, resource_type, &parameter.expression) {
        Err(mistake) => return Some(mistake.to_string()),
        Ok(None) => return Some("it finds nothing".to_owned()),
        Ok(Some(found)) => found,
    };
    if (parameter.kind == Kind::Composite) == parameter.components.is_empty() {
        return Some("a composite has components, and no other has".to_owned());
    }
    parameter.components.iter().find_map(|part| {
        let found = compile_within(model, resource_type, &found, &part.expression);
        match found {
            Ok(Some(_)) => None,
            Ok(None) => Some(format!("component {} finds nothing", part.expression)),
            Err(mistake) => Some(format!("component {}: {mistake}", part.expression)),
        }
    })
}
