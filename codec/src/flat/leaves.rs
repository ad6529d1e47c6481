//! Finds the leaves of a stored resource, in one walk without recursion.

use super::paths::{NodeId, Paths, ROOT, Step, write_name};
use super::problem::Problem;
use crate::jsonb::walk::{Container, Value};
use crate::reuse::emptied;
use std::mem::replace;

/// A container, and how far the walk has come in it.
pub(super) struct Frame<'j> {
    container: Container<'j>,
    /// The step that leads to it.
    step: Step<'j>,
    /// Its node; `None` while no leaf of it is known.
    node: Option<NodeId>,
    /// The index of the next element.
    index: u32,
    /// Where in the tree the last item was found.
    near: usize,
    kind: Kind,
}

/// What of a container's members comes from the row's columns.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `id` and `resourceType`, and a part of `meta`.
    Resource,
    /// The version and its times.
    Meta,
    /// Nothing.
    Other,
}

/// The memory of a walk, for the next one.
#[derive(Default)]
pub(super) struct Frames<'j>(Vec<Frame<'j>>);

impl Frames<'_> {
    pub fn reuse<'other>(self) -> Frames<'other> {
        Frames(emptied(self.0))
    }
}

/// A string, number or boolean of a resource.
pub(super) struct Leaf<'w, 'j> {
    /// The containers around it; the innermost one is `inside`.
    around: &'w mut [Frame<'j>],
    inside: &'w mut Frame<'j>,
    step: Step<'j>,
    /// The leaf's node, if its path is known.
    pub node: Option<NodeId>,
    pub value: Value<'j>,
}

impl Leaf<'_, '_> {
    /// Adds its path to the tree.
    pub fn add(&mut self, paths: &mut Paths) -> Result<NodeId, Problem> {
        // The resource itself always has a node.
        let known = self.around.iter().rposition(|frame| frame.node.is_some());
        let (mut node, first) = known.map_or((ROOT, 0), |at| (self.around[at].node.unwrap_or(ROOT), at + 1));
        if let Some(inside) = self.inside.node {
            node = inside;
        } else {
            for frame in self.around[first..].iter_mut().chain([&mut *self.inside]) {
                node = paths.insert(node, frame.step)?;
                frame.node = Some(node);
            }
        }
        paths.insert(node, self.step)
    }

    /// The name of the member or element of the resource that it is in, for messages.
    pub fn top(&self) -> Vec<u8> {
        let step = self
            .around
            .get(1)
            .map_or(if self.around.is_empty() { self.step } else { self.inside.step }, |top| top.step);
        let mut name = Vec::new();
        if let Step::Name(text) = step {
            write_name(text.as_bytes(), &mut name);
        }
        name
    }
}

impl<'j> Frame<'j> {
    fn new(container: Container<'j>, step: Step<'j>, node: Option<NodeId>, kind: Kind) -> Frame<'j> {
        Frame { container, step, node, index: 0, near: 0, kind }
    }

    #[inline]
    fn next(&mut self) -> Option<(Step<'j>, Value<'j>)> {
        if self.container.is_object() {
            let (name, value) = self.container.next_member()?;
            Some((Step::Name(name), value))
        } else {
            let value = self.container.next_element()?;
            self.index += 1;
            Some((Step::Index(self.index - 1), value))
        }
    }

    /// Whether the row's columns have this member, or it has no place in the resource.
    fn is_of_row(&self, step: Step<'j>, value: Value<'j>) -> bool {
        let Step::Name(name) = step else { return false };
        match (self.kind, name.as_bytes()) {
            (Kind::Resource, b"id" | b"resourceType") => true,
            // As in dumps.
            (Kind::Resource, b"meta") => !value.container().is_some_and(|meta| meta.is_object()),
            (Kind::Meta, b"createdAt" | b"versionId" | b"lastUpdated") => true,
            _ => false,
        }
    }

    /// The kind of a container in it.
    fn kind_of(&self, step: Step<'j>) -> Kind {
        match step {
            Step::Name(name) if self.kind == Kind::Resource && name.as_bytes() == b"meta" => Kind::Meta,
            _ => Kind::Other,
        }
    }
}

/// Passes the leaves of a resource to `leaf`, in stored order.
///
/// # Errors
/// [`Problem::NotAnObject`], and the errors of `leaf`.
pub(super) fn each<'j>(
    resource: &'j [u8],
    paths: &mut Paths,
    frames: &mut Frames<'j>,
    mut leaf: impl FnMut(&mut Paths, Leaf<'_, 'j>) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let root = Container::new(resource);
    if !root.is_object() {
        return Err(Problem::NotAnObject);
    }
    let Frames(around) = frames;
    let mut inside = Frame::new(root, Step::Index(0), Some(ROOT), Kind::Resource);
    loop {
        let Some((step, value)) = inside.next() else {
            match around.pop() {
                Some(outer) => inside = outer,
                None => return Ok(()),
            }
            continue;
        };
        if inside.kind != Kind::Other && inside.is_of_row(step, value) {
            continue;
        }
        let node = match inside.node {
            Some(from) => paths.find(from, step, &mut inside.near),
            None => None,
        };
        if let Some(container) = value.container() {
            let kind = inside.kind_of(step);
            around.push(replace(&mut inside, Frame::new(container, step, node, kind)));
        } else if !value.is_null() {
            leaf(paths, Leaf { around, inside: &mut inside, step, node, value })?;
        }
    }
}
