//! Wanted values.

use super::date::Date;
use super::quantity::Quantity;
use super::reference::{Reference, Target};
use super::text::Text;
use super::token::{Found, Token, any_code};
use super::uri::Uri;
use crate::item::Item;
use crate::program::{Program, Scope};
use std::collections::HashMap;

/// One wanted value, by the type of its parameter.
#[derive(Clone, Debug)]
pub enum Criterion {
    Token(Token),
    Reference(Reference),
    Date(Date),
    Text(Text),
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
            Criterion::Quantity(quantity) => quantity.matches(item),
            Criterion::Uri(uri) => uri.matches(item),
            Criterion::Composite(parts) => {
                parts.iter().all(|(program, part)| program.any(scope, *item, |found| part.matches(scope, &found)))
            }
        }
    }

    /// A text that is in every item that has the value, if there is one.
    fn key(&self) -> Option<&[u8]> {
        match self {
            Criterion::Token(Token { code, .. }) => code.as_ref().map(String::as_bytes),
            Criterion::Reference(reference) => Some(reference.key()),
            _ => None,
        }
    }
}

/// The values of a parameter, of one type: one is enough. Many codes or references are looked up rather than tried one by one.
#[derive(Clone, Debug)]
pub struct Wanted {
    all: Vec<Criterion>,
    /// The places in `all`, by [`Criterion::key`].
    by_key: Option<HashMap<Box<[u8]>, Vec<usize>>>,
    without_key: Vec<usize>,
}

/// So few are tried.
const FEW: usize = 8;

impl Wanted {
    /// Whether they are codes, references or urls, which are compared as they are.
    pub fn is_of_codes(&self) -> bool {
        matches!(self.all.first(), Some(Criterion::Token(_) | Criterion::Reference(_) | Criterion::Uri(_)))
    }

    pub fn new(all: Vec<Criterion>) -> Wanted {
        let mut wanted = Wanted { all, by_key: None, without_key: Vec::new() };
        let has_keys = matches!(wanted.all.first(), Some(Criterion::Token(_) | Criterion::Reference(_)));
        if wanted.all.len() > FEW && has_keys {
            let mut by_key: HashMap<Box<[u8]>, Vec<usize>> = HashMap::new();
            for (at, criterion) in wanted.all.iter().enumerate() {
                match criterion.key() {
                    Some(key) => by_key.entry(key.into()).or_default().push(at),
                    None => wanted.without_key.push(at),
                }
            }
            wanted.by_key = Some(by_key);
        }
        wanted
    }

    pub fn all(&self) -> &[Criterion] {
        &self.all
    }

    /// Whether an item has one of the values.
    #[inline]
    pub fn matches(&self, scope: &Scope<'_, '_>, item: &Item<'_>) -> bool {
        match &self.by_key {
            None => self.all.iter().any(|criterion| criterion.matches(scope, item)),
            Some(by_key) => self.is_known(by_key, scope, item),
        }
    }

    fn is_known(&self, by_key: &HashMap<Box<[u8]>, Vec<usize>>, scope: &Scope<'_, '_>, item: &Item<'_>) -> bool {
        let at = |places: &[usize], is: &dyn Fn(&Criterion) -> bool| places.iter().any(|at| is(&self.all[*at]));
        if let Some(Criterion::Reference(_)) = self.all.first() {
            let Some(target) = Target::of(item, scope.bases) else { return false };
            let is = |criterion: &Criterion| matches!(criterion, Criterion::Reference(wanted) if wanted.is(&target));
            return target.any_key(|key| by_key.get(key).is_some_and(|places| at(places, &is)));
        }
        any_code(item, |found: &Found<'_>| {
            let is = |criterion: &Criterion| matches!(criterion, Criterion::Token(wanted) if wanted.is(found));
            match found.key() {
                Some(key) => by_key.get(key).is_some_and(|places| at(places, &is)) || at(&self.without_key, &is),
                None => self.all.iter().any(is),
            }
        })
    }
}
