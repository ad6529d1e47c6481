//! Reads the business identifiers of a stored resource.

use crate::jsonb::walk::Container;

/// One of a resource's `identifier`s that has a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identifier<'j> {
    /// The namespace in which the value is unique; `None` also if it is empty.
    pub system: Option<&'j str>,
    /// The value itself.
    pub value: &'j str,
}

/// Calls `each` for all identifiers of a stored resource, which has one identifier or a list. `resource` is the jsonb after
/// its length header.
pub fn identifiers<'j>(resource: &'j [u8], mut each: impl FnMut(Identifier<'j>)) {
    let root = Container::new(resource);
    let found = root.is_object().then(|| root.member(b"identifier")).flatten();
    let Some(mut container) = found.and_then(|value| value.container()) else { return };
    if container.is_object() {
        read(container).into_iter().for_each(each);
        return;
    }
    while let Some(element) = container.next_element() {
        if let Some(identifier) = element.container().filter(Container::is_object).and_then(read) {
            each(identifier);
        }
    }
}

fn read(object: Container<'_>) -> Option<Identifier<'_>> {
    let text = |name: &[u8]| object.clone().member(name)?.string().and_then(|text| str::from_utf8(text).ok());
    let system = text(b"system").filter(|system| !system.is_empty());
    Some(Identifier { system, value: text(b"value")? })
}
