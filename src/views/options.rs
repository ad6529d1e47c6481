//! Which resources a view is made of, and how many rows: options of all formats.

use crate::arguments::{Options, wrong};
use crate::store::Patients;
use fhir_bulk_codec::instant;
use fhir_bulk_pg::error::{Error, Result};
use serde_json::Value;

/// The options that every format has.
pub const KNOWN: &str = "patient, group, since, limit, resources";

/// Which resources, and how many rows; all of them by default.
#[derive(Default)]
pub struct Selection {
    /// Only what belongs to these patients.
    pub patients: Option<Patients>,
    /// Only what was changed at or after this, in microseconds since 2000-01-01T00:00:00Z.
    pub since: Option<i64>,
    /// So many rows.
    pub limit: Option<u64>,
    /// These resources instead of stored ones.
    pub resources: Option<Vec<Value>>,
}

impl Selection {
    /// Takes the options.
    ///
    /// # Errors
    /// 22023 for other values and for a patient that is not there; P0002 for a Group that is not there.
    pub fn parse(options: &mut Options) -> Result<Selection> {
        let patients = references(options, "patient", "Patient/")?;
        let groups = references(options, "group", "Group/")?;
        let since = options.string("since")?.map(|text| {
            instant::parse(&text).ok_or_else(|| wrong("since", "an instant, such as 2024-01-31T12:00:00Z"))
        });
        let limit = options.count("limit", 0..=i64::MAX as u64)?;
        let resources = match options.take("resources") {
            None => None,
            Some(Value::Array(resources)) => Some(resources),
            Some(_) => return Err(wrong("resources", "an array of resources")),
        };
        Ok(Selection { patients: chosen(patients, groups)?, since: since.transpose()?, limit, resources })
    }
}

/// The patients of both options: those that are named, as far as they are members of one of the Groups.
fn chosen(patients: Option<Vec<String>>, groups: Option<Vec<String>>) -> Result<Option<Patients>> {
    let named = patients.map(|ids| Patients::named(&ids)).transpose()?;
    let Some(groups) = groups else { return Ok(named) };
    let mut members: Vec<String> = Vec::new();
    for id in &groups {
        members.extend(Vec::from(Patients::of_group(id)?));
    }
    if let Some(named) = named {
        members.retain(|id| named.contains(id.as_bytes()));
    }
    Ok(Some(members.into()))
}

/// Ids: strings, with or without the type before them.
fn references(options: &mut Options, name: &str, prefix: &str) -> Result<Option<Vec<String>>> {
    let Some(value) = options.take(name) else { return Ok(None) };
    let expected = || wrong(name, &format!("an array of ids, with or without {prefix} before them"));
    let Value::Array(values) = value else { return Err(expected()) };
    let id = |value: Value| match value {
        Value::String(text) => {
            let id = text.strip_prefix(prefix).unwrap_or(&text);
            if id.is_empty() || id.contains('/') { Err(expected()) } else { Ok(id.to_owned()) }
        }
        _ => Err(expected()),
    };
    let ids: Vec<String> = values.into_iter().map(id).collect::<Result<_>>()?;
    if ids.is_empty() {
        return Err(
            Error::invalid_argument(format!("option {name} names nobody")).hint("Leave it out for all resources.")
        );
    }
    Ok(Some(ids))
}
