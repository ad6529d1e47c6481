//! The values of views.

use super::compare::only;
use super::reference::{reference, reference_key};
use super::run::{Sink, values};
use super::{Column, Constant, ConstantValue, Missing, Operation, Program, Scope, Value};
use crate::arena::List;
use crate::decimal::Decimal;
use crate::item::{self, Item, Room};
use crate::model::TypeId;
use std::ops::ControlFlow::{self, Continue};

impl Value {
    /// Passes each item to `sink`.
    pub(super) fn run<'j>(&self, scope: &Scope<'_, 'j>, this: Item<'j>, sink: &mut Sink<'_, 'j>) -> ControlFlow<()> {
        let Some(view) = &scope.view else { return Continue(()) };
        match self {
            Value::Column(Program::Root, column) => column_of(scope, scope.resource.item(), *column, sink),
            Value::Column(Program::This, column) => column_of(scope, this, *column, sink),
            Value::Column(of, column) => of.run(scope, this, &mut |item| column_of(scope, item, *column, sink)),
            Value::Constant(number) => match view.constants.get(*number) {
                Some(constant) => sink(constant.item()),
                None => Continue(()),
            },
            Value::RowIndex => sink(Item { value: item::Value::Integer(view.row_index), type_id: TypeId::INTEGER }),
            Value::Context => sink(view.context),
            Value::OfTypes(of, types) => of.run(scope, this, &mut |item| {
                if types.contains(&item.type_id) { sink(item) } else { Continue(()) }
            }),
            Value::Reference(of) => of.run(scope, this, &mut |item| reference(&item).map_or(Continue(()), &mut *sink)),
            Value::ReferenceKey(of, wanted) => of.run(scope, this, &mut |item| {
                reference_key(&item, scope.bases, wanted.as_deref()).map_or(Continue(()), &mut *sink)
            }),
            Value::Joined(of, separator) => joined(of, separator, scope, this, sink),
            Value::Concatenated(left, right, missing) => {
                let (left, right) = (only(left, scope, this), only(right, scope, this));
                if *missing == Missing::Nothing && (left.is_none() || right.is_none()) {
                    return Continue(());
                }
                let (mut room_left, mut room_right) = (Room::default(), Room::default());
                let left = left.as_ref().map_or(Some(NOTHING), |item| item.pieces(&mut room_left));
                let right = right.as_ref().map_or(Some(NOTHING), |item| item.pieces(&mut room_right));
                let (Some(left), Some(right)) = (left, right) else { return Continue(()) };
                text(scope, left.into_iter().chain(right), sink)
            }
            Value::Arithmetic(left, operation, right) => {
                let operand = |program| only(program, scope, this).and_then(|item| item.decimal());
                let result = operand(left).zip(operand(right)).and_then(|(left, right)| match operation {
                    Operation::Add => left.plus(right),
                    Operation::Subtract => left.plus(right.negated()?),
                    Operation::Multiply => left.times(right),
                    Operation::Divide => left.divided_by(right),
                });
                result.map_or(Continue(()), |number| sink(decimal(number)))
            }
            Value::Boundary(of, high) => of.run(scope, this, &mut |item| match boundary(&item, *high) {
                Some(item) => sink(item),
                None => Continue(()),
            }),
        }
    }
}

const NOTHING: [&[u8]; 3] = [b"", b"", b""];

impl Constant {
    /// The constant as an item.
    pub fn item(&self) -> Item<'_> {
        let value = match &self.value {
            ConstantValue::Text(text) => item::Value::Text(text),
            ConstantValue::Boolean(value) => item::Value::Boolean(*value),
            ConstantValue::Number(number) => item::Value::Decimal(*number),
        };
        Item { value, type_id: self.type_id }
    }
}

fn decimal<'j>(number: Decimal) -> Item<'j> {
    Item { value: item::Value::Decimal(number), type_id: TypeId::DECIMAL }
}

/// What a column has of an item; or its member, if the item is another resource or another `meta`.
fn column_of<'j>(scope: &Scope<'_, 'j>, item: Item<'j>, column: Column, sink: &mut Sink<'_, 'j>) -> ControlFlow<()> {
    let member = |name: &[u8]| item.object().and_then(|object| object.member(name)).filter(|value| !value.is_null());
    let resource = &scope.resource;
    let (value, type_id) = match (column, item.value) {
        (Column::Id, item::Value::Root(_)) => (Some(item::Value::Text(resource.id)), TypeId::ID),
        (Column::Meta, item::Value::Root(_)) => (Some(item::Value::Meta(member(b"meta"))), TypeId::META),
        (Column::LastUpdated, item::Value::Meta(_)) => {
            (resource.last_updated.map(item::Value::Instant), TypeId::INSTANT)
        }
        (Column::VersionId, item::Value::Meta(_)) => (resource.version_id.map(item::Value::Integer), TypeId::ID),
        (Column::Id, _) => return stored(member(b"id"), TypeId::ID, sink),
        (Column::Meta, _) => return stored(member(b"meta"), TypeId::META, sink),
        (Column::LastUpdated, _) => return stored(member(b"lastUpdated"), TypeId::INSTANT, sink),
        (Column::VersionId, _) => return stored(member(b"versionId"), TypeId::ID, sink),
    };
    value.map_or(Continue(()), |value| sink(Item { value, type_id }))
}

fn stored<'j>(
    value: Option<fhir_bulk_codec::jsonb::walk::Value<'j>>,
    type_id: TypeId,
    sink: &mut Sink<'_, 'j>,
) -> ControlFlow<()> {
    value.map_or(Continue(()), |value| values(value, Some(false), type_id, sink))
}

/// All texts as one: the items are looked at twice, for the length first.
fn joined<'j>(
    of: &Program,
    separator: &str,
    scope: &Scope<'_, 'j>,
    this: Item<'j>,
    sink: &mut Sink<'_, 'j>,
) -> ControlFlow<()> {
    let Some(view) = &scope.view else { return Continue(()) };
    let mut items = List::new(view.arena);
    let mut is_full = false;
    let _ = of.run(scope, this, &mut |item| match items.push(item) {
        Some(()) => Continue(()),
        None => {
            is_full = true;
            scope.exhaust()
        }
    });
    if is_full {
        return scope.exhaust();
    }
    let items = items.into_items();
    let mut length = 0;
    let each = |put: &mut dyn FnMut(&[u8])| {
        let mut first = true;
        for item in items {
            let mut room = Room::default();
            let Some(pieces) = item.pieces(&mut room) else { continue };
            if !std::mem::replace(&mut first, false) {
                put(separator.as_bytes());
            }
            pieces.into_iter().for_each(&mut *put);
        }
    };
    each(&mut |piece| length += piece.len());
    let Some(text) = view.arena.slice(length, 0u8) else { return scope.exhaust() };
    let mut at = 0;
    each(&mut |piece| {
        text[at..at + piece.len()].copy_from_slice(piece);
        at += piece.len();
    });
    sink(Item { value: item::Value::Joined(text), type_id: TypeId::STRING })
}

fn text<'j, 't>(
    scope: &Scope<'_, 'j>,
    parts: impl Iterator<Item = &'t [u8]> + Clone,
    sink: &mut Sink<'_, 'j>,
) -> ControlFlow<()> {
    let Some(view) = &scope.view else { return Continue(()) };
    match view.arena.joined(parts) {
        Some(text) => sink(Item { value: item::Value::Joined(text), type_id: TypeId::STRING }),
        None => scope.exhaust(),
    }
}

fn boundary<'j>(item: &Item<'_>, high: bool) -> Option<Item<'j>> {
    if let Some(number) = item.decimal() {
        return number.boundary(high).map(decimal);
    }
    // What has no type may be a time by its form.
    let time = item.temporal()?;
    let is_date = item.type_id == TypeId::DATE;
    Some(Item { value: item::Value::Short(time.boundary(high, is_date)), type_id: item.type_id })
}
