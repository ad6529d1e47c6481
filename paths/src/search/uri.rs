//! `uri` parameters.

use super::value::unescape;
use crate::item::Item;

/// A wanted url.
#[derive(Clone, Debug, PartialEq)]
pub struct Uri {
    pub uri: String,
    pub mode: Mode,
}

/// How urls are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They are the same.
    Equal,
    /// The wanted one is the same, or a beginning that ends at a segment of the path.
    Below,
    /// The found one is such a beginning of the wanted one.
    Above,
}

impl Uri {
    pub fn new(value: &str, mode: Mode) -> Uri {
        Uri { uri: unescape(value).into_owned(), mode }
    }

    /// Whether an item is such a url.
    pub fn matches(&self, item: &Item<'_>) -> bool {
        let wanted = self.uri.as_bytes();
        item.text().is_some_and(|found| match self.mode {
            Mode::Equal => found == wanted,
            Mode::Below => is_below(found, wanted),
            Mode::Above => is_below(wanted, found),
        })
    }
}

fn is_below(uri: &[u8], beginning: &[u8]) -> bool {
    let beginning = beginning.strip_suffix(b"/").unwrap_or(beginning);
    uri.strip_prefix(beginning).is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
}
