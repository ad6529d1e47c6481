//! `repeat`: paths that are followed again from what they find.

use super::{Compiler, invalid, json};
use crate::error::Invalid;
use fhir_bulk_paths::compile::Compiled;
use fhir_bulk_paths::model::TypeId;
use fhir_bulk_paths::program::{Program, Value as Computed};
use serde_json::{Map, Value};

impl Compiler<'_> {
    /// The paths' programs, for items of all types that the paths lead to; and these items.
    pub fn repeat(
        &mut self,
        select: &Map<String, Value>,
        around: &str,
        base: Option<&Compiled>,
    ) -> Result<(Vec<Program>, Compiled), Invalid> {
        let paths = json::list(select, "repeat", around)?.unwrap_or_default();
        let element = json::member(around, "repeat");
        if paths.is_empty() {
            return Err(Invalid::new(&element, "it has no paths"));
        }
        let mut expressions = Vec::new();
        for (at, path) in paths.iter().enumerate() {
            let element = format!("{element}[{at}]");
            let Value::String(text) = path else { return Err(Invalid::new(&element, "it is not a string")) };
            expressions.push((self.parse(text, &element)?, element));
        }
        let first = match base {
            Some(base) => base.types.clone(),
            None => vec![self.model.find(self.resource_type).unwrap_or(TypeId::UNKNOWN)],
        };
        // The types that are reached, until there are no more. An element may be one of later types only.
        let mut all = Compiled { program: Program::This, types: first };
        let mut found: Vec<TypeId> = Vec::new();
        loop {
            let before = all.types.len();
            for (expression, _) in &expressions {
                let types = self.try_compile(expression, Some(&all)).map(|compiled| compiled.types);
                for id in types.into_iter().flatten() {
                    for list in [&mut all.types, &mut found] {
                        if !list.contains(&id) {
                            list.push(id);
                        }
                    }
                }
            }
            if all.types.len() == before {
                break;
            }
        }
        let mut programs = Vec::new();
        for (expression, element) in &expressions {
            match self.try_compile(expression, Some(&all)) {
                Ok(Compiled { program, .. }) if descends(&program) => programs.push(program),
                Ok(_) => {
                    let message = "it does not lead to elements of the item, so it would never end";
                    return Err(Invalid::new(element, message));
                }
                // A path that no item has ends at once: structures differ in how they repeat.
                Err(mistake) if mistake.is_missing => {}
                Err(mistake) => return Err(invalid(mistake, element)),
            }
        }
        if found.is_empty() {
            found.push(TypeId::UNKNOWN);
        }
        Ok((programs, Compiled { program: Program::This, types: found }))
    }
}

/// Whether a program leads from an item to what is inside of it.
fn descends(program: &Program) -> bool {
    match program {
        Program::Member { of, .. } | Program::Choice { of, .. } => **of == Program::This || descends(of),
        Program::Where(of, _) | Program::Nth(of, _) | Program::Resources(of, ..) => descends(of),
        Program::Union(parts) => parts.iter().all(descends),
        Program::Value(value) => matches!(&**value, Computed::OfTypes(of, _) if descends(of)),
        Program::Root | Program::This | Program::Id | Program::LastUpdated | Program::Boolean(_) => false,
    }
}
