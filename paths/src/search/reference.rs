//! `reference` parameters: the targets of references, and canonical urls.

use super::value::unescape;
use crate::item::Item;
use crate::model::TypeId;
use crate::program::{Scope, without_base};
use fhir_bulk_codec::jsonb::walk::Container;

/// A wanted target.
#[derive(Clone, Debug, PartialEq)]
pub enum Reference {
    /// The id of a resource, of one of these types; of any type if there are none.
    Id { id: String, targets: Vec<String> },
    /// A resource of ours.
    Local { resource_type: String, id: String },
    /// Anything else: the url of another server's resource, a version of a resource, a urn, a canonical url. Without our base.
    Uri(String),
}

/// The target of an item.
#[derive(Clone, Copy)]
pub enum Target<'j> {
    /// A resource by type and id.
    Resource { resource_type: &'j [u8], id: &'j [u8] },
    /// A url, without our base.
    Uri(&'j [u8]),
    /// A canonical url, without our base. It may have a version behind it.
    Canonical(&'j [u8]),
}

impl<'j> Target<'j> {
    /// What an item refers to: a Reference, a CodeableReference with one, a canonical or other url; or the resource that it
    /// is. A reference to a version of a resource is a url, not a reference to the resource.
    #[inline]
    pub fn of(item: &Item<'j>, bases: &[String]) -> Option<Target<'j>> {
        if let Some(text) = item.text() {
            return (!item.type_id.is_structure()).then(|| Target::Canonical(without_base(text, bases)));
        }
        let object = item.object()?;
        let reference = || object.clone().member(b"reference")?.container().filter(Container::is_object);
        match item.type_id {
            TypeId::CODEABLE_REFERENCE => Target::of_reference(&reference()?, bases),
            TypeId::UNKNOWN => Target::of_reference(reference().as_ref().unwrap_or(&object), bases),
            _ => Target::of_reference(&object, bases),
        }
    }

    fn of_reference(object: &Container<'j>, bases: &[String]) -> Option<Target<'j>> {
        let text = |name: &[u8]| object.clone().member(name).and_then(|value| value.string());
        if let (Some(id), Some(resource_type)) = (text(b"id"), text(b"resourceType")) {
            return Some(Target::Resource { resource_type, id });
        }
        let (url, is_relative) = match text(b"uri") {
            // A `uri` is one of ours only below a base; the codec stores other references otherwise.
            Some(uri) => {
                let path = without_base(uri, bases);
                (path, path.len() < uri.len())
            }
            None => (without_base(text(b"reference")?, bases), true),
        };
        let local = resource(url).filter(|_| is_relative);
        Some(local.map_or(Target::Uri(url), |(resource_type, id)| Target::Resource { resource_type, id }))
    }

    /// The texts by which wanted targets can be looked up; see [`Reference::key`].
    pub fn any_key(&self, mut is_wanted: impl FnMut(&'j [u8]) -> bool) -> bool {
        match *self {
            Target::Resource { id, .. } => is_wanted(id),
            Target::Uri(url) => is_wanted(url),
            Target::Canonical(url) => {
                let path = url.split(|byte| *byte == b'|').next().unwrap_or_default();
                let mut ends = url.iter().enumerate().filter(|(_, byte)| **byte == b'|').map(|(at, _)| at);
                is_wanted(url)
                    || resource(path).is_some_and(|(_, id)| is_wanted(id))
                    || ends.any(|end| is_wanted(&url[..end]))
            }
        }
    }
}

/// Type and id of `Type/id`.
fn resource(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, id) = path.split_at_checked(path.iter().position(|byte| *byte == b'/')?)?;
    let id = &id[1..];
    (is_type(name) && is_id(id)).then_some((name, id))
}

fn is_type(name: &[u8]) -> bool {
    name.first().is_some_and(u8::is_ascii_uppercase) && name.iter().all(u8::is_ascii_alphanumeric)
}

fn is_id(text: &[u8]) -> bool {
    let is_of_id = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    !text.is_empty() && text.iter().all(is_of_id)
}

impl Reference {
    /// `id`, `Type/id`, a url, a urn, a canonical url. The targets are those that the parameter allows; with the type of a
    /// modifier an id is of that type. `None` if the value has another type than the modifier.
    pub fn new(value: &str, of_type: Option<&str>, targets: &[String], bases: &[String]) -> Option<Reference> {
        let value = unescape(value);
        let path = without_base(value.as_bytes(), bases);
        // What is before it has only whole characters, and ends with one.
        let path = &value[value.len() - path.len()..];
        if is_id(path.as_bytes()) {
            return Some(match of_type {
                Some(name) => Reference::Local { resource_type: name.to_owned(), id: path.to_owned() },
                None => Reference::Id { id: path.to_owned(), targets: targets.to_vec() },
            });
        }
        match (resource(path.as_bytes()), path.split_once('/')) {
            (Some(_), Some((name, id))) => of_type
                .is_none_or(|of_type| of_type == name)
                .then(|| Reference::Local { resource_type: name.to_owned(), id: id.to_owned() }),
            _ => Some(Reference::Uri(path.to_owned())),
        }
    }

    /// A text that its targets have; see [`Target::any_key`].
    pub fn key(&self) -> &[u8] {
        match self {
            Reference::Id { id, .. } | Reference::Local { id, .. } => id.as_bytes(),
            Reference::Uri(url) => url.as_bytes(),
        }
    }

    /// Whether an item refers to it, or is such a resource itself.
    pub fn matches(&self, scope: &Scope<'_, '_>, item: &Item<'_>) -> bool {
        Target::of(item, scope.bases).is_some_and(|target| self.is(&target))
    }

    /// Whether a target is the wanted one.
    #[inline]
    pub fn is(&self, target: &Target<'_>) -> bool {
        match (self, *target) {
            (Reference::Id { id, targets }, Target::Resource { resource_type, id: found }) => {
                let is_target = |target: &String| target.as_bytes() == resource_type;
                id.as_bytes() == found && (targets.is_empty() || targets.iter().any(is_target))
            }
            (Reference::Local { resource_type, id }, Target::Resource { resource_type: found_type, id: found }) => {
                id.as_bytes() == found && resource_type.as_bytes() == found_type
            }
            (Reference::Uri(wanted), Target::Uri(found)) => wanted.as_bytes() == found,
            (Reference::Uri(wanted), Target::Canonical(found)) => has_version(found, wanted.as_bytes()),
            // An identifier of a resource may be what a canonical url is, such as in a parameter of texts.
            (Reference::Id { id, .. }, Target::Canonical(found)) => id.as_bytes() == found,
            (Reference::Local { resource_type, id }, Target::Canonical(found)) => {
                let rest = found.strip_prefix(resource_type.as_bytes()).and_then(|rest| rest.strip_prefix(b"/"));
                rest.is_some_and(|rest| has_version(rest, id.as_bytes()))
            }
            (Reference::Id { .. } | Reference::Local { .. }, Target::Uri(_)) => false,
            (Reference::Uri(_), Target::Resource { .. }) => false,
        }
    }
}

/// Whether a canonical url is the wanted one, or a version of it.
fn has_version(found: &[u8], wanted: &[u8]) -> bool {
    found.strip_prefix(wanted).is_some_and(|rest| matches!(rest, [] | [b'|', ..]))
}
