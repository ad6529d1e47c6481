//! Members of items, in Aidbox's form.

use super::{Compiled, Compiler, unsupported};
use crate::model::{Element, TypeId};
use crate::program::{Condition, Literal, Program};
use crate::syntax::Mistake;

impl Compiler<'_> {
    /// A member of the items. What columns have is read from them.
    pub(super) fn member(&self, of: Compiled, name: &str) -> Result<Compiled, Mistake> {
        if self.view.is_some() {
            if let Some(column) = self.column(&of, name) {
                return Ok(column);
            }
            if let Some(found) = self.of_reference(&of, name) {
                return Ok(found);
            }
        }
        if of.program == Program::Root && name == "id" {
            return Ok(Compiled { program: Program::Id, types: vec![TypeId::STRING] });
        }
        if let Program::Member { of: root, name: meta, .. } = &of.program
            && **root == Program::Root
            && &**meta == "meta"
            && name == "lastUpdated"
        {
            return Ok(Compiled { program: Program::LastUpdated, types: vec![TypeId::INSTANT] });
        }
        if matches!(name, "extension" | "modifierExtension") {
            return Ok(self.extensions(of, name));
        }
        if of.types == [TypeId::REFERENCE] && name == "reference" {
            return Ok(literal_references(of));
        }
        if self.view.is_some() && of.types == [TypeId::EXTENSION] && name == "value" {
            return Ok(self.value_of_extension(of));
        }
        let found: Vec<&Element> = of.types.iter().filter_map(|of| self.model.element(*of, name)).collect();
        let Some(first) = found.first() else {
            if of.types.contains(&TypeId::UNKNOWN) {
                return Ok(plain(of.program, name, vec![TypeId::UNKNOWN], None));
            }
            let of: Vec<&str> = of.types.iter().map(|of| self.model.name(*of)).collect();
            return Err(Mistake::missing(format!("{} has no element {name}", of.join(" | "))));
        };
        if found.iter().any(|element| element.is_choice != first.is_choice) {
            return Err(unsupported(&format!("{name}, which is a choice in one type and not in another")));
        }
        let mut types = Vec::new();
        for id in found.iter().flat_map(|element| &element.types) {
            if !types.contains(id) {
                types.push(*id);
            }
        }
        if first.is_choice {
            let value = plain(of.program, name, vec![TypeId::UNKNOWN], Some(false));
            let named = types.iter().map(|id| (self.model.name(*id).into(), *id)).collect();
            return Ok(Compiled { program: Program::Choice { of: Box::new(value.program), types: named }, types });
        }
        let is_list = found.iter().all(|element| element.is_list == first.is_list).then_some(first.is_list);
        Ok(plain(of.program, name, types, is_list))
    }

    /// The extensions of the items; those of a primitive are in the member with `_` before its name. Those of a choice's
    /// primitive are not found: they are beside the choice, under FHIR's name.
    pub(super) fn extensions(&self, of: Compiled, name: &str) -> Compiled {
        let primitive = of.types.iter().all(|of| self.model.is_primitive(*of));
        let program = match of.program {
            Program::Member { of, name, is_list, .. } if primitive => {
                Program::Member { of, name: format!("_{name}").into(), type_id: TypeId::UNKNOWN, is_list }
            }
            other => other,
        };
        plain(program, name, vec![TypeId::EXTENSION], Some(true))
    }

    pub(super) fn extension(&self, of: Compiled, url: &str) -> Compiled {
        let extensions = self.extensions(of, "extension");
        let found = plain(Program::This, "url", vec![TypeId::STRING], Some(false));
        let condition = Condition::Equals(found.program, Literal::Text(url.into()));
        Compiled { program: Program::Where(Box::new(extensions.program), Box::new(condition)), types: extensions.types }
    }
}

pub(super) fn plain(of: Program, name: &str, types: Vec<TypeId>, is_list: Option<bool>) -> Compiled {
    // The type of several is told by their form.
    let type_id = if types.len() == 1 { types[0] } else { TypeId::UNKNOWN };
    Compiled { program: Program::Member { of: Box::new(of), name: name.into(), type_id, is_list }, types }
}

/// `reference` of References: those that have one. Aidbox's form has it in parts, so the Reference stands for it.
fn literal_references(of: Compiled) -> Compiled {
    let has = |name| Condition::Exists(plain(Program::This, name, vec![TypeId::STRING], Some(false)).program);
    let one = |left, right| Condition::Or(Box::new(left), Box::new(right));
    let condition = one(one(has("resourceType"), has("uri")), one(has("localRef"), has("reference")));
    Compiled { program: Program::Where(Box::new(of.program), Box::new(condition)), types: of.types }
}
