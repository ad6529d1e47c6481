//! Converts FHIR form to Aidbox form while a line is read. It moves names and values, and copies no bytes.
//!
//! - `valueQuantity: q` becomes `value: {Quantity: q}` when its value is known;
//! - a Reference's `reference` becomes `resourceType` and `id`, `uri` or `localRef` when the Reference closes.
//!
//! [`super::to_fhir`] restores an equal line, with one exception: if a part of a FHIR line is already in Aidbox form, it is
//! stored unchanged, and comes back in FHIR form. Such parts are `value: {Quantity: q}` in place of a choice, and a
//! Reference with `resourceType` and `id`, `uri` or `localRef` instead of `reference`. If this would give two values the
//! same name, or if a Reference mixes forms, the part stays unchanged in both directions.

use crate::fhir::Version;
use crate::fhir::definitions::{Choice, Definitions, Element, NodeId};
use crate::jsonb::kind;
use crate::jsonb::parse::Tokens;
use crate::jsonb::value::{Entry, Name, Source, Value, keep_last_of_each_name, sort_members};
use std::borrow::Cow;
use std::collections::TryReserveError;
use std::ops::Range;

/// If `resourceType` is not the first member of an inner resource, the resource is searched for it. All these searches
/// together read at most this many times the length of the line, so that nesting cannot make the time quadratic.
pub(crate) const LOOK_AHEAD: usize = 16;

/// The conversion from FHIR form.
pub(crate) struct ToAidbox {
    pub definitions: &'static Definitions,
    convert_extensions: bool,
    /// The structure of every line, if all have the same type.
    expected: Option<NodeId>,
}

impl ToAidbox {
    pub fn new(version: Version, convert_extensions: bool, resource_type: Option<&str>) -> ToAidbox {
        let definitions = version.definitions();
        ToAidbox { definitions, convert_extensions, expected: resource_type.map(|name| definitions.resource(name)) }
    }

    /// The structure of a member, and the choice into which its name must be split.
    #[inline]
    pub fn member(&self, node: NodeId, name: &Name, source: Source<'_>) -> (NodeId, Option<&'static Choice>) {
        let text = name.bytes(source);
        match self.definitions.element(node, name.rank(), text) {
            Some(Element::Structure(node)) => (*node, None),
            Some(Element::Choice(choice)) if node == NodeId::EXTENSION && !self.convert_extensions => {
                (choice.node, None)
            }
            Some(Element::Choice(choice)) => (choice.node, Some(choice)),
            // In Aidbox form already.
            Some(Element::Base(_)) => (NodeId::UNKNOWN, None),
            None => (Definitions::common(text), None),
        }
    }

    /// The structure of the resource that starts at `tokens`; `inside` means within another one. `look_ahead` is how many
    /// bytes may be searched; it is reduced by those that were.
    pub fn resource(&self, tokens: &Tokens<'_>, inside: bool, look_ahead: &mut usize) -> NodeId {
        if let (false, Some(expected)) = (inside, self.expected) {
            return expected;
        }
        let rest = &tokens.line[tokens.at..];
        let (found, searched) = resource_type(&rest[..rest.len().min(*look_ahead)]);
        *look_ahead -= searched;
        found.map_or(NodeId::UNKNOWN, |name| self.named(&name))
    }

    /// The structure of a resource type.
    pub fn named(&self, resource_type: &[u8]) -> NodeId {
        str::from_utf8(resource_type).map_or(NodeId::UNKNOWN, |name| self.definitions.resource(name))
    }

    /// Whether the members of a resource confirm that its type is `node`. They do not if `resourceType` is there twice: the
    /// search found the first one, but the last one counts.
    pub fn is_of_type(&self, node: NodeId, members: &[Entry], source: Source<'_>) -> bool {
        let found = members.iter().rfind(|member| member.name.bytes(source) == b"resourceType");
        found.is_some_and(|found| found.value.kind() == kind::STRING && self.named(found.value.bytes(source)) == node)
    }

    /// Whether all lines have one known type.
    pub fn is_expected(&self) -> bool {
        self.expected.is_some()
    }

    /// Converts the members of a Reference, sorted and distinct, to Aidbox's. A Reference without an Aidbox form stays
    /// unchanged: with a version or a query, or with members whose names the parts would need.
    pub fn reference(&self, members: &mut Vec<Entry>, first: usize, source: Source<'_>) {
        let names = &self.definitions.names;
        let mut found = None;
        for (at, member) in members.iter().enumerate().skip(first) {
            match member.name.bytes(source) {
                // Ignored, as if it were not there.
                _ if member.value.kind() == kind::DROPPED => {}
                b"reference" if member.value.kind() == kind::STRING => found = Some(at),
                b"id" | b"resourceType" | b"uri" | b"localRef" => return,
                _ => {}
            }
        }
        let Some(at) = found else { return };
        let value = members[at].value;
        let text = value.bytes(source);
        match parts(text) {
            Parts::Local => members[at] = Entry { name: names.local_ref, value: value.part(1..text.len()) },
            Parts::Uri => members[at] = Entry { name: names.uri, value },
            Parts::Relative(of_type, id) => {
                members[at] = Entry { name: names.resource_type, value: value.part(of_type) };
                members.push(Entry { name: names.id, value: value.part(id) });
            }
            Parts::Other => return,
        }
        sort_members(members, first, source);
    }

    /// Merges several names of one choice into one object. If the choice's own name is used already, they stay unchanged.
    /// Members must be sorted before, and are not sorted afterwards.
    #[cold]
    pub fn settle_choices(
        members: &mut Vec<Entry>,
        first: usize,
        closed: &mut Vec<Entry>,
        source: Source<'_>,
    ) -> Result<(), TryReserveError> {
        let (mut at, mut kept) = (first, first);
        while at < members.len() {
            let name = members[at].name.bytes(source);
            let same = members[at..].iter().take_while(|entry| entry.name.bytes(source) == name).count();
            let run = at..at + same;
            at = run.end;
            let own = members[run.clone()].iter().rfind(|entry| entry.value.wrapped().is_none());
            if same == 1 || own.is_some_and(|own| own.value.kind() != kind::DROPPED) {
                for from in run {
                    let entry = members[from];
                    let original = entry.value.wrapped().filter(|_| same > 1).map(|wrapped| closed[wrapped + 1]);
                    members[kept] = original.unwrap_or(entry);
                    kept += 1;
                }
            } else {
                let name = members[run.start].name;
                let value = settled(&members[run], closed, source)?;
                members[kept] = Entry { name, value };
                kept += 1;
            }
        }
        members.truncate(kept);
        Ok(())
    }
}

/// One object with all types of a choice.
fn settled(run: &[Entry], closed: &mut Vec<Entry>, source: Source<'_>) -> Result<Value, TryReserveError> {
    closed.try_reserve(run.len())?;
    let first = closed.len();
    for wrapped in run.iter().filter_map(|entry| entry.value.wrapped()) {
        closed.push(closed[wrapped]);
    }
    if sort_members(closed, first, source) {
        keep_last_of_each_name(closed, first, source);
    }
    let mut kept = first;
    for at in first..closed.len() {
        if closed[at].value.kind() != kind::DROPPED {
            closed[kept] = closed[at];
            kept += 1;
        }
    }
    closed.truncate(kept);
    let count = kept - first;
    Ok(if count == 0 { Value::plain(kind::DROPPED) } else { Value::container(kind::OBJECT, first, count) })
}

/// Finds the `resourceType` of a line or an inner resource. Returns it and how many bytes were searched.
fn resource_type(object: &[u8]) -> (Option<Cow<'_, [u8]>>, usize) {
    let mut at = 0;
    let found = find_resource_type(object, &mut at);
    (found, at.min(object.len()))
}

fn find_resource_type<'l>(object: &'l [u8], place: &mut usize) -> Option<Cow<'l, [u8]>> {
    let (mut at, mut depth) = (0, 0);
    while at < object.len() {
        *place = at;
        match object[at] {
            b'"' => {
                let start = at + 1;
                at = end_of_string(object, start).unwrap_or(object.len());
                *place = at;
                if depth == 1 && *unescaped(&object[start..at]) == *b"resourceType" {
                    let rest = object.get(at + 1..)?.trim_ascii_start();
                    if let Some(value) = rest.strip_prefix(b":") {
                        let value = value.trim_ascii_start().strip_prefix(b"\"")?;
                        return Some(unescaped(&value[..end_of_string(value, 0)?]));
                    }
                }
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return None;
        }
        at += 1;
    }
    None
}

/// A string from between its quotes, if it is short enough for a type or for `resourceType`.
fn unescaped(text: &[u8]) -> Cow<'_, [u8]> {
    // A character takes at most six bytes.
    if text.len() > 6 * 64 || !text.contains(&b'\\') {
        return Cow::Borrowed(text);
    }
    let (line, mut characters) = ([b"\"", text, b"\""].concat(), Vec::new());
    // An invalid string is refused when the line is read.
    let read = Tokens { line: &line, at: 0 }.string(&mut characters);
    if read.is_ok() { Cow::Owned(characters) } else { Cow::Borrowed(text) }
}

/// Where the closing quote is.
fn end_of_string(text: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at += memchr::memchr2(b'"', b'\\', &text[at..])?;
        if text[at] == b'"' {
            return Some(at);
        }
        at += 2;
        if at > text.len() {
            return None;
        }
    }
}

/// The form of a reference's text.
enum Parts {
    /// `#id`
    Local,
    /// A URI with a scheme.
    Uri,
    /// `Type/id`, with the ranges of both.
    Relative(Range<usize>, Range<usize>),
    Other,
}

fn parts(text: &[u8]) -> Parts {
    if text.first() == Some(&b'#') {
        return Parts::Local;
    }
    let scheme = text.iter().position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')));
    if let Some(end) = scheme
        && end > 0
        && text[end] == b':'
        && text[0].is_ascii_alphabetic()
    {
        return Parts::Uri;
    }
    let Some(slash) = memchr::memchr(b'/', text) else { return Parts::Other };
    let (of_type, id) = (&text[..slash], &text[slash + 1..]);
    let is_type = of_type.first().is_some_and(u8::is_ascii_alphabetic)
        && of_type.len() <= 55
        && of_type.iter().all(u8::is_ascii_alphanumeric);
    if is_type && is_id(id) { Parts::Relative(0..slash, slash + 1..text.len()) } else { Parts::Other }
}

/// Allows more than FHIR does, because resources have such ids; but no version, query, fragment or canonical version.
fn is_id(id: &[u8]) -> bool {
    (1..=255).contains(&id.len())
        && id.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'@' | b'+'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_is_found_wherever_it_stands_and_only_at_the_top() {
        for (text, found) in [
            (r#"{"resourceType":"Patient","id":"a"}"#, Some("Patient")),
            (
                r#"{"a":{"resourceType":"X"},"b":["resourceType",{"c":"\"resourceType\":"}], "resourceType" : "Y"}"#,
                Some("Y"),
            ),
            (r#"{"resource\u0054ype":"\u0050atient"}"#, Some("Patient")),
            (r#"{"a":{"resourceType":"X"}},"resourceType":"Z""#, None),
            (r#"{"a":"resourceType","b":1}"#, None),
            (r#"{"resourceType":5}"#, None),
            (r#"{"a":"unfinished \"#, None),
            (r#"{"a":"unfinished "#, None),
            ("{", None),
        ] {
            assert_eq!(resource_type(text.as_bytes()).0.as_deref(), found.map(str::as_bytes), "{text}");
        }
    }
}
