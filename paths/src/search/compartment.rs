//! The Patient compartment: which patients a resource belongs to, by every search parameter that HL7's CompartmentDefinition
//! lists.

use super::links::Links;
use crate::item::Resource;
use fhir_bulk_codec::fhir::Version;
use std::ops::ControlFlow;

/// The Patient compartment of a resource type. The default is that of a type that belongs to nobody.
#[derive(Clone, Debug, Default)]
pub struct Compartment {
    /// The references to the patient.
    links: Vec<Links>,
    /// Whether a resource is a patient itself.
    is_patient: bool,
}

impl Compartment {
    /// The compartment of a type. `None` if resources of the type belong to no patient.
    pub fn of(version: Version, resource_type: &str) -> Option<Compartment> {
        let (_, names) = lines(version).find(|(name, _)| *name == resource_type)?;
        // `{def}` is the resource itself.
        let codes = names.split(',').filter(|code| !code.starts_with('{'));
        let links = codes.filter_map(|code| Links::of(version, resource_type, code)).collect();
        Some(Compartment { links, is_patient: resource_type == "Patient" })
    }

    /// The types whose resources belong to patients.
    pub fn types(version: Version) -> impl Iterator<Item = &'static str> {
        lines(version).map(|(name, _)| name)
    }

    /// Passes the id of each patient of ours that a resource belongs to; one may come several times. Stops when `sink`
    /// breaks. References to versions and to contained resources do not count.
    pub fn each_patient<'j>(
        &self,
        resource: Resource<'j>,
        bases: &[String],
        mut sink: impl FnMut(&'j [u8]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        if self.is_patient {
            sink(resource.id.as_bytes())?;
        }
        self.links.iter().try_for_each(|links| {
            links.each(resource, bases, |resource_type, id| match resource_type {
                b"Patient" => sink(id),
                _ => ControlFlow::Continue(()),
            })
        })
    }
}

/// The types of the compartment, with their parameters.
fn lines(version: Version) -> impl Iterator<Item = (&'static str, &'static str)> {
    let table = match version {
        Version::R4 => include_str!("../../definitions/compartment-r4.txt"),
        Version::R4B => include_str!("../../definitions/compartment-r4b.txt"),
        Version::R5 => include_str!("../../definitions/compartment-r5.txt"),
    };
    table.lines().filter_map(|line| line.split_once('\t'))
}
