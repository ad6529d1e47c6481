//! The order of values, as FHIRPath says it.

use super::run::Sink;
use super::{Comparison, Program, Scope};
use crate::item::{Item, Room, Value};
use fhir_bulk_codec::jsonb::numeric;
use fhir_bulk_codec::jsonb::walk;
use std::cmp::Ordering;
use std::ops::ControlFlow::{self, Break, Continue};

/// How deep two objects are compared: data is not that deep, and the stack is not endless.
const MAX_DEPTH: usize = 100;

/// Whether what two programs find compares so; `None` if that is unknown, as it is without an item on one side.
pub fn compares<'j>(
    left: &Program,
    comparison: Comparison,
    right: &Program,
    scope: &Scope<'_, 'j>,
    this: Item<'j>,
) -> Option<bool> {
    let ((left_item, left_more), (right_item, right_more)) = (few(left, scope, this)?, few(right, scope, this)?);
    let equal = || match (left_more, right_more) {
        (false, false) => equals(&left_item, &right_item),
        (true, true) => all_equal(left, right, scope, this),
        _ => Some(false),
    };
    let order = || if left_more || right_more { None } else { order(&left_item, &right_item) };
    match comparison {
        Comparison::Equal => equal(),
        Comparison::NotEqual => equal().map(|equal| !equal),
        Comparison::Less => order().map(Ordering::is_lt),
        Comparison::LessOrEqual => order().map(Ordering::is_le),
        Comparison::Greater => order().map(Ordering::is_gt),
        Comparison::GreaterOrEqual => order().map(Ordering::is_ge),
    }
}

/// The first item, and whether there are more.
fn few<'j>(program: &Program, scope: &Scope<'_, 'j>, this: Item<'j>) -> Option<(Item<'j>, bool)> {
    let mut found = None;
    let _ = program.run(scope, this, &mut |item| match found {
        None => {
            found = Some((item, false));
            Continue(())
        }
        Some((first, _)) => {
            found = Some((first, true));
            Break(())
        }
    });
    found
}

/// The only item, if there is just one.
pub fn only<'j>(program: &Program, scope: &Scope<'_, 'j>, this: Item<'j>) -> Option<Item<'j>> {
    few(program, scope, this).filter(|(_, more)| !more).map(|(item, _)| item)
}

/// Whether two lists are equal, item by item.
fn all_equal<'j>(left: &Program, right: &Program, scope: &Scope<'_, 'j>, this: Item<'j>) -> Option<bool> {
    let (mut at, mut result) = (0, Some(true));
    let _ = left.run(scope, this, &mut |left| {
        let mut found = None;
        let other = nth(right, at, scope, this, &mut |item| {
            found = Some(item);
            Break(())
        });
        if other.is_break() && scope.is_exhausted() {
            return Break(());
        }
        at += 1;
        result = match found {
            Some(right) => match (result, equals(&left, &right)) {
                (_, Some(false)) => Some(false),
                (None, _) | (_, None) => None,
                (result, Some(true)) => result,
            },
            None => Some(false),
        };
        if result == Some(false) { Break(()) } else { Continue(()) }
    });
    if result != Some(false) {
        let more = nth(right, at, scope, this, &mut |_| Break(()));
        if more.is_break() {
            return Some(false);
        }
    }
    result
}

/// Passes one of the items on. Each item before it is a look: a list is compared in time that grows with its square.
fn nth<'j>(
    program: &Program,
    wanted: usize,
    scope: &Scope<'_, 'j>,
    this: Item<'j>,
    sink: &mut Sink<'_, 'j>,
) -> ControlFlow<()> {
    let mut at = 0;
    program.run(scope, this, &mut |item| {
        scope.look()?;
        at += 1;
        if at > wanted { sink(item) } else { Continue(()) }
    })
}

/// Whether two items are equal; `None` if their precision does not tell.
pub fn equals(a: &Item<'_>, b: &Item<'_>) -> Option<bool> {
    if let (Some(a), Some(b)) = (a.boolean(), b.boolean()) {
        return Some(a == b);
    }
    if let (Some(a), Some(b)) = (a.object(), b.object()) {
        return Some(same_containers(a, b, MAX_DEPTH));
    }
    if is_number(a) && is_number(b) {
        return numbers(a, b).map(Ordering::is_eq);
    }
    let (mut room_a, mut room_b) = (Room::default(), Room::default());
    let (Some(text_a), Some(text_b)) = (a.pieces(&mut room_a), b.pieces(&mut room_b)) else { return Some(false) };
    if is_temporal(a, b)
        && let (Some(a), Some(b)) = (a.temporal(), b.temporal())
    {
        return a.compare(&b).map(Ordering::is_eq);
    }
    Some(bytes(text_a).eq(bytes(text_b)))
}

/// The order of two items; `None` if they have none.
fn order(a: &Item<'_>, b: &Item<'_>) -> Option<Ordering> {
    if is_number(a) && is_number(b) {
        return numbers(a, b);
    }
    let (mut room_a, mut room_b) = (Room::default(), Room::default());
    let (text_a, text_b) = (a.pieces(&mut room_a)?, b.pieces(&mut room_b)?);
    if is_temporal(a, b) {
        return a.temporal()?.compare(&b.temporal()?);
    }
    Some(bytes(text_a).cmp(bytes(text_b)))
}

/// Whether two texts are compared as times: one is a time by its type.
fn is_temporal(a: &Item<'_>, b: &Item<'_>) -> bool {
    a.type_id.is_temporal() || b.type_id.is_temporal()
}

fn is_number(item: &Item<'_>) -> bool {
    item.number().is_some() || matches!(item.value, Value::Decimal(_)) || item.decimal().is_some()
}

/// The order of two numbers: those of the jsonb may have more digits than can be computed with.
fn numbers(a: &Item<'_>, b: &Item<'_>) -> Option<Ordering> {
    if let (Some(a), Some(b)) = (a.number(), b.number()) {
        return numeric::compare(a, b);
    }
    a.decimal()?.compare(b.decimal()?)
}

fn bytes<'t>(pieces: [&'t [u8]; 3]) -> impl Iterator<Item = u8> + 't {
    pieces.into_iter().flatten().copied()
}

/// Whether the pieces are a text.
pub fn is_joined(text: &[u8], pieces: [&[u8]; 3]) -> bool {
    bytes(pieces).eq(text.iter().copied())
}

/// Whether two containers have the same content. What is deeper than a hundred levels is not the same.
fn same_containers(mut a: walk::Container<'_>, mut b: walk::Container<'_>, depth: usize) -> bool {
    if depth == 0 || a.is_object() != b.is_object() {
        return false;
    }
    if a.is_object() {
        loop {
            match (a.next_member(), b.next_member()) {
                (None, None) => return true,
                (Some((name_a, a)), Some((name_b, b))) => {
                    if name_a.as_bytes() != name_b.as_bytes() || !same(&a, &b, depth) {
                        return false;
                    }
                }
                _ => return false,
            }
        }
    }
    loop {
        match (a.next_element(), b.next_element()) {
            (None, None) => return true,
            (Some(a), Some(b)) if same(&a, &b, depth) => {}
            _ => return false,
        }
    }
}

fn same(a: &walk::Value<'_>, b: &walk::Value<'_>, depth: usize) -> bool {
    match (a.container(), b.container()) {
        (Some(a), Some(b)) => same_containers(a, b, depth - 1),
        (None, None) => match (a.number(), b.number()) {
            (Some(a), Some(b)) => numeric::compare(a, b) == Some(Ordering::Equal),
            (None, None) => (a.string(), a.boolean()) == (b.string(), b.boolean()),
            _ => false,
        },
        _ => false,
    }
}
