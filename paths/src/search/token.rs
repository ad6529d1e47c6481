//! `token` parameters: codes, with or without the system that they are of.

use super::value::{split, unescape};
use crate::item::Item;
use crate::model::TypeId;
use fhir_bulk_codec::jsonb::walk::{Container, Value};

/// A wanted code.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    pub system: System,
    /// `None` for any code of the system.
    pub code: Option<String>,
}

/// The system of a wanted code.
#[derive(Clone, Debug, PartialEq)]
pub enum System {
    Any,
    /// There must be none.
    None,
    Is(String),
}

/// A code that an item has.
#[derive(Clone, Copy)]
pub struct Found<'j> {
    code: Option<&'j [u8]>,
    system: FoundSystem<'j>,
    /// Telephone numbers and addresses of e-mail are compared without case.
    ignores_case: bool,
}

#[derive(Clone, Copy)]
enum FoundSystem<'j> {
    /// The system of a plain `code` is that of its element, which resources do not repeat: any is accepted.
    Implied,
    /// What the item says, if it says something.
    Said(Option<&'j [u8]>),
}

impl<'j> Found<'j> {
    fn plain(code: &'j [u8]) -> Found<'j> {
        Found { code: Some(code), system: FoundSystem::Implied, ignores_case: false }
    }

    /// A Coding (`code`), or an Identifier or ContactPoint (`value`).
    fn said(object: &Container<'j>, code: &[u8]) -> Found<'j> {
        let text = |name: &[u8]| object.clone().member(name).and_then(|value| value.string());
        Found { code: text(code), system: FoundSystem::Said(text(b"system")), ignores_case: false }
    }

    /// The code by which wanted codes can be looked up.
    pub fn key(&self) -> Option<&'j [u8]> {
        self.code.filter(|_| !self.ignores_case)
    }
}

/// Passes the codes of an item to `is_wanted`, until it takes one: a string or boolean; a Coding, those of a CodeableConcept,
/// also in a CodeableReference; the value of an Identifier or ContactPoint. The system of a ContactPoint is `phone`, `email` and
/// so on. The form of an item counts only if its type is not known.
#[inline]
pub fn any_code<'j>(item: &Item<'j>, mut is_wanted: impl FnMut(&Found<'j>) -> bool) -> bool {
    if let Some(text) = item.text() {
        return !item.type_id.is_structure() && is_wanted(&Found::plain(text));
    }
    if let Some(value) = item.boolean() {
        let is_boolean = matches!(item.type_id, TypeId::BOOLEAN | TypeId::UNKNOWN);
        return is_boolean && is_wanted(&Found::plain(if value { b"true" } else { b"false" }));
    }
    let Some(object) = item.object() else { return false };
    match item.type_id {
        TypeId::CODEABLE_CONCEPT => any_coding(&object, is_wanted),
        TypeId::CODEABLE_REFERENCE => inner(&object, b"concept").is_some_and(|object| any_coding(&object, is_wanted)),
        TypeId::IDENTIFIER => is_wanted(&Found::said(&object, b"value")),
        TypeId::CONTACT_POINT => is_wanted(&Found { ignores_case: true, ..Found::said(&object, b"value") }),
        TypeId::UNKNOWN => {
            let has = |name: &[u8]| object.clone().member(name).is_some();
            match inner(&object, b"concept") {
                _ if has(b"coding") => any_coding(&object, is_wanted),
                Some(concept) => any_coding(&concept, is_wanted),
                None => is_wanted(&Found::said(&object, if has(b"code") { b"code" } else { b"value" })),
            }
        }
        TypeId::CODING => is_wanted(&Found::said(&object, b"code")),
        _ => false,
    }
}

fn inner<'j>(object: &Container<'j>, name: &[u8]) -> Option<Container<'j>> {
    object.clone().member(name).and_then(|value| value.container()).filter(Container::is_object)
}

#[inline]
fn any_coding<'j>(concept: &Container<'j>, mut is_wanted: impl FnMut(&Found<'j>) -> bool) -> bool {
    let list = concept.clone().member(b"coding").and_then(|value: Value<'j>| value.container());
    let Some(mut list) = list.filter(|list| !list.is_object()) else { return false };
    std::iter::from_fn(|| list.next_element())
        .filter_map(|coding| coding.container())
        .any(|coding| coding.is_object() && is_wanted(&Found::said(&coding, b"code")))
}

impl Token {
    /// `code`, `system|code`, `|code`, `system|`.
    pub fn new(value: &str) -> Token {
        let mut parts = split(value, '|');
        if parts.len() == 1 {
            return Token { system: System::Any, code: Some(unescape(value).into_owned()) };
        }
        // A further separator is part of the code.
        let code = unescape(&parts.split_off(1).join("|")).into_owned();
        let system = unescape(parts[0]).into_owned();
        let system = if system.is_empty() { System::None } else { System::Is(system) };
        Token { system, code: (!code.is_empty()).then_some(code) }
    }

    /// Whether an item has such a code.
    pub fn matches(&self, item: &Item<'_>) -> bool {
        any_code(item, |found| self.is(found))
    }

    /// Whether a code is such a code.
    #[inline]
    pub fn is(&self, found: &Found<'_>) -> bool {
        let is_code = |wanted: &String| match found.code {
            Some(code) if found.ignores_case => code.eq_ignore_ascii_case(wanted.as_bytes()),
            code => code == Some(wanted.as_bytes()),
        };
        self.code.as_ref().is_none_or(is_code)
            && match (&self.system, found.system) {
                (System::Any, _) | (_, FoundSystem::Implied) => true,
                (System::None, FoundSystem::Said(system)) => system.is_none_or(<[u8]>::is_empty),
                (System::Is(wanted), FoundSystem::Said(system)) => system == Some(wanted.as_bytes()),
            }
    }
}
