//! Resources that come with an export of patients because others refer to them (`fhir_bulk.export_extras`): practitioners,
//! organizations, locations, medications.

use crate::settings;
use fhir_bulk_paths::item::Resource;
use fhir_bulk_paths::search::each_reference;
use std::collections::{BTreeMap, BTreeSet};

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

    /// Takes the references of a resource that is written.
    pub fn look_at(&mut self, resource: Resource<'_>) {
        let Extras { found, bases } = self;
        each_reference(resource, bases, |name, id| {
            let (Ok(name), Ok(id)) = (str::from_utf8(name), str::from_utf8(id)) else { return };
            if let Some((new, all)) = found.get_mut(name)
                && !all.contains(id)
            {
                all.insert(id.to_owned());
                new.insert(id.to_owned());
            }
        });
    }

    /// The ids, of one type, that have been found since they were asked for; `None` if there are no more.
    pub fn next(&mut self) -> Option<(String, Vec<String>)> {
        let (name, (new, _)) = self.found.iter_mut().find(|(_, (new, _))| !new.is_empty())?;
        Some((name.clone(), std::mem::take(new).into_iter().collect()))
    }
}
