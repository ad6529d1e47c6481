//! `token` parameters: codes, with or without the system that they are of.

use super::value::{split, unescape};
use crate::item::Item;
use crate::model::TypeId;
use fhir_bulk_codec::jsonb::walk::{self, Container};

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

impl Token {
    /// `code`, `system|code`, `|code`, `system|`.
    pub fn new(value: &str) -> Token {
        let mut parts = split(value, '|');
        // A further separator is part of the code.
        let code = parts.split_off(1).join("|");
        let (first, code) = (unescape(parts[0]).into_owned(), unescape(&code).into_owned());
        if !value_has_separator(value) {
            return Token { system: System::Any, code: Some(first) };
        }
        let system = if first.is_empty() { System::None } else { System::Is(first) };
        Token { system, code: (!code.is_empty()).then_some(code) }
    }

    /// Whether an item is such a code: a string or boolean; a Coding, a CodeableConcept with one, also in a
    /// CodeableReference; an Identifier or ContactPoint with such a value. The system of a plain `code` is that of its
    /// element, which resources do not repeat: any is accepted.
    pub fn matches(&self, item: &Item<'_>) -> bool {
        if let Some(text) = item.text() {
            return self.is_code(text);
        }
        if let Some(value) = item.boolean() {
            return self.is_code(if value { b"true" } else { b"false" });
        }
        let Some(object) = item.object() else { return false };
        if item.type_id == TypeId::CONTACT_POINT {
            return self.is_contact(&object);
        }
        self.is_concept(object)
    }

    fn is_concept(&self, object: Container<'_>) -> bool {
        if let Some(coding) = object.clone().member(b"coding") {
            return self.any(coding);
        }
        match object.clone().member(b"concept").and_then(|concept| concept.container()) {
            Some(concept) if concept.is_object() => concept.member(b"coding").is_some_and(|coding| self.any(coding)),
            _ => self.is_coding(object),
        }
    }

    /// Whether a Coding or Identifier is wanted, or one of a list.
    fn any(&self, value: walk::Value<'_>) -> bool {
        let Some(mut container) = value.container() else { return false };
        if container.is_object() {
            return self.is_coding(container);
        }
        std::iter::from_fn(|| container.next_element())
            .filter_map(|element| element.container())
            .any(|element| element.is_object() && self.is_coding(element))
    }

    fn is_coding(&self, object: Container<'_>) -> bool {
        let text = |name: &[u8]| object.clone().member(name).and_then(|value| value.string());
        if let Some(wanted) = &self.code
            && text(b"code").or_else(|| text(b"value")) != Some(wanted.as_bytes())
        {
            return false;
        }
        match &self.system {
            System::Any => true,
            System::None => text(b"system").is_none_or(<[u8]>::is_empty),
            System::Is(wanted) => text(b"system") == Some(wanted.as_bytes()),
        }
    }

    /// Telephone numbers and addresses of e-mail are compared without case; their system is `phone`, `email` and so on.
    fn is_contact(&self, object: &Container<'_>) -> bool {
        let text = |name: &[u8]| object.clone().member(name).and_then(|value| value.string());
        let is_value =
            |wanted: &String| text(b"value").is_some_and(|value| value.eq_ignore_ascii_case(wanted.as_bytes()));
        self.code.as_ref().is_none_or(is_value)
            && match &self.system {
                System::Any => true,
                System::None => text(b"system").is_none_or(<[u8]>::is_empty),
                System::Is(wanted) => text(b"system") == Some(wanted.as_bytes()),
            }
    }

    fn is_code(&self, found: &[u8]) -> bool {
        self.code.as_ref().is_none_or(|code| code.as_bytes() == found)
    }
}

fn value_has_separator(value: &str) -> bool {
    split(value, '|').len() > 1
}
