//! `reference` parameters: the targets of references, and canonical urls.

use super::value::unescape;
use crate::item::Item;
use crate::program::Scope;
use fhir_bulk_codec::jsonb::walk::Container;

/// A wanted target.
#[derive(Clone, Debug, PartialEq)]
pub enum Reference {
    /// The id of a resource, of one of these types; of any type if there are none.
    Id { id: String, targets: Vec<String> },
    /// A resource of ours.
    Local { resource_type: String, id: String },
    /// Anything else: the url of another server's resource, a urn, a canonical url.
    Uri(String),
}

impl Reference {
    /// `id`, `Type/id`, a url, a urn, a canonical url; with the type of a modifier an id is of that type. The targets are
    /// those that the parameter allows.
    pub fn new(value: &str, of_type: Option<&str>, targets: &[String], bases: &[String]) -> Reference {
        let value = unescape(value);
        let text = value.as_ref();
        let path = bases.iter().find_map(|base| text.strip_prefix(base.as_str())?.strip_prefix('/')).unwrap_or(text);
        let is_of_id = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        let is_id = |text: &str| !text.is_empty() && text.bytes().all(is_of_id);
        if is_id(path) {
            return match of_type {
                Some(name) => Reference::Local { resource_type: name.to_owned(), id: path.to_owned() },
                None => Reference::Id { id: path.to_owned(), targets: targets.to_vec() },
            };
        }
        match path.split_once('/') {
            Some((name, id)) if is_type(name) && is_id(id) => {
                Reference::Local { resource_type: name.to_owned(), id: id.to_owned() }
            }
            _ => Reference::Uri(path.to_owned()),
        }
    }

    /// Whether an item refers to it: a Reference, a CodeableReference with one, a canonical or other url; or whether it is
    /// such a resource itself. References to a version of a resource are not references to the resource.
    pub fn matches(&self, scope: &Scope<'_, '_>, item: &Item<'_>) -> bool {
        if let Some(text) = item.text() {
            return match self {
                Reference::Id { id, .. } => id.as_bytes() == text,
                // A canonical url may have a version behind it.
                Reference::Uri(wanted) => {
                    text.strip_prefix(wanted.as_bytes()).is_some_and(|rest| matches!(rest, [] | [b'|', ..]))
                }
                Reference::Local { .. } => self.is_uri(text, scope.bases),
            };
        }
        let Some(object) = item.object() else { return false };
        match object.clone().member(b"reference").and_then(|inner| inner.container()) {
            Some(reference) if reference.is_object() => self.is_target(&reference, scope.bases),
            _ => self.is_target(&object, scope.bases),
        }
    }

    fn is_target(&self, object: &Container<'_>, bases: &[String]) -> bool {
        let text = |name: &[u8]| object.clone().member(name).and_then(|value| value.string());
        if let (Some(id), Some(resource_type)) = (text(b"id"), text(b"resourceType")) {
            return self.is_resource(resource_type, id);
        }
        text(b"uri").or_else(|| text(b"reference")).is_some_and(|uri| self.is_uri(uri, bases))
    }

    fn is_resource(&self, found: &[u8], found_id: &[u8]) -> bool {
        match self {
            Reference::Id { id, targets } => {
                id.as_bytes() == found_id
                    && (targets.is_empty() || targets.iter().any(|target| target.as_bytes() == found))
            }
            Reference::Local { resource_type, id } => resource_type.as_bytes() == found && id.as_bytes() == found_id,
            Reference::Uri(_) => false,
        }
    }

    fn is_uri(&self, found: &[u8], bases: &[String]) -> bool {
        let local =
            bases.iter().find_map(|base| found.strip_prefix(base.as_bytes())?.strip_prefix(b"/")).unwrap_or(found);
        let mut parts = local.splitn(3, |byte| *byte == b'/');
        if let (Some(name), Some(id), None) = (parts.next(), parts.next(), parts.next())
            && self.is_resource(name, id)
        {
            return true;
        }
        matches!(self, Reference::Uri(wanted) if wanted.as_bytes() == found)
    }
}

fn is_type(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase()) && name.bytes().all(|b| b.is_ascii_alphanumeric())
}
