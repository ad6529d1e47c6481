//! What programs run on, and how much they may look at.

use super::tree::Constant;
use crate::arena::Arena;
use crate::item::{Item, Resource};
use std::cell::Cell;
use std::ops::ControlFlow::{self, Break, Continue};

/// What a program runs on.
pub struct Scope<'a, 'j> {
    /// The resource.
    pub resource: Resource<'j>,
    /// The urls of servers whose resources are ours: a reference to `<base>/Patient/1` is one to `Patient/1`.
    pub bases: &'a [String],
    /// What a view adds to it.
    pub view: Option<Within<'j>>,
    /// How many items may still be looked at by criteria, and how many contained resources to find what references refer to.
    looks: Cell<usize>,
    /// Whether a program ended early, because it had looked at too much or needed too much memory.
    exhausted: Cell<bool>,
}

/// Where in a view a program runs.
#[derive(Clone, Copy)]
pub struct Within<'j> {
    /// The constants of the view.
    pub constants: &'j [Constant],
    /// Where computed texts are put.
    pub arena: &'j Arena,
    /// The item on which the expression runs.
    pub context: Item<'j>,
    /// Its number among those that a `forEach` found.
    pub row_index: i64,
    /// Is called now and then while a program runs. It may unwind.
    pub interrupt: fn(),
}

/// The most looks: of a resource with very many contained ones, and as many references to them, each reference would look at
/// all of them, and criteria within criteria multiply. Two hundred references to two hundred are 40,000 looks at most. What
/// needs more is not found: within one row nothing interrupts a filter.
const MAX_LOOKS: usize = 1_000_000;
/// The same for each item of a view, whose programs say it if they end early.
const MAX_LOOKS_OF_VIEWS: usize = 10_000_000;
/// After so many looks a view may be interrupted.
const INTERRUPT: usize = 4096;

impl<'a, 'j> Scope<'a, 'j> {
    /// A resource, and the urls that are ours.
    #[inline]
    pub fn new(resource: Resource<'j>, bases: &'a [String]) -> Scope<'a, 'j> {
        Scope { resource, bases, view: None, looks: Cell::new(MAX_LOOKS), exhausted: Cell::new(false) }
    }

    /// The same for programs of a view.
    pub fn within(resource: Resource<'j>, bases: &'a [String], view: Within<'j>) -> Scope<'a, 'j> {
        let looks = Cell::new(MAX_LOOKS_OF_VIEWS);
        Scope { resource, bases, view: Some(view), looks, exhausted: Cell::new(false) }
    }

    /// Whether a program ended early: what it found is not all that it should have found.
    pub fn is_exhausted(&self) -> bool {
        self.exhausted.get()
    }

    /// Lets a view be interrupted.
    pub(super) fn interrupt(&self) {
        if let Some(view) = &self.view {
            (view.interrupt)();
        }
    }

    /// Ends a program early.
    pub(super) fn exhaust(&self) -> ControlFlow<()> {
        self.exhausted.set(true);
        Break(())
    }

    /// Counts a look; breaks after the last one.
    pub(super) fn look(&self) -> ControlFlow<()> {
        match self.looks.get().checked_sub(1) {
            Some(left) => {
                self.looks.set(left);
                if left.is_multiple_of(INTERRUPT) {
                    self.interrupt();
                }
                Continue(())
            }
            None => self.exhaust(),
        }
    }
}
