//! The resource type in the name of a file: `2026-11/Patient.part1.ndjson.gz` has Patients.

use crate::store::{ResourceType, readable_types};
use fhir_bulk_codec::fhir;
use fhir_bulk_pg::error::Result;
use std::collections::BTreeSet;

/// The types that names may have: those of FHIR, and those with a table.
pub struct Types(BTreeSet<String>);

impl Types {
    /// Those of the current role's tables, and FHIR's.
    ///
    /// # Errors
    /// 3F000 if there is no schema of resource tables.
    pub fn known() -> Result<Types> {
        let of_tables = readable_types()?.into_iter().map(|name| name.as_str().to_owned());
        Ok(Types(of_tables.chain(fhir::resource_types().map(str::to_owned)).collect()))
    }

    /// The type that stands in the last part of a URL, in any case, as a word or its plural. `None` if there is none, or
    /// more than one.
    pub fn in_name(&self, url: &str) -> Option<ResourceType> {
        let name = url.rsplit('/').next().unwrap_or_default();
        let name = name.get(..name.to_ascii_lowercase().rfind(".ndjson")?)?;
        let lower = name.to_ascii_lowercase();
        let mut found: Vec<(usize, &str)> = Vec::new();
        for known in &self.0 {
            let word = known.to_ascii_lowercase();
            let places = lower.match_indices(&word).map(|(at, _)| at);
            found.extend(places.filter(|at| is_word(name.as_bytes(), *at, word.len())).map(|at| (at, known.as_str())));
        }
        // `MedicationRequest` is no `Medication`.
        let is_in = |(at, known): (usize, &str), (other, longer): (usize, &str)| {
            longer.len() > known.len() && other <= at && at + known.len() <= other + longer.len()
        };
        let whole = found.iter().filter(|one| !found.iter().any(|other| is_in(**one, *other)));
        let types: BTreeSet<&str> = whole.map(|(_, known)| *known).collect();
        let mut types = types.into_iter();
        let only = types.next().filter(|_| types.next().is_none())?;
        ResourceType::new(only).ok()
    }
}

/// Whether a word begins and ends there: where there are no more letters, or where the case changes as in `myPatientList`.
fn is_word(name: &[u8], at: usize, length: usize) -> bool {
    let end = at + length;
    let before = at.checked_sub(1).map(|before| name[before]);
    let begins = before.is_none_or(|before| {
        !before.is_ascii_alphabetic() || (before.is_ascii_lowercase() && name[at].is_ascii_uppercase())
    });
    let ends_at = |end: usize| {
        name.get(end).is_none_or(|after| {
            !after.is_ascii_alphabetic() || (after.is_ascii_uppercase() && name[end - 1].is_ascii_lowercase())
        })
    };
    let is_plural = name.get(end).is_some_and(|after| after.eq_ignore_ascii_case(&b's'));
    begins && (ends_at(end) || (is_plural && ends_at(end + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_name(name: &str) -> Option<String> {
        let own = ["Individual".to_owned()];
        let types = Types(fhir::resource_types().map(str::to_owned).chain(own).collect());
        types.in_name(name).map(|found| found.as_str().to_owned())
    }

    #[test]
    fn the_type_in_a_name_is_found() {
        for (name, found) in [
            ("file:///srv/Patient.ndjson", "Patient"),
            ("s3://b/PATIENT.NDJSON.gz", "Patient"),
            ("s3://b/Observation/patient.ndjson", "Patient"),
            ("s3://b/2026-11-30.Observation.000.ndjson.gz", "Observation"),
            ("s3://b/1_patients_full.ndjson", "Patient"),
            ("s3://b/MedicationRequest-1.ndjson", "MedicationRequest"),
            ("s3://b/medicationrequest1.ndjson", "MedicationRequest"),
            ("s3://b/exportPatientV2.ndjson", "Patient"),
            ("s3://b/individual.ndjson", "Individual"),
            ("s3://b/patient_Patient.ndjson", "Patient"),
        ] {
            assert_eq!(in_name(name).as_deref(), Some(found), "{name}");
        }
    }

    #[test]
    fn a_name_without_one_type_says_nothing() {
        for name in [
            "s3://b/all.ndjson",
            "s3://b/specialists.ndjson",
            "s3://b/outpatient.ndjson",
            "s3://b/patientless.ndjson",
            "s3://b/Group-Patient.ndjson",
            "s3://b/Patient/x.ndjson",
            "s3://b/Patient",
            "s3://b/x.ndjson.Patient",
        ] {
            assert_eq!(in_name(name), None, "{name}");
        }
    }
}
