//! The items that a program finds.

use super::{Program, Scope};
use crate::item::{Item, Resource, Value};
use crate::model::TypeId;
use fhir_bulk_codec::jsonb::walk::{self, Container};
use std::ops::ControlFlow::{self, Break, Continue};

/// Takes the items that a program finds, until it breaks.
pub type Sink<'s, 'j> = dyn FnMut(Item<'j>) -> ControlFlow<()> + 's;

impl Program {
    /// Passes each item to `sink`.
    pub fn run<'j>(&self, scope: &Scope<'_, 'j>, this: Item<'j>, sink: &mut Sink<'_, 'j>) -> ControlFlow<()> {
        match self {
            Program::Root => sink(scope.resource.item()),
            Program::This => sink(this),
            Program::Id => sink(Item { value: Value::Text(scope.resource.id), type_id: TypeId::STRING }),
            Program::LastUpdated => match scope.resource.last_updated {
                Some(at) => sink(Item { value: Value::Instant(at), type_id: TypeId::INSTANT }),
                None => Continue(()),
            },
            Program::Member { of, name, type_id, is_list } => match &**of {
                // Most paths start here: no closure for the one item.
                Program::Root => member(scope.resource.item(), name, *is_list, *type_id, sink),
                Program::This => member(this, name, *is_list, *type_id, sink),
                of => of.run(scope, this, &mut |item| member(item, name, *is_list, *type_id, sink)),
            },
            Program::Choice { of, types } => of.run(scope, this, &mut |item| choice(item, types, sink)),
            Program::Where(of, condition) => of.run(scope, this, &mut |item| {
                scope.look()?;
                if condition.holds(scope, item) { sink(item) } else { Continue(()) }
            }),
            Program::Nth(of, wanted) => {
                let (mut at, mut result) = (0, Continue(()));
                // The inner program ends with the item; the outer one goes on unless `sink` ends it.
                let _ = of.run(scope, this, &mut |item| {
                    if at == *wanted {
                        result = sink(item);
                        return Break(());
                    }
                    at += 1;
                    Continue(())
                });
                result
            }
            Program::Resources(of, name, type_id) => of.run(scope, this, &mut |item| {
                if is_resource(&item, name) {
                    sink(Item { value: item.value, type_id: *type_id })
                } else {
                    Continue(())
                }
            }),
            Program::Union(parts) => parts.iter().try_for_each(|part| {
                scope.interrupt();
                part.run(scope, this, sink)
            }),
            Program::Boolean(condition) => match condition.truth(scope, this) {
                Some(value) => sink(Item { value: Value::Boolean(value), type_id: TypeId::BOOLEAN }),
                None => Continue(()),
            },
            Program::Value(value) => value.run(scope, this, sink),
        }
    }

    /// Whether one of the items is `wanted`.
    #[inline]
    pub fn any<'j>(&self, scope: &Scope<'_, 'j>, this: Item<'j>, mut wanted: impl FnMut(Item<'j>) -> bool) -> bool {
        // A program also breaks when it has looked at too much.
        let mut found = false;
        let _ = self.run(scope, this, &mut |item| {
            found = wanted(item);
            if found { Break(()) } else { Continue(()) }
        });
        found
    }
}

impl<'j> Resource<'j> {
    /// The resource as an item.
    pub fn item(&self) -> Item<'j> {
        Item { value: Value::Root(self.json), type_id: TypeId::RESOURCE }
    }
}

#[inline]
pub(super) fn member<'j>(
    item: Item<'j>,
    name: &str,
    is_list: Option<bool>,
    type_id: TypeId,
    sink: &mut Sink<'_, 'j>,
) -> ControlFlow<()> {
    match item.object().and_then(|object| object.member(name.as_bytes())) {
        Some(value) => values(value, is_list, type_id, sink),
        None => Continue(()),
    }
}

/// A value, or the elements of an array. FHIR has no arrays in arrays, and no null but in arrays of primitives. A list that has
/// to be one value, or a value that has to be a list, is not found: an index would not find it either.
#[inline]
pub(super) fn values<'j>(
    value: walk::Value<'j>,
    is_list: Option<bool>,
    type_id: TypeId,
    sink: &mut Sink<'_, 'j>,
) -> ControlFlow<()> {
    let array = value.container().filter(|container| !container.is_object());
    if value.is_null() || is_list.is_some_and(|is_list| is_list != array.is_some()) {
        return Continue(());
    }
    let Some(mut array) = array else { return sink(Item { value: Value::Json(value), type_id }) };
    while let Some(value) = array.next_element() {
        if !value.is_null() && value.container().is_none_or(|container| container.is_object()) {
            sink(Item { value: Value::Json(value), type_id })?;
        }
    }
    Continue(())
}

fn choice<'j>(item: Item<'j>, types: &[(Box<str>, TypeId)], sink: &mut Sink<'_, 'j>) -> ControlFlow<()> {
    let mut object = item.object().unwrap_or(Container::empty());
    while let Some((name, value)) = object.next_member() {
        let name = name.as_bytes();
        if let Some((_, type_id)) = types.iter().find(|(known, _)| known.as_bytes() == name) {
            values(value, Some(false), *type_id, sink)?;
        }
    }
    Continue(())
}

/// Whether an item, a resource within another one, has a type.
pub(super) fn is_resource(item: &Item<'_>, name: &str) -> bool {
    let found = item.object().and_then(|object| object.member(b"resourceType"));
    found.and_then(|found| found.string()) == Some(name.as_bytes())
}
