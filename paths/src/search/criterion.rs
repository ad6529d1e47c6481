//! One wanted value.

use super::date::Date;
use super::number::Number;
use super::quantity::Quantity;
use super::reference::Reference;
use super::text::Text;
use super::token::Token;
use super::uri::Uri;
use crate::item::Item;
use crate::program::{Program, Scope};

/// A wanted value, by the type of its parameter.
#[derive(Clone, Debug)]
pub enum Criterion {
    Token(Token),
    Reference(Reference),
    Date(Date),
    Text(Text),
    Number(Number),
    Quantity(Quantity),
    Uri(Uri),
    /// Several values of one item, each with where it is.
    Composite(Vec<(Program, Criterion)>),
}

impl Criterion {
    /// Whether an item has the value.
    #[inline]
    pub fn matches(&self, scope: &Scope<'_, '_>, item: &Item<'_>) -> bool {
        match self {
            Criterion::Token(token) => token.matches(item),
            Criterion::Reference(reference) => reference.matches(scope, item),
            Criterion::Date(date) => date.matches(item),
            Criterion::Text(text) => text.matches(item),
            Criterion::Number(number) => number.matches(item),
            Criterion::Quantity(quantity) => quantity.matches(item),
            Criterion::Uri(uri) => uri.matches(item),
            Criterion::Composite(parts) => {
                parts.iter().all(|(program, part)| program.any(scope, *item, |found| part.matches(scope, &found)))
            }
        }
    }
}
