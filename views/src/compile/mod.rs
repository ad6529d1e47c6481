//! Compiles ViewDefinitions.
//!
//! 1. the constants
//! 2. what resources have to fulfil
//! 3. the selects, from the outside to the inside: selects that do not iterate become a part of the one around them
//! 4. how deep all of it nests and multiplies

mod constant;
mod json;
mod levels;
mod repeat;
mod select;
mod together;

use crate::column::Column;
use crate::error::Invalid;
use crate::plan::{Node, Output, View, Where};
use fhir_bulk_codec::fhir::Version;
use fhir_bulk_paths::compile::{Compiled, Constants, compile_for_view};
use fhir_bulk_paths::model::{Model, TypeId};
use fhir_bulk_paths::program::{Column as Own, Program, Value as Computed};
use fhir_bulk_paths::syntax::{Expression, Mistake, parse};
use serde_json::{Map, Value};
use std::collections::HashSet;

/// The most columns of a view.
const MAX_COLUMNS: usize = 10_000;
/// The most columns of all branches of its unions, and the most selects.
const MAX_ELEMENTS: usize = 100_000;
/// The most bytes of all its expressions.
const MAX_BYTES: usize = 4 << 20;

impl View {
    /// Compiles a ViewDefinition by the definitions of a release.
    ///
    /// # Errors
    /// What is not a ViewDefinition, with its element; what is not an expression for such resources, with its byte.
    pub fn compile(version: Version, definition: &Value) -> Result<View, Invalid> {
        let Value::Object(view) = definition else {
            return Err(Invalid::new("", "it is not a JSON object").hint("A view is a ViewDefinition of SQL on FHIR."));
        };
        if view.get("resourceType").is_some_and(|found| found != "ViewDefinition") {
            return Err(Invalid::new("resourceType", "it is not ViewDefinition"));
        }
        let resource_type = json::text(view, "resource", "")?.ok_or_else(|| {
            Invalid::new("resource", "it is missing")
                .hint("It names the type of the view's resources, such as Patient.")
        })?;
        if !is_type(resource_type) {
            return Err(Invalid::new("resource", format!("\"{}\" is not a resource type", json::shown(resource_type))));
        }
        let mut compiler = Compiler {
            model: Model::of(version),
            resource_type,
            constants: constant::constants(view, Model::of(version))?,
            columns: Vec::new(),
            names: HashSet::new(),
            next: 0,
            end: None,
            elements: 0,
            bytes: 0,
        };
        let wheres = compiler.wheres(view)?;
        let mut root = Node::default();
        let selects = json::list(view, "select", "")?.unwrap_or_default();
        if selects.is_empty() {
            return Err(Invalid::new("select", "it is missing").hint("It has the view's columns."));
        }
        for (at, select) in selects.iter().enumerate() {
            compiler.select(select, &format!("select[{at}]"), None, &mut root, 0)?;
        }
        compiler.finish(&mut root, None);
        if compiler.columns.is_empty() {
            return Err(Invalid::new("select", "it has no columns"));
        }
        let levels = levels::check(&root)?;
        let Compiler { constants, columns, .. } = compiler;
        Ok(View { version, resource_type: resource_type.to_owned(), columns, constants, wheres, root, levels })
    }
}

struct Compiler<'c> {
    model: &'static Model,
    resource_type: &'c str,
    constants: Constants,
    columns: Vec<Column>,
    /// The columns' names.
    names: HashSet<String>,
    /// The next column's number, and the one at which a further branch of a union has to end.
    next: usize,
    end: Option<usize>,
    /// Selects and columns so far, and bytes of expressions.
    elements: usize,
    bytes: usize,
}

/// An expression, compiled.
struct Path {
    compiled: Compiled,
    depth: usize,
    is_indexed: bool,
}

impl Compiler<'_> {
    fn wheres(&mut self, view: &Map<String, Value>) -> Result<Vec<Where>, Invalid> {
        let mut wheres = Vec::new();
        for (at, found) in json::list(view, "where", "")?.unwrap_or_default().iter().enumerate() {
            let around = format!("where[{at}]");
            let found = json::object(found, &around, &["path", "description"])?;
            let (text, element) = json::path(found, &around)?;
            let Path { compiled, .. } = self.path(text, &element, None)?;
            let types = &compiled.types;
            if !types.iter().any(|id| matches!(*id, TypeId::BOOLEAN | TypeId::UNKNOWN)) {
                let types: Vec<&str> = types.iter().map(|id| self.model.name(*id)).collect();
                let message = format!("it is {}, and has to be a boolean", types.join(" | "));
                return Err(Invalid::new(&element, message).hint("Compare it, or ask whether it exists()."));
            }
            wheres.push(Where { program: compiled.program, element });
            self.count(&around)?;
        }
        Ok(wheres)
    }

    /// Compiles an expression that starts at an item of `base`; at the resource without it.
    fn path(&mut self, text: &str, element: &str, base: Option<&Compiled>) -> Result<Path, Invalid> {
        let expression = self.parse(text, element)?;
        let compiled = self.compile(&expression, element, base)?;
        Ok(Path { compiled, depth: expression.depth(), is_indexed: expression.uses("rowIndex") })
    }

    fn parse(&mut self, text: &str, element: &str) -> Result<Expression, Invalid> {
        self.bytes += text.len();
        if self.bytes > MAX_BYTES {
            return Err(Invalid::new(element, format!("the view's expressions have more than {MAX_BYTES} bytes")));
        }
        parse(text).map_err(|mistake| invalid(mistake, element))
    }

    fn compile(
        &mut self,
        expression: &Expression,
        element: &str,
        base: Option<&Compiled>,
    ) -> Result<Compiled, Invalid> {
        self.try_compile(expression, base).map_err(|mistake| invalid(mistake, element))
    }

    fn try_compile(&mut self, expression: &Expression, base: Option<&Compiled>) -> Result<Compiled, Mistake> {
        compile_for_view(self.model, self.resource_type, base, &mut self.constants, expression)
    }

    /// Counts a column or a select.
    fn count(&mut self, element: &str) -> Result<(), Invalid> {
        self.elements += 1;
        if self.elements > MAX_ELEMENTS {
            return Err(Invalid::new(element, format!("the view has more than {MAX_ELEMENTS} columns and selects")));
        }
        Ok(())
    }

    /// Adds a column, or finds its number if it is in a further branch of a union.
    fn place(&mut self, column: Column) -> Result<usize, Invalid> {
        let number = self.next;
        match self.end {
            None => {
                if self.columns.len() == MAX_COLUMNS {
                    return Err(Invalid::new(&column.element, format!("the view has more than {MAX_COLUMNS} columns")));
                }
                if !self.names.insert(column.name.clone()) {
                    let message = format!("another column has the name \"{}\"", column.name);
                    return Err(Invalid::new(&format!("{}.name", column.element), message));
                }
                self.columns.push(column);
            }
            Some(end) => {
                let first = (number < end).then(|| &mut self.columns[number]);
                let differs = |message: String| {
                    Invalid::new(&column.element, message)
                        .hint("All branches of a unionAll have the same columns in the same order.")
                };
                let Some(first) = first else {
                    return Err(differs(format!("column \"{}\" is not in the first branch", column.name)));
                };
                if first.name != column.name {
                    let message =
                        format!("column \"{}\" stands where the first branch has \"{}\"", column.name, first.name);
                    return Err(differs(message));
                }
                if first.collection != column.collection {
                    return Err(differs(format!("only in one branch, \"{}\" is a collection", column.name)));
                }
                if let (Some(here), Some(there)) = (&column.declared, &first.declared)
                    && here != there
                {
                    let message = format!("column \"{}\" is {here} here, and {there} in the first branch", column.name);
                    return Err(differs(message));
                }
                first.declared = first.declared.take().or(column.declared);
                first.ansi = first.ansi.take().or(column.ansi);
                for found in column.found {
                    if !first.found.contains(&found) {
                        first.found.push(found);
                    }
                }
            }
        }
        self.next += 1;
        Ok(number)
    }

    /// Finds the outputs of a node together that are plain paths from its item.
    fn finish(&self, node: &mut Node, base: Option<&Compiled>) {
        let start = if base.is_some() { Program::This } else { Program::Root };
        node.steps = together::together(&mut node.outputs, &start, |column| self.columns[column].collection);
    }

    fn output(&mut self, column: Column, path: Path) -> Result<Output, Invalid> {
        let element = format!("{}.path", column.element);
        let number = self.place(column)?;
        let Path { compiled: Compiled { program, .. }, is_indexed, .. } = path;
        let is_id = matches!(&program, Program::Value(value) if matches!(**value, Computed::Column(Program::Root, Own::Id)))
            && !self.columns[number].collection;
        Ok(Output { column: number, program, is_indexed, is_id, is_found_with_others: false, element })
    }
}

fn invalid(mistake: Mistake, element: &str) -> Invalid {
    Invalid { at: mistake.at, ..Invalid::new(element, mistake.message) }
}

/// Whether a text may be the name of a resource type, also of one that is not FHIR's.
fn is_type(name: &str) -> bool {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic());
    starts && name.len() <= 55 && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
}
