//! `string` parameters: texts without regard to case and accents.

use super::value::{Refused, unescape};
use crate::item::Item;
use fhir_bulk_codec::jsonb::walk::Container;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::canonical_combining_class;

/// A wanted text.
#[derive(Clone, Debug, PartialEq)]
pub struct Text {
    /// Folded, unless it has to be the same.
    text: String,
    mode: Mode,
    /// For [`Mode::Contains`].
    search: Search,
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
const PARTS: [&[u8]; 11] = [
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
];

/// The most bytes of a text that others have to contain.
const MAX_CONTAINED: usize = 1000;

impl Text {
    /// # Errors
    /// A text that is too long for others to be searched for it, or has nothing but accents.
    pub fn new(value: &str, mode: Mode) -> Result<Text, Refused> {
        let text = unescape(value);
        if mode == Mode::Contains && text.len() > MAX_CONTAINED {
            let message = format!("its value has {} bytes; {MAX_CONTAINED} are allowed with :contains", text.len());
            return Err(Refused::invalid(message));
        }
        let text = if mode == Mode::Exact { text.into_owned() } else { folded(&text).collect() };
        if text.is_empty() {
            return Err(Refused::invalid("its value has only accents, which are not compared"));
        }
        let search = if mode == Mode::Contains { Search::new(&text) } else { Search::default() };
        Ok(Text { text, mode, search })
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
                self.search.is_in(text.iter().map(|byte| char::from(byte.to_ascii_lowercase())))
            }
            Mode::Start => str::from_utf8(text).is_ok_and(|text| self.starts(folded(text))),
            Mode::Contains => str::from_utf8(text).is_ok_and(|text| self.search.is_in(folded(text))),
        }
    }

    fn starts(&self, mut found: impl Iterator<Item = char>) -> bool {
        self.text.chars().all(|wanted| found.next() == Some(wanted))
    }
}

/// A search for a text, in time that does not depend on its length (Knuth, Morris and Pratt).
#[derive(Clone, Debug, Default, PartialEq)]
struct Search {
    wanted: Vec<char>,
    /// For each place in it: how many characters at its beginning are the last ones before and at this place.
    again: Vec<usize>,
}

impl Search {
    fn new(text: &str) -> Search {
        let mut search = Search { wanted: text.chars().collect(), again: vec![0] };
        for at in 1..search.wanted.len() {
            let known = search.step(search.again[at - 1], search.wanted[at]);
            search.again.push(known);
        }
        search
    }

    /// How many characters are found after another one, when `known` were before.
    #[inline]
    fn step(&self, mut known: usize, next: char) -> usize {
        while known > 0 && self.wanted[known] != next {
            known = self.again[known - 1];
        }
        known + usize::from(self.wanted[known] == next)
    }

    fn is_in(&self, mut text: impl Iterator<Item = char>) -> bool {
        let mut known = 0;
        text.any(|next| {
            known = self.step(known, next);
            known == self.wanted.len()
        })
    }
}

/// The characters without their accents, in small letters. Marks that are not accents stay: vowel signs of Indic scripts are
/// letters.
fn folded(text: &str) -> impl Iterator<Item = char> {
    let plain = text.nfd().filter(|c| canonical_combining_class(*c) == 0);
    // What was no accent is put together again: syllables of Hangul.
    plain.flat_map(char::to_lowercase).map(|c| if c == 'ς' { 'σ' } else { c }).nfc()
}
