//! All references of a resource, wherever they are in it.

use super::reference::Target;
use crate::item::{Item, Resource, Value};
use crate::model::TypeId;
use fhir_bulk_codec::jsonb::walk::{self, Container};

/// Passes type and id of each resource of ours that a resource refers to. References to versions do not count, nor do
/// contained resources and what they refer to.
pub fn each_reference<'j>(resource: Resource<'j>, bases: &[String], mut sink: impl FnMut(&'j [u8], &'j [u8])) {
    let Some(mut root) = resource.item().object() else { return };
    // Without recursion: documents may nest deeper than the stack.
    let mut open: Vec<Container<'j>> = Vec::new();
    while let Some((name, value)) = root.next_member() {
        if name.as_bytes() == b"contained" {
            continue;
        }
        enter(value, bases, &mut open, &mut sink);
        while let Some(container) = open.last_mut() {
            let inner = if container.is_object() {
                container.next_member().map(|(_, value)| value)
            } else {
                container.next_element()
            };
            match inner {
                Some(value) => enter(value, bases, &mut open, &mut sink),
                None => drop(open.pop()),
            }
        }
    }
}

fn enter<'j>(
    value: walk::Value<'j>,
    bases: &[String],
    open: &mut Vec<Container<'j>>,
    sink: &mut impl FnMut(&'j [u8], &'j [u8]),
) {
    let Some(container) = value.container() else { return };
    if container.is_object() {
        let item = Item { value: Value::Json(value), type_id: TypeId::REFERENCE };
        if let Some(Target::Resource { resource_type, id }) = Target::of(&item, bases) {
            sink(resource_type, id);
        }
    }
    open.push(container);
}
