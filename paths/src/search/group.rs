//! The members of a Group.

use super::reference::Target;
use crate::item::{Item, Resource, Value};
use crate::model::TypeId;
use fhir_bulk_codec::instant::{Micros, range};
use fhir_bulk_codec::jsonb::walk::{self, Container};

/// A member of a Group that is one at a certain time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'j> {
    /// `Patient`, `Group` or another type.
    pub resource_type: &'j [u8],
    /// Its id.
    pub id: &'j [u8],
    /// The time that the start of its period covers, if it has one: from the first microsecond to before the first one
    /// after it.
    pub start: Option<(Micros, Micros)>,
}

/// The url of a modifier extension in a Group: it may mean anything, also that the members are not what they seem to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Modified(pub String);

/// Passes the members that a Group has at a time to `sink`: those that are not inactive, and whose period has begun and not
/// ended. A date is the whole of its day, month or year. Whether the Group itself is active does not matter.
///
/// # Errors
/// [`Modified`]; then some members may have been passed.
pub fn members<'j>(
    group: Resource<'j>,
    at: Micros,
    bases: &[String],
    mut sink: impl FnMut(Member<'j>),
) -> Result<(), Modified> {
    let Some(root) = group.item().object() else { return Ok(()) };
    check(&root)?;
    let Some(list) = root.member(b"member").and_then(|list| list.container()) else { return Ok(()) };
    let mut list = if list.is_object() { Container::empty() } else { list };
    while let Some(element) = list.next_element() {
        let Some(member) = element.container().filter(Container::is_object) else { continue };
        check(&member)?;
        let inactive = member.clone().member(b"inactive").and_then(|value| value.boolean());
        let period = member.clone().member(b"period");
        let (start, end) = (bound(period, b"start"), bound(period, b"end"));
        let has_begun = start.is_none_or(|(from, _)| from <= at);
        if inactive == Some(true) || !has_begun || end.is_some_and(|(_, until)| until <= at) {
            continue;
        }
        let target = |value| Target::of(&Item { value: Value::Json(value), type_id: TypeId::UNKNOWN }, bases);
        if let Some(Target::Resource { resource_type, id }) = member.member(b"entity").and_then(target) {
            sink(Member { resource_type, id, start });
        }
    }
    Ok(())
}

fn check(object: &Container<'_>) -> Result<(), Modified> {
    let Some(extensions) = object.clone().member(b"modifierExtension") else { return Ok(()) };
    let mut list = extensions.container().filter(|list| !list.is_object()).unwrap_or(Container::empty());
    let Some(first) = list.next_element() else { return Ok(()) };
    let url = first.container().and_then(|extension| extension.member(b"url")).and_then(|url| url.string());
    Err(Modified(url.map_or_else(String::new, |url| String::from_utf8_lossy(url).into_owned())))
}

/// What a bound of a Period covers: from its first moment to the end of it. What is no date is no bound.
fn bound(period: Option<walk::Value<'_>>, name: &[u8]) -> Option<(Micros, Micros)> {
    let text = period?.container().filter(Container::is_object)?.member(name)?.string()?;
    str::from_utf8(text).ok().and_then(range)
}
