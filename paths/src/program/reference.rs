//! What references refer to, as far as they and the resource around them tell.

use super::Scope;
use super::run::member;
use crate::item::{Item, Value};
use crate::model::TypeId;
use std::ops::ControlFlow::{Break, Continue};

/// Whether an item is a reference to a resource of a type, as far as the reference and the resource around it tell.
pub(super) fn refers_to(scope: &Scope<'_, '_>, item: &Item<'_>, name: &str) -> bool {
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

/// The members of a Reference that say what it refers to.
#[derive(Default)]
struct Parts<'j> {
    id: Option<&'j [u8]>,
    uri: Option<&'j [u8]>,
    local: Option<&'j [u8]>,
    reference: Option<&'j [u8]>,
    resource_type: Option<&'j [u8]>,
}

impl<'j> Parts<'j> {
    /// Of an item that is an object; in one walk.
    #[inline]
    fn of(item: &Item<'j>) -> Option<Parts<'j>> {
        let mut object = item.object()?;
        let mut parts = Parts::default();
        while let Some((name, value)) = object.next_member() {
            let part = match name.as_bytes() {
                b"id" => &mut parts.id,
                b"uri" => &mut parts.uri,
                b"localRef" => &mut parts.local,
                b"reference" => &mut parts.reference,
                b"resourceType" => &mut parts.resource_type,
                _ => continue,
            };
            *part = value.string();
        }
        Some(parts)
    }
}

/// A Reference's `reference` as FHIR has it.
pub fn reference<'j>(item: &Item<'j>) -> Option<Item<'j>> {
    let Parts { id, uri, local, reference, resource_type } = Parts::of(item)?;
    let value = match (reference, resource_type, id) {
        (Some(text), _, _) => Value::Joined(text),
        (None, Some(of_type), Some(id)) => Value::Reference(of_type, b'/', id),
        _ => match uri {
            Some(uri) => Value::Joined(uri),
            None => Value::Reference(b"", b'#', local?),
        },
    };
    Some(Item { value, type_id: TypeId::STRING })
}

/// The id of the resource of ours that a Reference refers to; of one type, if it is named.
pub fn reference_key<'j>(item: &Item<'j>, bases: &[String], wanted: Option<&str>) -> Option<Item<'j>> {
    let (of_type, id) = target(item, bases)?;
    let is_wanted = wanted.is_none_or(|wanted| wanted.as_bytes() == of_type);
    is_wanted.then_some(Item { value: Value::Joined(id), type_id: TypeId::STRING })
}

/// Type and id of the resource of ours that a Reference refers to, also if it names a version.
fn target<'j>(item: &Item<'j>, bases: &[String]) -> Option<(&'j [u8], &'j [u8])> {
    let Parts { id, uri, reference, resource_type, .. } = Parts::of(item)?;
    if let (Some(of_type), Some(id)) = (resource_type, id) {
        return Some((of_type, id));
    }
    let url = match uri {
        // A uri is one of ours only below a base.
        Some(uri) => Some(without_base(uri, bases)).filter(|path| path.len() < uri.len())?,
        None => without_base(reference?, bases),
    };
    let mut parts = url.split(|byte| *byte == b'/');
    let (of_type, id) = (parts.next()?, parts.next()?);
    let is_type = of_type.first().is_some_and(u8::is_ascii_uppercase) && of_type.iter().all(u8::is_ascii_alphanumeric);
    let is_version = parts.next().is_none_or(|rest| rest == b"_history");
    (is_type && !id.is_empty() && is_version).then_some((of_type, id))
}
