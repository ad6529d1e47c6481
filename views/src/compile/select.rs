//! Selects and their columns.

use super::{Compiler, Path, json};
use crate::column::Column;
use crate::error::Invalid;
use crate::plan::{Each, Node, Output, Over, Part};
use fhir_bulk_paths::compile::Compiled;
use fhir_bulk_paths::program::Program;
use serde_json::{Map, Value};

/// How deep selects may nest.
const MAX_DEPTH: usize = 64;
/// What a select may have.
const MEMBERS: [&str; 6] = ["column", "select", "forEach", "forEachOrNull", "repeat", "unionAll"];
/// Where FHIR's types have their urls.
const TYPES: [&str; 2] = ["http://hl7.org/fhir/StructureDefinition/", "http://hl7.org/fhirpath/System."];
/// Primitive types that an older release does not have.
const NEWER: [&str; 1] = ["integer64"];

/// What a select iterates over.
struct Iteration {
    over: Over,
    element: String,
    /// The items.
    found: Compiled,
    /// How deep its expression is.
    depth: usize,
}

impl Compiler<'_> {
    /// Adds what a select has to the node around it.
    pub fn select(
        &mut self,
        select: &Value,
        element: &str,
        base: Option<&Compiled>,
        around: &mut Node,
        depth: usize,
    ) -> Result<(), Invalid> {
        self.count(element)?;
        if depth == MAX_DEPTH {
            return Err(Invalid::new(element, format!("selects nest deeper than {MAX_DEPTH} levels")));
        }
        let select = json::object(select, element, &MEMBERS)?;
        let Some(Iteration { over, element: place, found, depth: deep }) = self.over(select, element, base)? else {
            return self.content(select, element, base, around, depth);
        };
        let mut node = Node::default();
        self.content(select, element, Some(&found), &mut node, depth)?;
        self.finish(&mut node, Some(&found));
        let over = match over {
            Over::ItemsOrNull(program, mut outputs) => {
                indexed(&node, &mut outputs);
                Over::ItemsOrNull(program, outputs)
            }
            over => over,
        };
        around.parts.push(Part::Each(Each { over, node, depth: deep, element: place }));
        Ok(())
    }

    /// What a select iterates over, if it does; its place, and the items.
    fn over(
        &mut self,
        select: &Map<String, Value>,
        element: &str,
        base: Option<&Compiled>,
    ) -> Result<Option<Iteration>, Invalid> {
        let is_there = |name: &&str| select.get(*name).is_some_and(|value| !value.is_null());
        let mut names = ["forEach", "forEachOrNull", "repeat"].into_iter().filter(is_there);
        let Some(name) = names.next() else { return Ok(None) };
        if let Some(other) = names.next() {
            return Err(Invalid::new(element, format!("it has both {name} and {other}"))
                .hint("A select has at most one of forEach, forEachOrNull and repeat."));
        }
        let place = json::member(element, name);
        if name == "repeat" {
            // Its paths have ended before the rows of an item are made.
            let (programs, found) = self.repeat(select, element, base)?;
            return Ok(Some(Iteration { over: Over::Repeat(programs), element: place, found, depth: 0 }));
        }
        let text = json::text(select, name, element)?.unwrap_or_default();
        let Path { compiled, depth, .. } = self.path(text, &place, base)?;
        let found = Compiled { program: Program::This, types: compiled.types };
        let over = match name {
            "forEach" => Over::Items(compiled.program),
            _ => Over::ItemsOrNull(compiled.program, Vec::new()),
        };
        Ok(Some(Iteration { over, element: place, found, depth }))
    }

    /// Columns, then selects, then the union: the order of columns.
    fn content(
        &mut self,
        select: &Map<String, Value>,
        element: &str,
        base: Option<&Compiled>,
        node: &mut Node,
        depth: usize,
    ) -> Result<(), Invalid> {
        for (at, column) in json::list(select, "column", element)?.unwrap_or_default().iter().enumerate() {
            let element = format!("{element}.column[{at}]");
            let output = self.column(column, element, base)?;
            node.outputs.push(output);
        }
        for (at, inner) in json::list(select, "select", element)?.unwrap_or_default().iter().enumerate() {
            self.select(inner, &format!("{element}.select[{at}]"), base, node, depth + 1)?;
        }
        let branches = json::list(select, "unionAll", element)?.unwrap_or_default();
        if branches.is_empty() {
            return Ok(());
        }
        let (first, end) = (self.next, self.end);
        let mut nodes = Vec::new();
        for (at, branch) in branches.iter().enumerate() {
            let element = format!("{element}.unionAll[{at}]");
            let mut node = Node::default();
            if at > 0 {
                self.end = Some(self.next);
                self.next = first;
            }
            self.select(branch, &element, base, &mut node, depth + 1)?;
            if let (true, Some(wanted)) = (at > 0, self.end) {
                if self.next < wanted {
                    let missing = &self.columns[self.next].name;
                    return Err(Invalid::new(&element, format!("column \"{missing}\" of the first branch is missing"))
                        .hint("All branches of a unionAll have the same columns in the same order."));
                }
                self.end = end;
            }
            self.finish(&mut node, base);
            nodes.push(node);
        }
        node.parts.push(Part::Union(nodes));
        Ok(())
    }

    fn column(&mut self, column: &Value, element: String, base: Option<&Compiled>) -> Result<Output, Invalid> {
        self.count(&element)?;
        let column = json::object(column, &element, &["name", "path", "type", "collection", "description", "tag"])?;
        let name = json::name(column, &element)?.to_owned();
        let (text, place) = json::path(column, &element)?;
        let declared = self.declared(column, &element)?;
        let collection = json::flag(column, "collection", &element)?;
        let ansi = ansi_type(column, &element)?;
        let path = self.path(text, &place, base)?;
        let found = path.compiled.types.iter().map(|id| self.model.name(*id)).collect();
        self.output(Column { name, declared, found, collection, ansi, element }, path)
    }

    /// The type that a column says: FHIR's name, a url, or an element's path for what has no name.
    fn declared(&self, column: &Map<String, Value>, element: &str) -> Result<Option<String>, Invalid> {
        let Some(text) = json::text(column, "type", element)? else { return Ok(None) };
        let name = TYPES.iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
        let small = name.get(..1).map(|first| first.to_ascii_lowercase() + &name[1..]).unwrap_or_default();
        let is_known = |name: &str| self.model.find(name).is_some() || NEWER.contains(&name);
        let is_element = name.split_once('.').is_some_and(|(of, _)| is_known(of) || of == self.resource_type);
        match (is_known(name) || is_element, is_known(&small)) {
            (true, _) if !name.is_empty() => Ok(Some(name.to_owned())),
            (_, true) if text != name => Ok(Some(small)),
            _ => {
                let message = format!("there is no type {}", json::shown(text));
                Err(Invalid::new(&json::member(element, "type"), message))
            }
        }
    }
}

/// The columns of a node that ask for their number: they have one in a row of nulls, too.
fn indexed(node: &Node, outputs: &mut Vec<Output>) {
    outputs.extend(node.outputs.iter().filter(|output| output.is_indexed).cloned());
    for part in &node.parts {
        match part {
            Part::Each(each) => indexed(&each.node, outputs),
            // All branches have the same columns.
            Part::Union(branches) => branches.iter().take(1).for_each(|branch| indexed(branch, outputs)),
        }
    }
}

/// The value of the tag `ansi/type`.
fn ansi_type(column: &Map<String, Value>, element: &str) -> Result<Option<String>, Invalid> {
    for (at, tag) in json::list(column, "tag", element)?.unwrap_or_default().iter().enumerate() {
        let element = format!("{element}.tag[{at}]");
        let tag = json::object(tag, &element, &["name", "value"])?;
        if json::text(tag, "name", &element)? == Some("ansi/type") {
            let value = json::text(tag, "value", &element)?;
            return value
                .map(|value| Some(value.to_owned()))
                .ok_or_else(|| Invalid::new(&json::member(&element, "value"), "it is missing"));
        }
    }
    Ok(None)
}
