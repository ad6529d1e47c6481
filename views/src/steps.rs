//! Columns that are plain paths, found together: one walk over an object finds the members of all of them. Most columns are
//! such paths, and many of them start alike.

use crate::cell::Cell;
use fhir_bulk_codec::jsonb::walk::{self, Container, Slice};
use fhir_bulk_paths::item::{Item, Value};
use fhir_bulk_paths::model::TypeId;
use fhir_bulk_paths::program::Program;
use std::cmp::Ordering;

/// Steps from an object to its members, in jsonb's order of names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Steps(Vec<Step>);

/// A step to a member, and what is done with it.
#[derive(Clone, Debug)]
struct Step {
    name: Box<str>,
    /// The name's rank.
    rank: u64,
    /// Whether the member is a list, of which the first element is taken.
    is_list: bool,
    /// Cells that have the value.
    leaves: Vec<Leaf>,
    inside: Steps,
}

/// A cell that has a value.
#[derive(Clone, Debug)]
struct Leaf {
    /// Which of the node's outputs.
    output: usize,
    type_id: TypeId,
    /// What is made of the value, if it is not the value itself.
    rest: Option<Program>,
}

impl Steps {
    /// Adds a path; `false` if it differs from another one in what is a list.
    pub fn add(&mut self, names: &[(&str, bool, TypeId)], output: usize, rest: Option<Program>) -> bool {
        let Some((&(name, is_list, type_id), names)) = names.split_first() else { return false };
        let at = match self.0.binary_search_by(|step| order(step.name.as_bytes(), name.as_bytes())) {
            Ok(at) if self.0[at].is_list == is_list => at,
            Ok(_) => return false,
            Err(at) => {
                let inside = Steps::default();
                let rank = Slice::of(name.as_bytes()).rank();
                self.0.insert(at, Step { name: name.into(), rank, is_list, leaves: Vec::new(), inside });
                at
            }
        };
        let step = &mut self.0[at];
        if names.is_empty() {
            step.leaves.push(Leaf { output, type_id, rest });
            return true;
        }
        step.inside.add(names, output, rest)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Finds the members of an object, in their order. `rest` makes of a value what a program says.
    pub fn fill<'a>(
        &self,
        mut object: Container<'a>,
        cells: &mut [Cell<'a>],
        rest: &mut dyn FnMut(&Program, Item<'a>) -> Cell<'a>,
    ) {
        let mut steps = self.0.iter();
        let Some(mut step) = steps.next() else { return };
        while let Some((name, value)) = object.next_member() {
            let rank = name.rank();
            loop {
                // Most names are told apart by their ranks.
                let of_ranks = rank.cmp(&step.rank);
                let is_told = of_ranks.is_ne() || step.name.len() <= 7;
                match if is_told { of_ranks } else { order(name.as_bytes(), step.name.as_bytes()) } {
                    Ordering::Less => break,
                    found => {
                        if found == Ordering::Equal {
                            step.take(value, cells, rest);
                        }
                        match steps.next() {
                            Some(next) => step = next,
                            None => return,
                        }
                        if found == Ordering::Equal {
                            break;
                        }
                    }
                }
            }
        }
    }
}

impl Step {
    #[inline]
    fn take<'a>(
        &self,
        value: walk::Value<'a>,
        cells: &mut [Cell<'a>],
        rest: &mut dyn FnMut(&Program, Item<'a>) -> Cell<'a>,
    ) {
        let container = value.container();
        let array = container.as_ref().filter(|container| !container.is_object());
        let (value, container) = match (self.is_list, array) {
            (false, None) if !value.is_null() => (value, container),
            (true, Some(array)) => {
                let mut array = array.clone();
                loop {
                    let Some(value) = array.next_element() else { return };
                    let container = value.container();
                    if !value.is_null() && container.as_ref().is_none_or(Container::is_object) {
                        break (value, container);
                    }
                }
            }
            _ => return,
        };
        for leaf in &self.leaves {
            let item = Item { value: Value::Json(value), type_id: leaf.type_id };
            cells[leaf.output] = match &leaf.rest {
                None => Cell::One(item),
                Some(program) => rest(program, item),
            };
        }
        if let Some(object) = container
            && !self.inside.is_empty()
        {
            self.inside.fill(object, cells, rest);
        }
    }
}

/// jsonb's order of names: by length, then by bytes.
#[inline]
fn order(a: &[u8], b: &[u8]) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}
