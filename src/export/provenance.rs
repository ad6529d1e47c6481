//! Provenance of what belongs to patients: of a patient, or of a resource in the compartment. Whether a target is in it only
//! the target itself tells, so targets are looked up, many at a time.

use super::associated::TYPE;
use super::batches::Decider;
use super::kickoff::Kickoff;
use crate::settings;
use crate::store::{Membership, Patients, ResourceTable, ResourceType, each_live, foreign_code};
use fhir_bulk_paths::item::Resource;
use fhir_bulk_paths::search::{Compartment, Links};
use fhir_bulk_pg::error::Result;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;

/// Type and id of a resource.
pub type Target = (String, String);

/// Finds the targets of Provenance.
pub struct Targets {
    links: Links,
    bases: Vec<String>,
}

impl Targets {
    pub fn new() -> Targets {
        let links = Links::of(settings::fhir_version(), TYPE, "target").expect("every release has this parameter");
        Targets { links, bases: settings::base_urls() }
    }

    /// The resources of ours that a Provenance is of.
    pub fn of(&self, resource: Resource<'_>) -> Vec<Target> {
        let mut targets = Vec::new();
        let _ = self.links.each(resource, &self.bases, |name, id| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            targets.push((text(name), text(id)));
            ControlFlow::Continue(())
        });
        targets
    }
}

/// The ids of targets by their type, each once.
pub fn by_type<'t>(targets: impl Iterator<Item = &'t Target>) -> BTreeMap<&'t str, BTreeSet<&'t str>> {
    let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, id) in targets {
        found.entry(name).or_default().insert(id);
    }
    found
}

/// Decides which Provenance belongs to the patients of an export; without patients, to any.
pub struct Linked<'a> {
    kickoff: &'a Kickoff,
    patients: Option<&'a Patients>,
    of_patients: Membership,
    targets: Targets,
}

/// A Provenance that is not decided yet.
pub struct Candidate {
    /// The patients that are targets themselves; if it does not matter which, one of them.
    patients: Vec<String>,
    /// The other targets, if they matter.
    targets: Vec<Target>,
}

impl<'a> Linked<'a> {
    /// `None` for another type, and at system level.
    pub fn of(kickoff: &'a Kickoff, patients: Option<&'a Patients>, resource_type: &str) -> Option<Linked<'a>> {
        if resource_type != TYPE || !kickoff.level.has_patients() {
            return None;
        }
        let of_patients = Membership::new(TYPE, patients.cloned());
        Some(Linked { kickoff, patients, of_patients, targets: Targets::new() })
    }

    /// The patients that each of them belongs to, in their order; if it does not matter which, one of them.
    ///
    /// # Errors
    /// The errors of the targets' tables.
    pub fn patients<'c>(
        &self,
        candidates: impl Iterator<Item = &'c Candidate> + Clone,
    ) -> Result<Vec<BTreeSet<String>>> {
        let mut found: HashMap<Target, Vec<String>> = HashMap::new();
        for (name, ids) in by_type(candidates.clone().flat_map(|candidate| &candidate.targets)) {
            if Compartment::of(settings::fhir_version(), name).is_none() || !may_look_up(self.kickoff, name)? {
                continue;
            }
            let membership = Membership::new(name, self.patients.cloned());
            each_live(&ResourceType::new(name)?, ids.into_iter(), |id, json| {
                let target = Resource { id, resource_type: name, last_updated: None, version_id: None, json };
                let patients = self.patients_of(&membership, target);
                if !patients.is_empty() {
                    found.insert((name.to_owned(), id.to_owned()), patients);
                }
                Ok(())
            })?;
        }
        let of_candidate = |candidate: &Candidate| {
            let of_targets = candidate.targets.iter().filter_map(|target| found.get(target)).flatten();
            candidate.patients.iter().chain(of_targets).cloned().collect()
        };
        Ok(candidates.map(of_candidate).collect())
    }

    fn patients_of(&self, membership: &Membership, resource: Resource<'_>) -> Vec<String> {
        let mut patients = Vec::new();
        let _ = membership.each(resource, |id| {
            patients.push(String::from_utf8_lossy(id).into_owned());
            if self.kickoff.by_patient { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        patients
    }
}

impl Decider for Linked<'_> {
    type Candidate = Candidate;

    fn candidate(&self, resource: Resource<'_>) -> Candidate {
        let patients = self.patients_of(&self.of_patients, resource);
        let is_decided = !patients.is_empty() && !self.kickoff.by_patient;
        Candidate { patients, targets: if is_decided { Vec::new() } else { self.targets.of(resource) } }
    }

    fn decide<'c>(&self, candidates: impl Iterator<Item = &'c Candidate> + Clone) -> Result<Vec<bool>> {
        Ok(self.patients(candidates)?.iter().map(|patients| !patients.is_empty()).collect())
    }
}

/// Whether the role may read a type's table, and reading it runs nobody else's code; a type that the request names is trusted.
fn may_look_up(kickoff: &Kickoff, name: &str) -> Result<bool> {
    let Some(table) = ResourceTable::find(&ResourceType::new(name)?)? else { return Ok(false) };
    Ok(table.is_readable()? && (kickoff.names(name) || foreign_code(&table).is_none()))
}
