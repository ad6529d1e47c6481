//! Converts Aidbox form to FHIR form while a stored resource is written: the reverse of [`super::to_aidbox`]. Members keep
//! jsonb's order; a converted name has the place of the stored one, and a Reference starts with its `reference`.

use crate::fhir::definitions::{Definitions, Element, NodeId, Typed};
use crate::fhir::table::Table;
use crate::jsonb::text::{Open, Text};
use crate::jsonb::walk::{Container, Slice, Value};
use crate::reuse::emptied;
use std::mem::replace;

/// A container that is being written.
pub(crate) struct Frame<'j> {
    container: Container<'j>,
    node: NodeId,
    kind: Kind,
    any: bool,
}

#[derive(Clone, Copy)]
enum Kind {
    Object,
    Array,
    /// An Aidbox choice with several types: its members are written into the object around it, with other names.
    Choice(&'static Table<Typed>),
    /// A Reference with some members that are already written.
    Reference(Written),
}

/// The members of an Aidbox reference from which its `reference` was made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    TypeAndId,
    Uri,
    LocalRef,
}

impl Written {
    fn has(self, name: &[u8]) -> bool {
        match self {
            Written::TypeAndId => matches!(name, b"resourceType" | b"id"),
            Written::Uri => name == b"uri",
            Written::LocalRef => name == b"localRef",
        }
    }
}

/// The stacks of a walk; the memory is kept for reuse.
#[derive(Default)]
pub(crate) struct Stacks<'j> {
    /// The containers around the one that is being converted.
    outer: Vec<Frame<'j>>,
    /// The same for parts in which nothing is converted.
    open: Open<'j>,
}

impl Stacks<'_> {
    /// Returns the memory of both, for another walk.
    pub fn reuse<'other>(self) -> Stacks<'other> {
        Stacks { outer: emptied(self.outer), open: emptied(self.open) }
    }
}

/// Writes the values of a resource, and converts those within known structures.
pub(crate) struct ToFhir<'j> {
    definitions: &'static Definitions,
    stacks: Stacks<'j>,
}

impl<'j> ToFhir<'j> {
    pub fn new(definitions: &'static Definitions, stacks: Stacks<'j>) -> ToFhir<'j> {
        ToFhir { definitions, stacks }
    }

    pub fn into_stacks(self) -> Stacks<'j> {
        self.stacks
    }

    /// The structure of a resource type.
    pub fn resource(&self, resource_type: &str) -> NodeId {
        self.definitions.resource(resource_type)
    }

    /// The structure of a member.
    pub fn structure(&self, node: NodeId, name: &[u8]) -> NodeId {
        match self.definitions.element(node, Slice::of(name).rank(), name) {
            Some(Element::Structure(node)) => *node,
            _ => NodeId::UNKNOWN,
        }
    }

    /// Writes a member of an object of structure `node`: one name and value, or several for a choice. `rest` are the members
    /// after it.
    #[inline]
    pub fn member(
        &mut self,
        node: NodeId,
        (name, value): (Slice<'j>, Value<'j>),
        rest: &Container<'j>,
        first: bool,
        text: &mut Text,
    ) {
        if node == NodeId::UNKNOWN {
            text.name(name, first);
            text.value(value, &mut self.stacks.open);
        } else if let Some(inside) = self.start_member(node, (name, value), rest, first, text) {
            self.run(inside, text);
        }
    }

    /// Writes an element of an array.
    pub fn element(&mut self, node: NodeId, value: Value<'j>, text: &mut Text) {
        if let Some(inside) = self.start_value(node, value, text) {
            self.run(inside, text);
        }
    }

    /// Writes a whole member, or the beginning of one that is a container.
    #[inline]
    fn start_member(
        &mut self,
        node: NodeId,
        (name, value): (Slice<'j>, Value<'j>),
        rest: &Container<'j>,
        first: bool,
        text: &mut Text,
    ) -> Option<Frame<'j>> {
        // Only containers are converted, and most members are not containers.
        if value.container().is_none() {
            text.name(name, first);
            text.value(value, &mut self.stacks.open);
            return None;
        }
        let key = name.as_bytes();
        let structure = match self.definitions.element(node, name.rank(), key) {
            Some(Element::Structure(node)) => *node,
            // Already in FHIR form.
            Some(Element::Choice(choice)) => choice.node,
            Some(Element::Base(types)) => match choice(value, types, rest) {
                Some(Found::One(typed, value)) => {
                    text.name(Slice::of(typed.name.as_bytes()), first);
                    return self.start_value(typed.node, value, text);
                }
                Some(Found::Several(container)) => {
                    let kind = Kind::Choice(types);
                    return Some(Frame { container, node: NodeId::UNKNOWN, kind, any: !first });
                }
                None => NodeId::UNKNOWN,
            },
            None => Definitions::common(key),
        };
        text.name(name, first);
        self.start_value(structure, value, text)
    }

    #[inline]
    fn start_value(&mut self, node: NodeId, value: Value<'j>, text: &mut Text) -> Option<Frame<'j>> {
        let Some(container) = value.container().filter(|_| node != NodeId::UNKNOWN) else {
            text.value(value, &mut self.stacks.open);
            return None;
        };
        // Only containers are converted: a container without inner containers is written at once.
        if !container.is_object() {
            text.put(b"[");
            if container.is_flat() {
                text.flat_elements(container);
                return None;
            }
            return start_elements(node, container, text);
        }
        if container.is_flat() {
            flat_object(node, container, text);
            return None;
        }
        text.put(b"{");
        let written = if node == NodeId::REFERENCE { start_reference(&container, text) } else { None };
        match written {
            Some(written) => Some(Frame { container, node, kind: Kind::Reference(written), any: true }),
            None => {
                let node = if node == NodeId::RESOURCE { self.inner_resource(&container) } else { node };
                Some(Frame { container, node, kind: Kind::Object, any: false })
            }
        }
    }

    fn inner_resource(&self, container: &Container<'_>) -> NodeId {
        let found = container.clone().member(b"resourceType").and_then(|value| value.string());
        let found = found.and_then(|name| str::from_utf8(name).ok());
        found.map_or(NodeId::UNKNOWN, |name| self.definitions.resource(name))
    }

    /// Writes the rest of a container.
    fn run(&mut self, mut current: Frame<'j>, text: &mut Text) {
        'frame: loop {
            match current.kind {
                Kind::Array => {
                    while let Some(value) = current.container.next_element() {
                        if replace(&mut current.any, true) {
                            text.comma();
                        }
                        if let Some(inside) = self.start_value(current.node, value, text) {
                            self.stacks.outer.push(replace(&mut current, inside));
                            continue 'frame;
                        }
                    }
                    text.put(b"]");
                }
                Kind::Object | Kind::Reference(_) => {
                    while let Some((name, value)) = current.container.next_member() {
                        if matches!(current.kind, Kind::Reference(written) if written.has(name.as_bytes())) {
                            continue;
                        }
                        let first = !replace(&mut current.any, true);
                        let rest = &current.container;
                        if let Some(inside) = self.start_member(current.node, (name, value), rest, first, text) {
                            self.stacks.outer.push(replace(&mut current, inside));
                            continue 'frame;
                        }
                    }
                    text.put(b"}");
                }
                Kind::Choice(types) => {
                    while let Some((name, value)) = current.container.next_member() {
                        let Some(typed) = types.find(name.rank(), name.as_bytes()) else { continue };
                        text.name(Slice::of(typed.name.as_bytes()), !replace(&mut current.any, true));
                        if let Some(inside) = self.start_value(typed.node, value, text) {
                            self.stacks.outer.push(replace(&mut current, inside));
                            continue 'frame;
                        }
                    }
                }
            }
            match self.stacks.outer.pop() {
                Some(outer) => current = outer,
                None => return,
            }
        }
    }
}

/// Writes the elements of an array until one is not an object without containers. Returns the rest of the array. Most arrays
/// are written completely.
fn start_elements<'j>(node: NodeId, mut container: Container<'j>, text: &mut Text) -> Option<Frame<'j>> {
    let mut any = false;
    loop {
        let rest = container.clone();
        let Some(value) = container.next_element() else { break };
        match value.container() {
            Some(element) if element.is_object() && element.is_flat() => {
                if replace(&mut any, true) {
                    text.comma();
                }
                flat_object(node, element, text);
            }
            _ => return Some(Frame { container: rest, node, kind: Kind::Array, any }),
        }
    }
    text.put(b"]");
    None
}

/// Writes an object without inner containers.
#[inline]
fn flat_object(node: NodeId, object: Container<'_>, text: &mut Text) {
    text.put(b"{");
    if node == NodeId::REFERENCE
        && let Some(written) = start_reference(&object, text)
    {
        text.flat_members(object, false, |name| written.has(name));
    } else {
        text.flat_members(object, true, |_| false);
    }
}

/// A choice in Aidbox form.
enum Found<'j> {
    One(&'static Typed, Value<'j>),
    Several(Container<'j>),
}

/// Whether a value is an object whose members are all types of the choice. It stays unchanged if one of its new names is
/// used already: `rest` are the members after it, which include all longer names.
#[inline]
fn choice<'j>(value: Value<'j>, types: &'static Table<Typed>, rest: &Container<'j>) -> Option<Found<'j>> {
    let container = value.container().filter(Container::is_object)?;
    let mut members = container.clone();
    let mut found = None;
    while let Some((name, value)) = members.next_member() {
        let typed = types.find(name.rank(), name.as_bytes())?;
        if rest.has_name(typed.name.as_bytes()) {
            return None;
        }
        found = match found {
            None => Some(Found::One(typed, value)),
            Some(_) => Some(Found::Several(container.clone())),
        };
    }
    found
}

/// Writes the `reference` of an Aidbox reference; `None` if it has no form of a reference, or more than one.
#[inline]
fn start_reference(container: &Container<'_>, text: &mut Text) -> Option<Written> {
    let (mut of_type, mut id, mut uri, mut local) = (None, None, None, None);
    let mut members = container.clone();
    while let Some((name, value)) = members.next_member() {
        let part = match name.as_bytes() {
            b"reference" => return None,
            b"resourceType" => &mut of_type,
            b"id" => &mut id,
            b"uri" => &mut uri,
            b"localRef" => &mut local,
            _ => continue,
        };
        *part = Some(value.string()?);
    }
    let (parts, written) = match (of_type, id, uri, local) {
        (Some(of_type), Some(id), None, None) => ([of_type, b"/", id], Written::TypeAndId),
        (None, None, Some(uri), None) => ([&b""[..], b"", uri], Written::Uri),
        (None, None, None, Some(local)) => ([&b""[..], b"#", local], Written::LocalRef),
        _ => return None,
    };
    text.name(Slice::of(b"reference"), true);
    text.joined(parts);
    Some(written)
}
