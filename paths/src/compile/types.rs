//! Types: which items have one.

use super::member::plain;
use super::{Compiled, Compiler, Result_, union, unsupported};
use crate::model::TypeId;
use crate::program::{Condition, OfType, Program, Value};
use crate::syntax::{Expression, Mistake};

impl Compiler<'_> {
    /// Those items that have a type; `None` if none can have it.
    pub(super) fn typed(&self, of: &Expression, name: &str, this: Option<&Compiled>) -> Result_ {
        let wanted = self.type_named(name)?;
        self.items(of, this)?.map_or(Ok(None), |of| self.of_type(of, wanted))
    }

    pub(super) fn type_named(&self, name: &str) -> Result<TypeId, Mistake> {
        // HL7 has `as(DateTime)`, too.
        let small = || self.model.find(&(name.get(..1)?.to_ascii_lowercase() + &name[1..]));
        let found = self.model.find(name).or_else(small).filter(|_| !name.is_empty());
        found.ok_or_else(|| Mistake::new(format!("there is no type {name}")))
    }

    /// Whether a type is another one, or derives from it.
    fn is(&self, id: TypeId, wanted: TypeId) -> bool {
        id == wanted || is_subtype(self.model.name(id), self.model.name(wanted))
    }

    pub(super) fn is_of_type(&self, of: Compiled, wanted: TypeId) -> Condition {
        let types: Vec<TypeId> = of.types.iter().copied().filter(|id| self.is(*id, wanted)).collect();
        let kind = if types.len() == of.types.len() {
            OfType::All
        } else if of.types.contains(&TypeId::RESOURCE) && self.model.is_resource(wanted) {
            OfType::Resource(self.model.name(wanted).into())
        } else {
            OfType::Types(types)
        };
        Condition::IsOfType(of.program, kind)
    }

    fn of_type(&self, of: Compiled, wanted: TypeId) -> Result_ {
        let is_wanted = |id: &TypeId| self.is(*id, wanted);
        if !of.types.iter().any(is_wanted) {
            if !(of.types.contains(&TypeId::RESOURCE) && self.model.is_resource(wanted)) {
                if self.view.is_some() && !of.types.contains(&TypeId::UNKNOWN) {
                    let of: Vec<&str> = of.types.iter().map(|of| self.model.name(*of)).collect();
                    return Err(Mistake::new(format!("{} is never {}", of.join(" | "), self.model.name(wanted))));
                }
                return Ok(None);
            }
            let program = Program::Resources(Box::new(of.program), self.model.name(wanted).into(), wanted);
            return Ok(Some(Compiled { program, types: vec![wanted] }));
        }
        match of.program {
            Program::Choice { of, types } => {
                let mut found: Vec<_> = types.into_iter().filter(|(_, id)| is_wanted(id)).collect();
                if found.len() == 1 {
                    return Ok(found.pop().map(|(stored, id)| plain(*of, &stored, vec![id], Some(false))));
                }
                let types = found.iter().map(|(_, id)| *id).collect();
                Ok(Some(Compiled { program: Program::Choice { of, types: found }, types }))
            }
            Program::Union(parts) if self.view.is_some() => {
                let mut found: Option<Compiled> = None;
                for program in parts {
                    let part = Compiled { program, types: of.types.clone() };
                    let Some(part) = self.of_type(part, wanted)? else { continue };
                    found = Some(match found {
                        Some(found) => union(found, part),
                        None => part,
                    });
                }
                Ok(found)
            }
            program if of.types.iter().all(is_wanted) => Ok(Some(Compiled { program, types: of.types })),
            program if self.view.is_some() => {
                let types: Vec<TypeId> = of.types.into_iter().filter(is_wanted).collect();
                let program = Value::OfTypes(program, types.clone());
                Ok(Some(Compiled { program: Program::Value(Box::new(program)), types }))
            }
            _ => Err(unsupported(&format!("a selection of {} from these items", self.model.name(wanted)))),
        }
    }
}

/// Whether FHIR derives a type from another one: of the types that choices have.
fn is_subtype(name: &str, of: &str) -> bool {
    match of {
        "uri" => matches!(name, "url" | "canonical" | "oid" | "uuid"),
        "string" => matches!(name, "code" | "id" | "markdown"),
        "integer" => matches!(name, "positiveInt" | "unsignedInt"),
        "Quantity" => matches!(name, "Age" | "Count" | "Distance" | "Duration"),
        _ => false,
    }
}
