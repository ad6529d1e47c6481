//! Writes a stored resource and its row's columns as one line, in one walk over the jsonb bytes.

mod meta;

use super::Selection;
use super::to_fhir::{Stacks, ToFhir};
use crate::fhir::Version;
use crate::fhir::definitions::{Definitions, NodeId};
use crate::jsonb::text::{Literal, Spacing, Text};
use crate::jsonb::walk::{Container, Slice, Value};
use std::cell::Cell;

/// The form of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The stored form, with the spacing and order of PostgreSQL's jsonb text.
    Aidbox,
    /// Compact FHIR JSON by the definitions of a release; keys keep jsonb's order.
    Fhir(Version),
}

/// The columns of a resource's row. They override the same members in the stored jsonb.
#[derive(Clone, Copy, Debug, Default)]
pub struct Envelope<'a> {
    /// Column `id`.
    pub id: &'a str,
    /// Column `resource_type`, or the requested name.
    pub resource_type: &'a str,
    /// Column `txid`.
    pub version_id: Option<i64>,
    /// Column `ts` as an ISO 8601 instant.
    pub last_updated: Option<&'a str>,
    /// Column `cts` as an ISO 8601 instant.
    pub created_at: Option<&'a str>,
}

/// Writes any number of rows as lines.
pub struct Writer {
    form: Form,
    created_at_url: Vec<u8>,
    version_id_is_string: bool,
    spacing: Spacing,
    names: Names,
    /// `None` for Aidbox form.
    definitions: &'static Definitions,
    /// `None` to write all members.
    selection: Option<Selection>,
    /// The memory of the stacks, for the next row.
    stacks: Cell<Stacks<'static>>,
}

/// The names of the members that the row's columns make, ready to write.
struct Names {
    id: Literal,
    meta: Literal,
    resource_type: Literal,
    created_at: Literal,
    version_id: Literal,
    last_updated: Literal,
    extension: Literal,
    url: Literal,
    value_instant: Literal,
}

impl Names {
    fn new(spacing: Spacing) -> Names {
        let name = |name| Literal::name(name, spacing);
        Names {
            id: name("id"),
            meta: name("meta"),
            resource_type: name("resourceType"),
            created_at: name("createdAt"),
            version_id: name("versionId"),
            last_updated: name("lastUpdated"),
            extension: name("extension"),
            url: name("url"),
            // Only for FHIR form: with a space it would not fit.
            value_instant: Literal::name("valueInstant", Spacing::Compact),
        }
    }
}

/// The error for a row whose `resource` is a jsonb array or scalar, to which members cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnObject;

impl Writer {
    /// `created_at_url` names the extension that carries the creation time in FHIR form.
    pub fn new(form: Form, created_at_url: &str, version_id_is_string: bool) -> Writer {
        let (spacing, definitions) = match form {
            Form::Aidbox => (Spacing::Postgres, Definitions::none()),
            Form::Fhir(version) => (Spacing::Compact, version.definitions()),
        };
        let names = Names::new(spacing);
        Writer {
            form,
            created_at_url: created_at_url.as_bytes().to_vec(),
            version_id_is_string,
            spacing,
            names,
            definitions,
            selection: None,
            stacks: Cell::default(),
        }
    }

    /// Another one that writes the same, for another thread.
    pub fn another(&self) -> Writer {
        let url = str::from_utf8(&self.created_at_url).unwrap_or_default();
        let another = Writer::new(self.form, url, self.version_id_is_string);
        match &self.selection {
            Some(selection) => another.select(selection.clone()),
            None => another,
        }
    }

    /// Writes a part of each resource from now on.
    pub fn select(mut self, selection: Selection) -> Writer {
        self.names.resource_type = Literal::name(selection.type_member, self.spacing);
        self.selection = Some(selection);
        self
    }

    /// Appends the line of a row, without a newline. `resource` is the jsonb after its length header.
    ///
    /// # Errors
    /// [`NotAnObject`]; then nothing is appended.
    pub fn write(&self, row: &Envelope<'_>, resource: &[u8], out: &mut Vec<u8>) -> Result<(), NotAnObject> {
        let mut stored = Container::new(resource);
        if !stored.is_object() {
            return Err(NotAnObject);
        }
        let mut text = Text::new(self.spacing, resource.len() + ENVELOPE_BYTES, out);
        let mut to_fhir = ToFhir::new(self.definitions, self.stacks.take().reuse());
        let node = to_fhir.resource(row.resource_type);
        let mut members = Members { writer: self, text: &mut text, to_fhir: &mut to_fhir, node, any: false };
        members.text.put(b"{");
        // The row's members are merged in jsonb's order: by length, then by bytes.
        let mut meta = None;
        let mut pending = OWN.into_iter().peekable();
        while let Some((name, value)) = stored.next_member() {
            let key = name.as_bytes();
            if key == b"meta" {
                meta = Some(value);
            }
            while let Some(own) = pending.next_if(|own| jsonb_order(own.key()) <= jsonb_order(key)) {
                members.own(own, row, meta);
            }
            if !matches!(key, b"id" | b"meta" | b"resourceType") && self.shows(node, key, value) {
                members.value(name, value, &stored);
            }
        }
        for own in pending {
            members.own(own, row, meta);
        }
        members.text.put(b"}");
        self.stacks.set(to_fhir.into_stacks().reuse());
        text.finish(out);
        Ok(())
    }

    /// Whether a stored member is written.
    #[inline]
    fn shows(&self, node: NodeId, name: &[u8], value: Value<'_>) -> bool {
        match &self.selection {
            None => true,
            Some(selection) => selection.shows(self.definitions, node, name, value),
        }
    }

    /// Whether a member of the row is written.
    fn shows_own(&self, own: Own) -> bool {
        match (&self.selection, own) {
            (None, _) | (_, Own::ResourceType) => true,
            (Some(selection), Own::Id) => selection.id,
            (Some(selection), Own::Meta) => selection.meta,
        }
    }
}

/// About how many bytes the row's members take in a line.
const ENVELOPE_BYTES: usize = 320;

/// A member that is made from the row's columns.
#[derive(Clone, Copy)]
enum Own {
    Id,
    Meta,
    ResourceType,
}

/// In jsonb's order.
const OWN: [Own; 3] = [Own::Id, Own::Meta, Own::ResourceType];

impl Own {
    fn key(self) -> &'static [u8] {
        match self {
            Own::Id => b"id",
            Own::Meta => b"meta",
            Own::ResourceType => b"resourceType",
        }
    }
}

fn jsonb_order(key: &[u8]) -> (usize, &[u8]) {
    (key.len(), key)
}

/// The members of an object while they are written.
struct Members<'m, 'j> {
    writer: &'m Writer,
    text: &'m mut Text,
    to_fhir: &'m mut ToFhir<'j>,
    /// The object's structure in FHIR's definitions.
    node: NodeId,
    any: bool,
}

impl<'j> Members<'_, 'j> {
    /// The members of an inner object.
    fn inside(&mut self, name: &[u8]) -> Members<'_, 'j> {
        let node = self.to_fhir.structure(self.node, name);
        Members { writer: self.writer, text: self.text, to_fhir: self.to_fhir, node, any: false }
    }

    /// Writes a member. `rest` are the stored members after it.
    #[inline]
    fn value(&mut self, name: Slice<'j>, value: Value<'j>, rest: &Container<'j>) {
        let first = !std::mem::replace(&mut self.any, true);
        self.to_fhir.member(self.node, (name, value), rest, first, self.text);
    }

    #[inline]
    fn name(&mut self, name: &Literal) {
        if self.any {
            self.text.comma();
        }
        self.any = true;
        self.text.literal(name);
    }

    #[inline]
    fn string(&mut self, name: &Literal, text: &[u8]) {
        self.name(name);
        self.text.string(Slice::of(text));
    }

    fn own(&mut self, own: Own, row: &Envelope<'_>, stored_meta: Option<Value<'j>>) {
        if !self.writer.shows_own(own) {
            return;
        }
        match own {
            Own::Id => self.string(&self.writer.names.id, row.id.as_bytes()),
            Own::ResourceType => self.string(&self.writer.names.resource_type, row.resource_type.as_bytes()),
            Own::Meta => {
                let stored = stored_meta.and_then(|meta| meta.container()).filter(Container::is_object);
                self.meta(row, stored.unwrap_or(Container::empty()))
            }
        }
    }

    /// Writes `meta`, unless it is empty.
    fn meta(&mut self, row: &Envelope<'_>, stored: Container<'j>) {
        let (before, any_before) = (self.text.len(), self.any);
        self.name(&self.writer.names.meta);
        self.text.put(b"{");
        let mut meta = self.inside(b"meta");
        match meta.writer.form {
            Form::Aidbox => meta.aidbox_meta(row, stored),
            Form::Fhir(_) => meta.fhir_meta(row, stored),
        }
        if meta.any {
            self.text.put(b"}");
        } else {
            self.text.truncate(before);
            self.any = any_before;
        }
    }
}
