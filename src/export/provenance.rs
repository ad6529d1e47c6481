//! Provenance of what belongs to patients: of a patient, or of a resource in the compartment. Whether a target is in it only
//! the target itself tells, so targets are looked up, many at a time.

use super::batches::Decider;
use super::kickoff::Kickoff;
use crate::settings;
use crate::store::{Filter, Patients, ResourceTable, ResourceType, each_live, foreign_code};
use fhir_bulk_paths::item::Resource;
use fhir_bulk_paths::search::{Compartment, Links};
use fhir_bulk_pg::error::Result;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;

/// The type that this file is about.
pub const TYPE: &str = "Provenance";

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
    of_patients: Filter,
    targets: Targets,
}

/// A Provenance that is not decided yet.
pub struct Candidate {
    /// Whether a patient is a target.
    is_wanted: bool,
    /// The other targets.
    targets: Vec<Target>,
}

impl<'a> Linked<'a> {
    /// `None` for another type, and at system level.
    pub fn of(kickoff: &'a Kickoff, patients: Option<&'a Patients>, resource_type: &str) -> Option<Linked<'a>> {
        if resource_type != TYPE || !kickoff.level.has_patients() {
            return None;
        }
        let of_patients = Filter::of_patients(None, TYPE, patients.cloned());
        Some(Linked { kickoff, patients, of_patients, targets: Targets::new() })
    }
}

impl Decider for Linked<'_> {
    type Candidate = Candidate;

    fn candidate(&self, resource: Resource<'_>) -> Candidate {
        let is_wanted = self.of_patients.matches(resource);
        let targets = if is_wanted { Vec::new() } else { self.targets.of(resource) };
        Candidate { is_wanted, targets }
    }

    fn decide<'c>(&self, candidates: impl Iterator<Item = &'c Candidate> + Clone) -> Result<Vec<bool>> {
        let mut found = HashSet::new();
        for (name, ids) in by_type(candidates.clone().flat_map(|candidate| &candidate.targets)) {
            if Compartment::of(settings::fhir_version(), name).is_none() || !may_look_up(self.kickoff, name)? {
                continue;
            }
            let filter = Filter::of_patients(None, name, self.patients.cloned());
            each_live(&ResourceType::new(name)?, ids.into_iter(), |id, json| {
                if filter.matches(Resource { id, resource_type: name, last_updated: None, json }) {
                    found.insert((name.to_owned(), id.to_owned()));
                }
                Ok(())
            })?;
        }
        let is_found = |target: &Target| found.contains(target);
        Ok(candidates.map(|candidate| candidate.is_wanted || candidate.targets.iter().any(is_found)).collect())
    }
}

/// Whether the role may read a type's table, and reading it runs nobody else's code; a type that the request names is trusted.
fn may_look_up(kickoff: &Kickoff, name: &str) -> Result<bool> {
    let Some(table) = ResourceTable::find(&ResourceType::new(name)?)? else { return Ok(false) };
    Ok(table.is_readable()? && (kickoff.names(name) || foreign_code(&table).is_none()))
}
