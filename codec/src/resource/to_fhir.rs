//! From Aidbox to FHIR form while a stored resource is written: the reverse of [`super::to_aidbox`]. Names keep
//! jsonb's order; a converted name stands where the stored one stood, and a Reference starts with its `reference`.

use crate::fhir::definitions::{Definitions, Element, NodeId, Typed};
use crate::jsonb::text::{Open, Text};
use crate::jsonb::value::rank;
use crate::jsonb::walk::{Container, Slice, Value};

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
    /// An Aidbox choice: its members are those of the object around it, under other names.
    Choice(&'static [Typed]),
    /// A Reference, of which some members are written already.
    Reference(Written),
}

/// Which members of an Aidbox reference its `reference` was made of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    TypeAndId,
    Uri,
    LocalRef,
}

/// Converts members of a resource; its stacks are kept from one to the next.
pub(crate) struct ToFhir<'j> {
    definitions: &'static Definitions,
    stack: Vec<Frame<'j>>,
    open: Open<'j>,
    reference: Vec<u8>,
}

impl<'j> ToFhir<'j> {
    pub fn new(definitions: &'static Definitions) -> ToFhir<'j> {
        ToFhir { definitions, stack: Vec::new(), open: Vec::new(), reference: Vec::new() }
    }

    /// The structure of a resource type.
    pub fn resource(&self, resource_type: &str) -> NodeId {
        self.definitions.resource(resource_type)
    }

    /// The structure of a member.
    pub fn structure(&self, node: NodeId, name: &[u8]) -> NodeId {
        match self.definitions.element(node, rank(name), name) {
            Some(Element::Structure(node)) => *node,
            _ => NodeId::UNKNOWN,
        }
    }

    /// Writes a member of an object of structure `node`: one name and value, or those of a choice.
    pub fn member(&mut self, node: NodeId, name: Slice<'_>, value: Value<'j>, first: bool, text: &mut Text) {
        self.start_member(node, name, value, first, text);
        self.run(text);
    }

    /// Writes an element of an array.
    pub fn element(&mut self, node: NodeId, value: Value<'j>, text: &mut Text) {
        self.start_value(node, value, text);
        self.run(text);
    }

    fn start_member(&mut self, node: NodeId, name: Slice<'_>, value: Value<'j>, first: bool, text: &mut Text) {
        let key = name.as_bytes();
        let structure = match self.definitions.element(node, rank(key), key) {
            Some(Element::Structure(node)) => *node,
            // In FHIR form already.
            Some(Element::Choice(choice)) => choice.node,
            Some(Element::Base(types)) => {
                if let Some(container) = value.container().filter(|container| is_choice(container, types)) {
                    self.stack.push(Frame { container, node: NodeId::UNKNOWN, kind: Kind::Choice(types), any: !first });
                    return;
                }
                NodeId::UNKNOWN
            }
            None => Definitions::common(key),
        };
        text.name(name, first);
        self.start_value(structure, value, text);
    }

    fn start_value(&mut self, node: NodeId, value: Value<'j>, text: &mut Text) {
        let Some(container) = value.container().filter(|_| node != NodeId::UNKNOWN) else {
            return text.value(value, &mut self.open);
        };
        if !container.is_object() {
            text.put(b"[");
            self.stack.push(Frame { container, node, kind: Kind::Array, any: false });
            return;
        }
        let node = if node == NodeId::RESOURCE { self.inner_resource(&container) } else { node };
        text.put(b"{");
        let written = if node == NodeId::REFERENCE { self.start_reference(&container, text) } else { None };
        let kind = written.map_or(Kind::Object, Kind::Reference);
        self.stack.push(Frame { container, node, kind, any: written.is_some() });
    }

    fn inner_resource(&self, container: &Container<'_>) -> NodeId {
        let found = member(container, b"resourceType").and_then(|name| str::from_utf8(name).ok());
        found.map_or(NodeId::UNKNOWN, |name| self.definitions.resource(name))
    }

    /// Writes the `reference` of an Aidbox reference; `None` when it is none.
    fn start_reference(&mut self, container: &Container<'_>, text: &mut Text) -> Option<Written> {
        let (mut of_type, mut id, mut uri, mut local) = (None, None, None, None);
        let mut members = container.clone();
        while let Some((name, value)) = members.next_member() {
            match name.as_bytes() {
                b"reference" => return None,
                b"resourceType" => of_type = value.string(),
                b"id" => id = value.string(),
                b"uri" => uri = value.string(),
                b"localRef" => local = value.string(),
                _ => {}
            }
        }
        self.reference.clear();
        let written = match (of_type, id, uri, local) {
            (Some(of_type), Some(id), ..) => {
                self.reference.extend_from_slice(of_type);
                self.reference.push(b'/');
                self.reference.extend_from_slice(id);
                Written::TypeAndId
            }
            (_, _, Some(uri), _) => {
                self.reference.extend_from_slice(uri);
                Written::Uri
            }
            (_, _, _, Some(local)) => {
                self.reference.push(b'#');
                self.reference.extend_from_slice(local);
                Written::LocalRef
            }
            _ => return None,
        };
        text.name(Slice::of(b"reference"), true);
        text.string(Slice::of(&self.reference));
        Some(written)
    }

    /// Writes what the stack holds.
    fn run(&mut self, text: &mut Text) {
        while let Some(frame) = self.stack.last_mut() {
            let (node, first) = (frame.node, !frame.any);
            match frame.kind {
                Kind::Array => match frame.container.next_element() {
                    Some(value) => {
                        frame.any = true;
                        if !first {
                            text.comma();
                        }
                        self.start_value(node, value, text);
                    }
                    None => {
                        text.put(b"]");
                        self.stack.pop();
                    }
                },
                Kind::Object | Kind::Reference(_) => match frame.container.next_member() {
                    Some((name, _)) if is_written(frame.kind, name.as_bytes()) => {}
                    Some((name, value)) => {
                        frame.any = true;
                        self.start_member(node, name, value, first, text);
                    }
                    None => {
                        text.put(b"}");
                        self.stack.pop();
                    }
                },
                Kind::Choice(types) => match frame.container.next_member() {
                    Some((name, value)) => {
                        frame.any = true;
                        if let Some(typed) = of_type(types, name.as_bytes()) {
                            text.name(Slice::of(typed.name.as_bytes()), first);
                            self.start_value(typed.node, value, text);
                        }
                    }
                    None => {
                        self.stack.pop();
                    }
                },
            }
        }
    }
}

/// Whether an object is a choice in Aidbox form: it has members, and all of them are types of the choice.
fn is_choice(container: &Container<'_>, types: &'static [Typed]) -> bool {
    let mut members = container.clone();
    let mut any = false;
    while let Some((name, _)) = members.next_member() {
        if of_type(types, name.as_bytes()).is_none() {
            return false;
        }
        any = true;
    }
    any && container.is_object()
}

fn of_type(types: &'static [Typed], name: &[u8]) -> Option<&'static Typed> {
    types.iter().find(|typed| typed.type_name.as_bytes() == name)
}

fn is_written(kind: Kind, name: &[u8]) -> bool {
    match kind {
        Kind::Reference(Written::TypeAndId) => matches!(name, b"resourceType" | b"id"),
        Kind::Reference(Written::Uri) => name == b"uri",
        Kind::Reference(Written::LocalRef) => name == b"localRef",
        _ => false,
    }
}

/// A string member of an object.
fn member<'j>(container: &Container<'j>, wanted: &[u8]) -> Option<&'j [u8]> {
    let mut members = container.clone();
    while let Some((name, value)) = members.next_member() {
        if name.as_bytes() == wanted {
            return value.string();
        }
    }
    None
}
