//! Decides which Provenance an export has because it is of other resources that it has (`includeAssociatedData`).

use super::associated::{Associated, TYPE};
use super::batches::{Decider, Making, each_batch};
use super::kickoff::Kickoff;
use super::provenance::{Target, Targets, by_type};
use super::span::Span;
use crate::store::{Changed, Filter, Reader, ResourceType, each_live_changed};
use fhir_bulk_codec::instant;
use fhir_bulk_paths::item::Resource;
use fhir_bulk_pg::error::Result;
use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::BuildHasher as _;

/// Decides which Provenance an export has because it is of other resources that it has.
pub struct OfExported<'a> {
    which: Associated,
    /// For each span, by type: which resources are exported; `None` for all of the span.
    filters: Vec<(Changed, BTreeMap<&'a str, Option<Filter>>)>,
    targets: Targets,
    hashes: Hashes,
    /// The newest of each target, by its hashes.
    newest: HashMap<(u64, u64), Age>,
}

/// A Provenance that is not decided yet.
pub struct Candidate {
    targets: Vec<Target>,
    age: Age,
}

/// How new a Provenance is: when it was recorded, then when it was stored, then a number made of its id, so that one of
/// several is the newest. What is not known is oldest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Age(i64, i64, u64);

impl<'a> OfExported<'a> {
    /// `None` for another type, and if the request does not ask for it.
    ///
    /// # Errors
    /// The errors of the spans' filters.
    pub fn of(kickoff: &'a Kickoff, resource_type: &str, spans: Vec<Span>) -> Result<Option<OfExported<'a>>> {
        let Some(which) = kickoff.associated.filter(|_| resource_type == TYPE) else { return Ok(None) };
        let mut filters = Vec::new();
        for span in spans {
            let others = kickoff.types.iter().filter(|name| *name != TYPE);
            let of_span = others.map(|name| Ok((name.as_str(), span.filter(kickoff, name)?)));
            filters.push((span.changed, of_span.collect::<Result<_>>()?));
        }
        Ok(Some(OfExported {
            which,
            filters,
            targets: Targets::new(),
            hashes: Hashes::default(),
            newest: HashMap::new(),
        }))
    }

    /// Reads all Provenance to find the newest, if only that is exported. Which one it is only the last one tells. A target
    /// takes 40 bytes, whatever its id is.
    ///
    /// # Errors
    /// The errors of the reader and of the targets' tables.
    pub fn find_newest(&mut self, reader: impl FnOnce() -> Result<Reader>) -> Result<()> {
        if self.which != Associated::Latest {
            return Ok(());
        }
        let mut newest = HashMap::new();
        each_batch(
            &mut reader()?,
            Making::Nothing,
            |resource| self.candidate(resource),
            |batch| {
                let exported = self.exported(batch.candidates.iter())?;
                for Candidate { targets, age } in &batch.candidates {
                    for target in targets.iter().filter(|target| exported.contains(*target)) {
                        let known = newest.entry(self.hashes.of(target)).or_insert(*age);
                        *known = (*known).max(*age);
                    }
                }
                Ok(())
            },
        )?;
        self.newest = newest;
        Ok(())
    }

    /// Those targets that the export has.
    fn exported<'c>(&self, candidates: impl Iterator<Item = &'c Candidate>) -> Result<HashSet<Target>> {
        let mut found = HashSet::new();
        for (name, ids) in by_type(candidates.flat_map(|candidate| &candidate.targets)) {
            for (changed, filters) in &self.filters {
                let Some(filter) = filters.get(name) else { continue };
                each_live_changed(&ResourceType::new(name)?, ids.iter().copied(), *changed, |resource| {
                    if filter.as_ref().is_none_or(|filter| filter.matches(resource)) {
                        found.insert((name.to_owned(), resource.id.to_owned()));
                    }
                    Ok(())
                })?;
            }
        }
        Ok(found)
    }
}

impl Decider for OfExported<'_> {
    type Candidate = Candidate;

    fn candidate(&self, resource: Resource<'_>) -> Candidate {
        let number = self.hashes.first.hash_one(resource.id);
        let age = Age(recorded(resource), resource.last_updated.unwrap_or(i64::MIN), number);
        Candidate { targets: self.targets.of(resource), age }
    }

    fn decide<'c>(&self, candidates: impl Iterator<Item = &'c Candidate> + Clone) -> Result<Vec<bool>> {
        if self.which == Associated::Latest {
            let is_newest = |Candidate { targets, age }: &Candidate| {
                targets.iter().any(|target| self.newest.get(&self.hashes.of(target)) == Some(age))
            };
            return Ok(candidates.map(is_newest).collect());
        }
        let exported = self.exported(candidates.clone())?;
        Ok(candidates.map(|found| found.targets.iter().any(|target| exported.contains(target))).collect())
    }
}

/// Stand for targets in memory. Nobody knows the keys, so nobody can choose targets that have the same 128 bits.
#[derive(Default)]
struct Hashes {
    first: RandomState,
    second: RandomState,
}

impl Hashes {
    fn of(&self, target: &Target) -> (u64, u64) {
        (self.first.hash_one(target), self.second.hash_one(target))
    }
}

/// When a Provenance was recorded: the beginning of what it says.
fn recorded(resource: Resource<'_>) -> i64 {
    let text = || resource.item().object()?.member(b"recorded")?.string();
    let time = text().and_then(|text| instant::range(str::from_utf8(text).ok()?));
    time.map_or(i64::MIN, |(from, _)| from)
}
