//! Provenance of what belongs to patients: of a patient, or of a resource in the compartment. Whether a target is in it only
//! the target itself tells, so targets are looked up, many at a time.

use super::files::Files;
use super::kickoff::Kickoff;
use crate::settings;
use crate::store::{Filter, Patients, Reader, ResourceTable, ResourceType, each_live, foreign_code};
use crate::stream::More;
use fhir_bulk_paths::item::Resource;
use fhir_bulk_paths::search::{Compartment, Links};
use fhir_bulk_pg::error::Result;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;

/// The type that this file is about.
pub const TYPE: &str = "Provenance";
/// How many resources, or bytes of lines, are decided at a time.
pub const BATCH: usize = 1000;
const BATCH_BYTES: usize = 4 << 20;

/// Decides which Provenance belongs to the patients of an export; without patients, to any.
pub struct Linked<'a> {
    kickoff: &'a Kickoff,
    patients: Option<&'a Patients>,
    of_patients: Filter,
    links: Links,
    bases: Vec<String>,
}

/// A Provenance that is not decided yet.
pub struct Candidate {
    /// Whether a patient is a target.
    is_wanted: bool,
    /// The other targets, by type and id.
    targets: Vec<(String, String)>,
}

impl<'a> Linked<'a> {
    /// `None` for another type, and at system level.
    pub fn of(kickoff: &'a Kickoff, patients: Option<&'a Patients>, resource_type: &str) -> Option<Linked<'a>> {
        if resource_type != TYPE || !kickoff.level.has_patients() {
            return None;
        }
        let links = Links::of(settings::fhir_version(), TYPE, "target")?;
        let of_patients = Filter::of_patients(None, TYPE, patients.cloned());
        Some(Linked { kickoff, patients, of_patients, links, bases: settings::base_urls() })
    }

    /// Takes what decides about a Provenance.
    pub fn candidate(&self, resource: Resource<'_>) -> Candidate {
        let is_wanted = self.of_patients.matches(resource);
        let mut targets = Vec::new();
        if !is_wanted {
            let _ = self.links.each(resource, &self.bases, |name, id| {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                targets.push((text(name), text(id)));
                ControlFlow::Continue(())
            });
        }
        Candidate { is_wanted, targets }
    }

    /// Whether they belong to the patients, in their order.
    ///
    /// # Errors
    /// The errors of the targets' tables.
    pub fn decide<'c>(&self, candidates: impl Iterator<Item = &'c Candidate> + Clone) -> Result<Vec<bool>> {
        let mut targets: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (name, id) in candidates.clone().flat_map(|candidate| &candidate.targets) {
            targets.entry(name).or_default().insert(id);
        }
        let mut found = HashSet::new();
        for (name, ids) in targets {
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
        let is_found = |target: &(String, String)| found.contains(target);
        Ok(candidates.map(|candidate| candidate.is_wanted || candidate.targets.iter().any(is_found)).collect())
    }

    /// Writes those resources of a reader that belong to the patients. Calls `progress` with the number of resources in each
    /// batch.
    ///
    /// # Errors
    /// The errors of the reader, of the targets' tables and of the sink.
    pub fn write_all(&self, reader: &mut Reader, files: &mut Files<'_>, mut progress: impl FnMut(u64)) -> Result<()> {
        // Lines, and each with where it ends.
        let (mut lines, mut pending) = (Vec::new(), Vec::new());
        loop {
            let more = reader.each(|stored| {
                stored.write(&mut lines)?;
                lines.push(b'\n');
                pending.push((lines.len(), self.candidate(stored.as_resource())));
                let is_full = pending.len() >= BATCH || lines.len() >= BATCH_BYTES;
                Ok(if is_full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
            let decided = self.decide(pending.iter().map(|(_, candidate)| candidate))?;
            let (mut wanted, mut count, mut start) = (Vec::new(), 0, 0);
            for ((end, _), is_wanted) in pending.drain(..).zip(decided) {
                if is_wanted {
                    wanted.extend_from_slice(&lines[start..end]);
                    count += 1;
                }
                start = end;
            }
            files.write(&wanted, count)?;
            progress(count);
            lines.clear();
            lines.shrink_to(BATCH_BYTES);
            if more == More::No {
                return Ok(());
            }
        }
    }
}

/// Whether the role may read a type's table, and reading it runs nobody else's code; a type that the request names is trusted.
fn may_look_up(kickoff: &Kickoff, name: &str) -> Result<bool> {
    let Some(table) = ResourceTable::find(&ResourceType::new(name)?)? else { return Ok(false) };
    Ok(table.is_readable()? && (kickoff.names(name) || foreign_code(&table).is_none()))
}
