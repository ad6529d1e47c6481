//! Programs, and how they run.
//!
//! | room | contents |
//! |---|---|
//! | `run` | the items that a program finds |
//! | `condition` | true, false or unknown |
//! | `reference` | what references refer to |

mod condition;
mod reference;
mod run;

use crate::item::Resource;
use crate::model::TypeId;
use std::cell::Cell;
use std::ops::ControlFlow::{self, Break, Continue};

pub(crate) use reference::without_base;
pub use run::Sink;

/// Finds items in a resource.
#[derive(Clone, Debug, PartialEq)]
pub enum Program {
    /// The resource.
    Root,
    /// The item in question: the one that a `where` looks at, the base of a composite.
    This,
    /// Column `id`.
    Id,
    /// Column `ts`.
    LastUpdated,
    /// A member of an object, or its elements.
    Member {
        /// Where the objects are.
        of: Box<Program>,
        /// The stored name.
        name: Box<str>,
        /// The type of the values.
        type_id: TypeId,
        /// Whether it is a list, or one value. `None` where the definitions do not say it: then it may be either.
        is_list: Option<bool>,
    },
    /// All types of a choice: the members of Aidbox's object for it.
    Choice {
        /// Where the choices are.
        of: Box<Program>,
        /// The types of the choice, by Aidbox's names.
        types: Vec<(Box<str>, TypeId)>,
    },
    /// Those items for which a condition holds.
    Where(Box<Program>, Box<Condition>),
    /// One of the items, counted from 0.
    Nth(Box<Program>, usize),
    /// Those items that are resources of a type.
    Resources(Box<Program>, Box<str>, TypeId),
    /// The items of all of them. Equal ones are not removed.
    Union(Vec<Program>),
    /// One boolean; none if it is unknown.
    Boolean(Box<Condition>),
}

/// True, false or unknown of an item: FHIRPath's logic has three values, and unknown is an empty collection.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// There is an item.
    Exists(Program),
    /// The only item is true, or is not a boolean. Unknown without an item.
    IsTrue(Program),
    /// There is just one item, and it equals a literal. Unknown without an item.
    Equals(Program, Literal),
    /// The items are others than just one that equals a literal. Unknown without an item.
    Differs(Program, Literal),
    /// There is an item of a type. Unknown without an item.
    IsOfType(Program, OfType),
    /// There is a reference to a resource of a type. Unknown without an item.
    RefersTo(Program, Box<str>),
    /// Both hold.
    And(Box<Condition>, Box<Condition>),
    /// One holds, or both.
    Or(Box<Condition>, Box<Condition>),
    /// It does not hold. Unknown if that is unknown.
    Not(Box<Condition>),
}

/// Which items have a type.
#[derive(Clone, Debug, PartialEq)]
pub enum OfType {
    /// All that the definitions allow.
    All,
    /// Those of these types.
    Types(Vec<TypeId>),
    /// Resources of this type.
    Resource(Box<str>),
}

/// A constant of an expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// A string.
    Text(Box<str>),
    /// `true` or `false`.
    Boolean(bool),
    /// A number, in PostgreSQL's numeric bytes.
    Number(Box<[u8]>),
}

/// What a program runs on.
pub struct Scope<'a, 'j> {
    /// The resource.
    pub resource: Resource<'j>,
    /// The urls of servers whose resources are ours: a reference to `<base>/Patient/1` is one to `Patient/1`.
    pub bases: &'a [String],
    /// How many items may still be looked at by criteria, and how many contained resources to find what references refer to.
    looks: Cell<usize>,
}

/// The most looks: of a resource with very many contained ones, and as many references to them, each reference would look at
/// all of them, and criteria within criteria multiply. Two hundred references to two hundred are 40,000 looks at most. What
/// needs more is not found: within one row nothing interrupts a filter.
const MAX_LOOKS: usize = 1_000_000;

impl<'a, 'j> Scope<'a, 'j> {
    /// A resource, and the urls that are ours.
    #[inline]
    pub fn new(resource: Resource<'j>, bases: &'a [String]) -> Scope<'a, 'j> {
        Scope { resource, bases, looks: Cell::new(MAX_LOOKS) }
    }

    /// Counts a look; breaks after the last one.
    fn look(&self) -> ControlFlow<()> {
        match self.looks.get().checked_sub(1) {
            Some(left) => {
                self.looks.set(left);
                Continue(())
            }
            None => Break(()),
        }
    }
}
