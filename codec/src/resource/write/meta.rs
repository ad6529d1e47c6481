//! `meta`, whose members are columns and what is stored.

use super::{ENVELOPE_BYTES, Envelope, Members, NotAnObject, Writer, jsonb_order};
use crate::fhir::definitions::NodeId;
use crate::jsonb::text::{Literal, Text};
use crate::jsonb::walk::{Container, Slice, Value};
use crate::resource::to_fhir::ToFhir;

impl Writer {
    /// Appends only `meta` in FHIR form, also if it is empty.
    ///
    /// # Errors
    /// [`NotAnObject`]; then nothing is appended.
    pub fn write_meta(&self, row: &Envelope<'_>, resource: &[u8], out: &mut Vec<u8>) -> Result<(), NotAnObject> {
        let stored = Container::new(resource);
        if !stored.is_object() {
            return Err(NotAnObject);
        }
        let meta = stored.member(b"meta").and_then(|meta| meta.container()).filter(Container::is_object);
        let mut text = Text::new(self.spacing, ENVELOPE_BYTES, out);
        let mut to_fhir = ToFhir::new(self.definitions, self.stacks.take().reuse());
        let node = to_fhir.structure(to_fhir.resource(row.resource_type), b"meta");
        let mut members = Members { writer: self, text: &mut text, to_fhir: &mut to_fhir, node, any: false };
        members.text.put(b"{");
        members.fhir_meta(row, meta.unwrap_or(Container::empty()));
        members.text.put(b"}");
        self.stacks.set(to_fhir.into_stacks().reuse());
        text.finish(out);
        Ok(())
    }
}

/// A member of `meta` that is made from the row's columns.
#[derive(Clone, Copy)]
enum OwnMeta {
    CreatedAt,
    VersionId,
    LastUpdated,
}

/// In jsonb's order.
const OWN_META: [OwnMeta; 3] = [OwnMeta::CreatedAt, OwnMeta::VersionId, OwnMeta::LastUpdated];

impl OwnMeta {
    fn key(self) -> &'static [u8] {
        match self {
            OwnMeta::CreatedAt => b"createdAt",
            OwnMeta::VersionId => b"versionId",
            OwnMeta::LastUpdated => b"lastUpdated",
        }
    }
}

impl<'j> Members<'_, 'j> {
    pub(super) fn aidbox_meta(&mut self, row: &Envelope<'_>, mut stored: Container<'j>) {
        let mut pending = OWN_META.into_iter().peekable();
        while let Some((name, value)) = stored.next_member() {
            let key = name.as_bytes();
            while let Some(own) = pending.next_if(|own| jsonb_order(own.key()) <= jsonb_order(key)) {
                self.own_meta(own, row);
            }
            if !is_of_row(key) {
                self.value(name, value, &stored);
            }
        }
        for own in pending {
            self.own_meta(own, row);
        }
    }

    fn own_meta(&mut self, own: OwnMeta, row: &Envelope<'_>) {
        let names = &self.writer.names;
        match own {
            OwnMeta::CreatedAt => self.instant(&names.created_at, row.created_at),
            OwnMeta::LastUpdated => self.instant(&names.last_updated, row.last_updated),
            OwnMeta::VersionId => {
                if let Some(number) = row.version_id {
                    self.name(&names.version_id);
                    self.text.number(number, self.writer.version_id_is_string);
                }
            }
        }
    }

    fn instant(&mut self, name: &Literal, instant: Option<&str>) {
        if let Some(instant) = instant {
            self.string(name, instant.as_bytes());
        }
    }

    pub(super) fn fhir_meta(&mut self, row: &Envelope<'_>, mut stored: Container<'j>) {
        self.own_meta(OwnMeta::VersionId, row);
        self.own_meta(OwnMeta::LastUpdated, row);
        let subsetted = self.writer.selection.as_ref().is_some_and(|selection| selection.subsetted);
        let (mut extensions, mut tags) = (List::default(), List::default());
        while let Some((name, value)) = stored.next_member() {
            let taken = match name.as_bytes() {
                b"extension" => extensions.take(value),
                b"tag" if subsetted => tags.take(value),
                key => is_of_row(key),
            };
            if !taken {
                self.value(name, value, &stored);
            }
        }
        if subsetted && tags.can_grow {
            self.meta_tag(tags.stored);
        }
        if extensions.can_grow && (extensions.stored.is_some() || row.created_at.is_some()) {
            self.meta_extension(row, extensions.stored);
        }
    }

    /// Writes the stored tags, and the tag that marks an incomplete resource.
    fn meta_tag(&mut self, stored: Option<Container<'j>>) {
        self.text.name(Slice::of(b"tag"), !std::mem::replace(&mut self.any, true));
        self.text.put(b"[");
        if self.elements(stored, NodeId::ELEMENT, |_, _| true) {
            self.text.comma();
        }
        self.text.put(SUBSETTED);
        self.text.put(b"]");
    }

    /// Writes the stored extensions, and the creation time last.
    fn meta_extension(&mut self, row: &Envelope<'_>, stored: Option<Container<'j>>) {
        self.name(&self.writer.names.extension);
        self.text.put(b"[");
        let node = if self.node == NodeId::UNKNOWN { self.node } else { NodeId::EXTENSION };
        let is_wanted = |writer: &Writer, value| row.created_at.is_none() || !writer.is_created_at(value);
        let any = self.elements(stored, node, is_wanted);
        if let Some(at) = row.created_at {
            if any {
                self.text.comma();
            }
            self.text.put(b"{");
            let mut created = self.inside(b"");
            created.string(&created.writer.names.url, &created.writer.created_at_url);
            created.string(&created.writer.names.value_instant, at.as_bytes());
            self.text.put(b"}");
        }
        self.text.put(b"]");
    }

    /// Writes the elements of a stored list. Returns whether there are any.
    fn elements(
        &mut self,
        mut stored: Option<Container<'j>>,
        node: NodeId,
        is_wanted: impl Fn(&Writer, Value<'j>) -> bool,
    ) -> bool {
        let mut any = false;
        while let Some(value) = stored.as_mut().and_then(Container::next_element) {
            if !is_wanted(self.writer, value) {
                continue;
            }
            if std::mem::replace(&mut any, true) {
                self.text.comma();
            }
            self.to_fhir.element(node, value, self.text);
        }
        any
    }
}

impl Writer {
    /// Whether a stored extension repeats the creation time of the column.
    fn is_created_at(&self, extension: Value<'_>) -> bool {
        let url = extension.container().filter(Container::is_object).and_then(|extension| extension.member(b"url"));
        url.is_some_and(|url| url.string() == Some(&self.created_at_url))
    }
}

/// A list in `meta` to which an element may be added.
struct List<'j> {
    stored: Option<Container<'j>>,
    /// False for a value that is not a list. That is not FHIR: it stays unchanged, and nothing is added to it.
    can_grow: bool,
}

impl Default for List<'_> {
    fn default() -> Self {
        List { stored: None, can_grow: true }
    }
}

impl<'j> List<'j> {
    /// Takes the stored value, if it is a list.
    fn take(&mut self, value: Value<'j>) -> bool {
        self.stored = value.container().filter(|list| !list.is_object());
        self.can_grow = self.stored.is_some();
        self.can_grow
    }
}

/// The tag with which FHIR marks an incomplete resource (search, `_elements`).
const SUBSETTED: &[u8; 89] =
    br#"{"system":"http://terminology.hl7.org/CodeSystem/v3-ObservationValue","code":"SUBSETTED"}"#;

/// Members of `meta` that are always taken from the columns.
fn is_of_row(key: &[u8]) -> bool {
    matches!(key, b"createdAt" | b"versionId" | b"lastUpdated")
}
