//! Selects which members of a resource to write, for requests that want only some elements (FHIR's `_elements`).

use crate::fhir::definitions::{Definitions, Element, NodeId};
use crate::jsonb::value::{Source, rank};
use crate::jsonb::walk::{Container, Value};
use std::collections::BTreeSet;

/// A selection of a resource's members. `id` and `meta` are selected separately from the elements; the type is always
/// written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The elements at the top of the resource; `None` for all.
    pub elements: Option<BTreeSet<String>>,
    /// Whether `id` is written.
    pub id: bool,
    /// Whether `meta` is written.
    pub meta: bool,
    /// The name of the member with the type: FHIR's `resourceType`, or another name in other formats.
    pub type_member: &'static str,
    /// Whether `meta.tag` marks the resource as incomplete. FHIR requires it if clients might write the resource back.
    pub subsetted: bool,
}

impl Selection {
    /// Whether a stored member is written. An element is selected by its name; a choice by `value`, `value[x]` or one of its
    /// types (`valueQuantity`), in any stored form. The `_` member of a primitive (`_birthDate`) is written with it.
    pub(super) fn shows(&self, definitions: &Definitions, node: NodeId, name: &[u8], value: Value<'_>) -> bool {
        if name == self.type_member.as_bytes() {
            return false;
        }
        let Some(elements) = &self.elements else { return true };
        let asked = |name: &[u8]| str::from_utf8(name).is_ok_and(|name| elements.contains(name));
        let element = name.strip_prefix(b"_").unwrap_or(name);
        asked(element)
            || match definitions.element(node, rank(element), element) {
                Some(Element::Choice(choice)) => {
                    asked(choice.base.bytes(Source { line: &[], arena: &definitions.texts }))
                }
                Some(Element::Base(types)) => {
                    let mut stored = value.container().filter(Container::is_object).unwrap_or(Container::empty());
                    std::iter::from_fn(|| stored.next_member())
                        .filter_map(|(name, _)| types.find(name.rank(), name.as_bytes()))
                        .any(|typed| asked(typed.name.as_bytes()))
                }
                Some(Element::Structure(_)) | None => false,
            }
    }
}

/// The names in FHIR's `_elements`: separated by commas, `value[x]` the same as `value`.
pub fn elements(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(|name| name.trim().trim_end_matches("[x]")).filter(|name| !name.is_empty())
}
