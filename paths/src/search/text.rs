//! `string` parameters: texts without regard to case and accents.

use super::value::unescape;
use crate::item::Item;
use fhir_bulk_codec::jsonb::walk::Container;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// A wanted text.
#[derive(Clone, Debug, PartialEq)]
pub struct Text {
    /// Folded, unless it has to be the same.
    text: String,
    mode: Mode,
}

/// How texts are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It starts with the wanted text, without case and accents.
    Start,
    /// It contains it, without case and accents.
    Contains,
    /// It is the same.
    Exact,
}

/// The parts of a HumanName and of an Address.
const PARTS: [&[u8]; 12] = [
    b"text",
    b"family",
    b"given",
    b"prefix",
    b"suffix",
    b"line",
    b"city",
    b"district",
    b"state",
    b"postalCode",
    b"country",
    b"name",
];

impl Text {
    pub fn new(value: &str, mode: Mode) -> Text {
        let text = unescape(value);
        let text = if mode == Mode::Exact { text.into_owned() } else { folded(&text).collect() };
        Text { text, mode }
    }

    /// Whether an item is such a text, or a HumanName or an Address with one.
    pub fn matches(&self, item: &Item<'_>) -> bool {
        if let Some(text) = item.text() {
            return self.is(text);
        }
        let Some(object) = item.object() else { return false };
        let mut members = object;
        while let Some((name, value)) = members.next_member() {
            if !PARTS.contains(&name.as_bytes()) {
                continue;
            }
            let found = match (value.string(), value.container()) {
                (Some(text), _) => self.is(text),
                (None, Some(list)) if !list.is_object() => self.any(list),
                _ => false,
            };
            if found {
                return true;
            }
        }
        false
    }

    fn any(&self, mut list: Container<'_>) -> bool {
        std::iter::from_fn(|| list.next_element()).any(|value| value.string().is_some_and(|text| self.is(text)))
    }

    fn is(&self, text: &[u8]) -> bool {
        let wanted = self.text.as_bytes();
        match self.mode {
            Mode::Exact => text == wanted,
            // Folding makes no other bytes of ASCII than small letters.
            Mode::Start if text.is_ascii() => {
                text.get(..wanted.len()).is_some_and(|start| start.eq_ignore_ascii_case(wanted))
            }
            Mode::Contains if text.is_ascii() => {
                wanted.is_empty() || text.windows(wanted.len()).any(|part| part.eq_ignore_ascii_case(wanted))
            }
            Mode::Start | Mode::Contains => str::from_utf8(text).is_ok_and(|text| {
                if self.mode == Mode::Start {
                    let mut found = folded(text);
                    return self.text.chars().all(|wanted| found.next() == Some(wanted));
                }
                folded(text).collect::<String>().contains(&self.text)
            }),
        }
    }
}

/// The characters without their accents, in small letters.
fn folded(text: &str) -> impl Iterator<Item = char> {
    text.nfd().filter(|c| !is_combining_mark(*c)).flat_map(char::to_lowercase)
}
