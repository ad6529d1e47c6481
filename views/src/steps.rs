//! Columns that are plain paths, found together: one walk over an object finds the members of all of them. Most columns are
//! such paths, and many of them start alike.

use crate::cell::Cell;
use fhir_bulk_codec::jsonb::walk::{self, Container, Name, Shape, Slice};
use fhir_bulk_paths::item::{Item, Value};
use fhir_bulk_paths::model::TypeId;
use fhir_bulk_paths::program::{reference, reference_key};

/// Steps from an object to its members, in jsonb's order of names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Steps(Vec<Step>);

/// A step to a member, and what is done with it.
#[derive(Clone, Debug)]
struct Step {
    name: Name,
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
    rest: Rest,
}

/// What is made of a value.
#[derive(Clone, Debug)]
pub(crate) enum Rest {
    /// The value itself.
    Nothing,
    /// The `reference` of a Reference.
    Reference,
    /// The id of what a Reference refers to; of one type, if it is named.
    ReferenceKey(Option<Box<str>>),
}

impl Steps {
    /// Adds a path; `false` if it differs from another one in what is a list.
    pub fn add(&mut self, names: &[(&str, bool, TypeId)], output: usize, rest: Rest) -> bool {
        let Some((&(name, is_list, type_id), names)) = names.split_first() else { return false };
        let at = match self.0.binary_search_by(|step| step.name.order(Slice::of(name.as_bytes())).reverse()) {
            Ok(at) if self.0[at].is_list == is_list => at,
            Ok(_) => return false,
            Err(at) => {
                let (leaves, inside) = (Vec::new(), Steps::default());
                self.0.insert(at, Step { name: Name::new(name), is_list, leaves, inside });
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

    /// Finds the members of an object, in their order. `bases` are the urls of servers whose resources are ours.
    pub fn fill<'a>(&self, mut object: Container<'a>, bases: &[String], cells: &mut [Cell<'a>]) {
        for step in &self.0 {
            if let Some(value) = object.next_named(&step.name) {
                step.take(value, bases, cells);
            }
        }
    }
}

impl Step {
    #[inline]
    fn take<'a>(&self, value: walk::Value<'a>, bases: &[String], cells: &mut [Cell<'a>]) {
        let value = match (self.is_list, value.shape()) {
            (false, Shape::Scalar | Shape::Object) => value,
            (true, Shape::Array) => match first(value) {
                Some(found) => found,
                None => return,
            },
            _ => return,
        };
        for leaf in &self.leaves {
            let item = Item { value: Value::Json(value), type_id: leaf.type_id };
            let made = match &leaf.rest {
                Rest::Nothing => {
                    cells[leaf.output] = Cell::One(item);
                    continue;
                }
                Rest::Reference => reference(&item),
                Rest::ReferenceKey(wanted) => reference_key(&item, bases, wanted.as_deref()),
            };
            cells[leaf.output] = made.map_or(Cell::Null, Cell::One);
        }
        if !self.inside.is_empty()
            && let Some(object) = value.container()
        {
            self.inside.fill(object, bases, cells);
        }
    }
}

/// The first element of an array that is a value: FHIR has no arrays in arrays.
#[inline]
fn first(array: walk::Value<'_>) -> Option<walk::Value<'_>> {
    let mut array = array.container()?;
    loop {
        let value = array.next_element()?;
        if matches!(value.shape(), Shape::Scalar | Shape::Object) {
            return Some(value);
        }
    }
}
