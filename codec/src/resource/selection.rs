//! Which members of a resource are written, for clients that ask for a part of it (FHIR's `_elements`).

use crate::fhir::definitions::{Definitions, Element, NodeId};
use crate::jsonb::value::{Source, rank};
use crate::jsonb::walk::{Container, Value};
use std::collections::BTreeSet;

/// A part of a resource's members. What its row's columns say is asked for apart from its elements; the type is
/// always written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The elements at the top of the resource; `None` for all.
    pub elements: Option<BTreeSet<String>>,
    /// Whether `id` is written.
    pub id: bool,
    /// Whether `meta` is written.
    pub meta: bool,
    /// The name of the member that says the type: FHIR's `resourceType`, or what other formats have in its place.
    pub type_member: &'static str,
    /// Whether `meta.tag` says that it is a part, as FHIR asks of servers whose clients may write it back.
    pub subsetted: bool,
}

impl Selection {
    /// Whether a stored member other than the row's is written. An element is asked for by its name; a choice by
    /// `value`, `value[x]` or a type of it (`valueQuantity`), in whichever form it is stored; what stands beside a
    /// primitive (`_birthDate`) comes with it.
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
