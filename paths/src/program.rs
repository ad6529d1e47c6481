//! Programs, and how they run.

use crate::item::{Item, Resource, Value};
use crate::model::TypeId;
use fhir_bulk_codec::jsonb::numeric;
use fhir_bulk_codec::jsonb::walk::{self, Container};
use std::cell::Cell;
use std::cmp::Ordering;
use std::ops::ControlFlow::{self, Break, Continue};

/// Finds items in a resource.
#[derive(Clone, Debug, PartialEq)]
pub enum Program {
    /// The resource.
    Root,
    /// The item in question: the one that a `where` looks at, the base of a composite.
    This,
    /// Column `id`.
    Id,
    /// Column `ts`.
    LastUpdated,
    /// A member of an object, or its elements.
    Member {
        /// Where the objects are.
        of: Box<Program>,
        /// The stored name.
        name: Box<str>,
        /// The type of the values.
        type_id: TypeId,
        /// Whether it is a list, or one value. `None` where the definitions do not say it: then it may be either.
        is_list: Option<bool>,
    },
    /// All types of a choice: the members of Aidbox's object for it.
    Choice {
        /// Where the choices are.
        of: Box<Program>,
        /// The types of the choice, by Aidbox's names.
        types: Vec<(Box<str>, TypeId)>,
    },
    /// Those items for which a condition holds.
    Where(Box<Program>, Box<Condition>),
    /// One of the items, counted from 0.
    Nth(Box<Program>, usize),
    /// Those items that are resources of a type.
    Resources(Box<Program>, Box<str>, TypeId),
    /// The items of all of them. Equal ones are not removed.
    Union(Vec<Program>),
    /// One boolean; none if it is unknown.
    Boolean(Box<Condition>),
}

/// True, false or unknown of an item: FHIRPath's logic has three values, and unknown is an empty collection.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// There is an item.
    Exists(Program),
    /// The only item is true, or is not a boolean. Unknown without an item.
    IsTrue(Program),
    /// There is just one item, and it equals a literal. Unknown without an item.
    Equals(Program, Literal),
    /// The items are others than just one that equals a literal. Unknown without an item.
    Differs(Program, Literal),
    /// There is an item of a type. Unknown without an item.
    IsOfType(Program, OfType),
    /// There is a reference to a resource of a type. Unknown without an item.
    RefersTo(Program, Box<str>),
    /// Both hold.
    And(Box<Condition>, Box<Condition>),
    /// One holds, or both.
    Or(Box<Condition>, Box<Condition>),
    /// It does not hold. Unknown if that is unknown.
    Not(Box<Condition>),
}

/// Which items have a type.
#[derive(Clone, Debug, PartialEq)]
pub enum OfType {
    /// All that the definitions allow.
    All,
    /// Those of these types.
    Types(Vec<TypeId>),
    /// Resources of this type.
    Resource(Box<str>),
}

/// A constant of an expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// A string.
    Text(Box<str>),
    /// `true` or `false`.
    Boolean(bool),
    /// A number, in PostgreSQL's numeric bytes.
    Number(Box<[u8]>),
}

/// What a program runs on.
pub struct Scope<'a, 'j> {
    /// The resource.
    pub resource: Resource<'j>,
    /// The urls of servers whose resources are ours: a reference to `<base>/Patient/1` is one to `Patient/1`.
    pub bases: &'a [String],
    /// How many items may still be looked at by criteria, and how many contained resources to find what references refer to.
    looks: Cell<usize>,
}

/// The most looks: of a resource with very many contained ones, and as many references to them, each reference would look at
/// all of them, and criteria within criteria multiply. Two hundred references to two hundred are 40,000 looks at most. What
/// needs more is not found: within one row nothing interrupts a filter.
const MAX_LOOKS: usize = 1_000_000;

impl<'a, 'j> Scope<'a, 'j> {
    /// A resource, and the urls that are ours.
    #[inline]
    pub fn new(resource: Resource<'j>, bases: &'a [String]) -> Scope<'a, 'j> {
        Scope { resource, bases, looks: Cell::new(MAX_LOOKS) }
    }

    /// Counts a look; breaks after the last one.
    fn look(&self) -> ControlFlow<()> {
        match self.looks.get().checked_sub(1) {
            Some(left) => {
                self.looks.set(left);
                Continue(())
            }
            None => Break(()),
        }
    }
}

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
            Program::Union(parts) => parts.iter().try_for_each(|part| part.run(scope, this, sink)),
            Program::Boolean(condition) => match condition.truth(scope, this) {
                Some(value) => sink(Item { value: Value::Boolean(value), type_id: TypeId::BOOLEAN }),
                None => Continue(()),
            },
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
fn member<'j>(
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
fn values<'j>(
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

impl Condition {
    /// Whether it holds of an item: what is unknown does not.
    pub fn holds<'j>(&self, scope: &Scope<'_, 'j>, this: Item<'j>) -> bool {
        self.truth(scope, this) == Some(true)
    }

    fn truth<'j>(&self, scope: &Scope<'_, 'j>, this: Item<'j>) -> Option<bool> {
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
            Literal::Text(text) => item.text() == Some(text.as_bytes()),
            Literal::Boolean(value) => item.boolean() == Some(*value),
            Literal::Number(number) => {
                item.number().is_some_and(|found| numeric::compare(found, number) == Some(Ordering::Equal))
            }
        }
    }
}

/// Whether an item, a resource within another one, has a type.
fn is_resource(item: &Item<'_>, name: &str) -> bool {
    let found = item.object().and_then(|object| object.member(b"resourceType"));
    found.and_then(|found| found.string()) == Some(name.as_bytes())
}

/// Whether an item is a reference to a resource of a type, as far as the reference and the resource around it tell.
fn refers_to(scope: &Scope<'_, '_>, item: &Item<'_>, name: &str) -> bool {
    let Some(object) = item.object() else { return false };
    let name = name.as_bytes();
    let text = |member: &[u8]| object.clone().member(member).and_then(|value| value.string());
    if let Some(found) = text(b"resourceType") {
        return found == name;
    }
    if let Some(id) = text(b"localRef") {
        return contained_type(scope, id) == Some(name);
    }
    let Some(uri) = text(b"uri").or_else(|| text(b"reference")) else { return text(b"type") == Some(name) };
    type_of_url(uri, scope.bases).or_else(|| text(b"type")) == Some(name)
}

/// The type that an absolute or relative url names: `Patient/1`, `https://example.org/fhir/Patient/1/_history/2`. Whether the
/// resource is ours is not asked.
fn type_of_url<'u>(url: &'u [u8], bases: &[String]) -> Option<&'u [u8]> {
    let path = without_base(url, bases);
    if path.starts_with(b"urn:") || path.starts_with(b"#") {
        return None;
    }
    let mut parts = path.rsplit(|byte| *byte == b'/');
    let mut id = parts.next()?;
    let mut name = parts.next()?;
    if name == b"_history" {
        (id, name) = (parts.next()?, parts.next()?);
    }
    let is_type = name.first().is_some_and(u8::is_ascii_uppercase) && name.iter().all(u8::is_ascii_alphanumeric);
    (is_type && !id.is_empty()).then_some(name)
}

/// A url relative to our server, if it is below one of its urls.
pub(crate) fn without_base<'u>(url: &'u [u8], bases: &[String]) -> &'u [u8] {
    let below = |base: &String| url.strip_prefix(base.as_bytes())?.strip_prefix(b"/");
    // One of ours may be below another one of ours.
    bases.iter().filter_map(below).min_by_key(|path| path.len()).unwrap_or(url)
}

/// The type of a contained resource.
fn contained_type<'j>(scope: &Scope<'_, 'j>, id: &[u8]) -> Option<&'j [u8]> {
    let mut found = None;
    let _ = member(scope.resource.item(), "contained", Some(true), TypeId::RESOURCE, &mut |item| {
        scope.look()?;
        let text = |name: &[u8]| item.object().and_then(|object| object.member(name)).and_then(|value| value.string());
        if text(b"id") == Some(id) {
            found = text(b"resourceType");
            return Break(());
        }
        Continue(())
    });
    found
}
