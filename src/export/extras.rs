//! Resources that come with an export of patients because others refer to them (`fhir_bulk.export_extras`): practitioners,
//! organizations, locations, medications.

use super::by_type::{self, Typed};
use super::files::Files;
use super::work::Work;
use crate::settings;
use crate::sink::Draft;
use crate::store::Rows;
use fhir_bulk_paths::item::Resource;
use fhir_bulk_paths::search::each_reference;
use fhir_bulk_pg::error::Result;
use fhir_bulk_pg::memory::with_scratch;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// How many resources are looked up at a time because others refer to them.
const AT_A_TIME: usize = 1000;

/// The resources that were referred to.
pub struct Extras {
    /// By type: those that are not written yet, and all that have been found.
    found: BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)>,
    bases: Vec<String>,
}

impl Extras {
    /// References to these types count.
    pub fn new(types: &[String]) -> Extras {
        let found = types.iter().map(|name| (name.clone(), Default::default())).collect();
        Extras { found, bases: settings::base_urls() }
    }

    /// The references of a resource that count.
    pub fn of(&self, resource: Resource<'_>) -> Vec<(String, String)> {
        let mut references = Vec::new();
        each_reference(resource, &self.bases, |name, id| {
            let (Ok(name), Ok(id)) = (str::from_utf8(name), str::from_utf8(id)) else { return };
            if self.found.get(name).is_some_and(|(_, all)| !all.contains(id)) {
                references.push((name.to_owned(), id.to_owned()));
            }
        });
        references
    }

    /// Takes the references of a resource that is written.
    pub fn add(&mut self, references: &[(String, String)]) {
        for (name, id) in references {
            if let Some((new, all)) = self.found.get_mut(name)
                && all.insert(id.clone())
            {
                new.insert(id.clone());
            }
        }
    }

    /// The ids, of one type, that have been found since they were asked for; `None` if there are no more.
    pub fn next(&mut self) -> Option<(String, Vec<String>)> {
        let (name, (new, _)) = self.found.iter_mut().find(|(_, (new, _))| !new.is_empty())?;
        Some((name.clone(), std::mem::take(new).into_iter().collect()))
    }
}

/// Writes the files of what the exported resources refer to. They are read once more, because helpers may have written
/// them; what they refer to may refer to more.
///
/// # Errors
/// The errors of the tables and of the sink.
pub fn write(work: &Work, draft: &Draft) -> Result<Vec<Typed>> {
    let names = &work.kickoff.extras;
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let extras = RefCell::new(Extras::new(names));
    for name in &work.kickoff.types {
        let take = |resource: Resource<'_>| extras.borrow().of(resource);
        by_type::each_written(work, name, take, |references| extras.borrow_mut().add(references))?;
    }
    let mut extras = extras.into_inner();
    let mut files: BTreeMap<&str, Files> =
        names.iter().map(|name| (name.as_str(), Files::new(draft, name, work.target.format()))).collect();
    while let Some((name, ids)) = extras.next() {
        let of_type = files.get_mut(name.as_str()).expect("a file for each type");
        for ids in ids.chunks(AT_A_TIME) {
            let (mut lines, mut count) = (Vec::new(), 0);
            // What a query needs goes with it: there may be many.
            with_scratch(|| {
                work.open(&name, Rows::WithIds(ids), None)?.each(|stored| {
                    stored.write(&mut lines)?;
                    lines.push(b'\n');
                    count += 1;
                    let references = extras.of(stored.resource);
                    extras.add(&references);
                    Ok(ControlFlow::Continue(()))
                })
            })?;
            of_type.write(&lines, count)?;
        }
    }
    let mut written = Vec::new();
    for (name, files) in files {
        written.extend(files.finish()?.into_iter().map(|file| (name.to_owned(), file)));
    }
    Ok(written)
}
