//! Which patients resources belong to.

use super::Patients;
use crate::settings;
use fhir_bulk_paths::item::Resource;
use fhir_bulk_paths::search::Compartment;
use std::ops::ControlFlow;

/// The patients that resources of one type belong to, as far as they count.
pub struct Membership {
    compartment: Compartment,
    /// `None` for any patient.
    patients: Option<Patients>,
    bases: Vec<String>,
}

impl Membership {
    /// Of these patients, or of all.
    pub fn new(resource_type: &str, patients: Option<Patients>) -> Membership {
        // A type outside of the compartment belongs to nobody.
        let compartment = Compartment::of(settings::fhir_version(), resource_type).unwrap_or_default();
        Membership { compartment, patients, bases: settings::base_urls() }
    }

    /// Whether a resource belongs to one of them.
    #[inline]
    pub fn has(&self, resource: Resource<'_>) -> bool {
        self.each(resource, |_| ControlFlow::Break(())).is_break()
    }

    /// Passes the id of each of them that a resource belongs to, until `sink` breaks; one may come several times.
    #[inline]
    pub fn each<'j>(
        &self,
        resource: Resource<'j>,
        mut sink: impl FnMut(&'j [u8]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.compartment.each_patient(resource, &self.bases, |id| match &self.patients {
            Some(patients) if !patients.contains(id) => ControlFlow::Continue(()),
            _ => sink(id),
        })
    }
}
