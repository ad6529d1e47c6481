//! Conditions: true, false or unknown of an item.

use super::compare::{compares, is_joined};
use super::reference::refers_to;
use super::run::is_resource;
use super::{Condition, Literal, OfType, Program, Scope};
use crate::item::{Item, Room};
use fhir_bulk_codec::jsonb::numeric;
use std::cmp::Ordering;
use std::ops::ControlFlow::{Break, Continue};

impl Condition {
    /// Whether it holds of an item: what is unknown does not.
    pub fn holds<'j>(&self, scope: &Scope<'_, 'j>, this: Item<'j>) -> bool {
        self.truth(scope, this) == Some(true)
    }

    pub(super) fn truth<'j>(&self, scope: &Scope<'_, 'j>, this: Item<'j>) -> Option<bool> {
        match self {
            Condition::Exists(program) => Some(program.any(scope, this, |_| true)),
            Condition::IsTrue(program) => one(program, scope, this, |item| item.boolean().unwrap_or(true)),
            Condition::Equals(program, literal) => one(program, scope, this, |item| literal.is(&item)),
            Condition::Differs(program, literal) => one(program, scope, this, |item| literal.is(&item)).map(|is| !is),
            Condition::IsOfType(program, of_type) => any_of(program, scope, this, |item| match of_type {
                OfType::All => true,
                OfType::Types(types) => types.contains(&item.type_id),
                OfType::Resource(name) => is_resource(&item, name),
            }),
            Condition::RefersTo(program, name) => any_of(program, scope, this, |item| refers_to(scope, &item, name)),
            Condition::And(a, b) => match a.truth(scope, this) {
                Some(false) => Some(false),
                a => match b.truth(scope, this) {
                    Some(false) => Some(false),
                    b => a.and(b),
                },
            },
            Condition::Or(a, b) => match a.truth(scope, this) {
                Some(true) => Some(true),
                a => match b.truth(scope, this) {
                    Some(true) => Some(true),
                    b => a.and(b),
                },
            },
            Condition::Not(condition) => condition.truth(scope, this).map(|holds| !holds),
            Condition::Xor(a, b) => Some(a.truth(scope, this)? != b.truth(scope, this)?),
            Condition::Compares(left, comparison, right) => compares(left, *comparison, right, scope, this),
        }
    }
}

/// Whether one of the items is `wanted`; `None` without an item.
fn any_of<'j>(
    program: &Program,
    scope: &Scope<'_, 'j>,
    this: Item<'j>,
    mut wanted: impl FnMut(Item<'j>) -> bool,
) -> Option<bool> {
    let mut any = false;
    let found = program.any(scope, this, |item| {
        any = true;
        wanted(item)
    });
    any.then_some(found)
}

/// Whether there is just one item, and it is `wanted`; `None` without an item.
fn one<'j>(
    program: &Program,
    scope: &Scope<'_, 'j>,
    this: Item<'j>,
    mut wanted: impl FnMut(Item<'j>) -> bool,
) -> Option<bool> {
    let mut found = None;
    let _ = program.run(scope, this, &mut |item| {
        let is_first = found.is_none();
        found = Some(is_first && wanted(item));
        if is_first { Continue(()) } else { Break(()) }
    });
    found
}

impl Literal {
    fn is(&self, item: &Item<'_>) -> bool {
        match self {
            Literal::Text(text) => match item.text() {
                Some(found) => found == text.as_bytes(),
                None => item.pieces(&mut Room::default()).is_some_and(|pieces| is_joined(text.as_bytes(), pieces)),
            },
            Literal::Boolean(value) => item.boolean() == Some(*value),
            Literal::Number(number) => {
                item.number().is_some_and(|found| numeric::compare(found, number) == Some(Ordering::Equal))
            }
        }
    }
}
