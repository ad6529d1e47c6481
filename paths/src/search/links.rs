//! The resources that a search parameter's references lead to.

use super::parameters;
use super::reference::Target;
use crate::compile::compile;
use crate::item::Resource;
use crate::model::Model;
use crate::program::{Program, Scope};
use fhir_bulk_codec::fhir::Version;
use std::ops::ControlFlow;

/// The references of a search parameter.
#[derive(Clone, Debug)]
pub struct Links(Program);

impl Links {
    /// Those of a parameter of HL7's. `None` if there is no such parameter, or it cannot be compiled.
    pub fn of(version: Version, resource_type: &str, code: &str) -> Option<Links> {
        let parameter = parameters::find(version, resource_type, code)?;
        Some(Links(compile(Model::of(version), resource_type, &parameter.expression).ok()??.program))
    }

    /// Passes type and id of each resource of ours that a resource refers to, until `sink` breaks. References to versions
    /// and to contained resources do not count.
    pub fn each<'j>(
        &self,
        resource: Resource<'j>,
        bases: &[String],
        mut sink: impl FnMut(&'j [u8], &'j [u8]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let scope = Scope::new(resource, bases);
        self.0.run(&scope, resource.item(), &mut |item| match Target::of(&item, bases) {
            Some(Target::Resource { resource_type, id }) => sink(resource_type, id),
            _ => ControlFlow::Continue(()),
        })
    }
}
