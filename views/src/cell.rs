//! Cells: values of a row, with their types, and their text.

use fhir_bulk_codec::fhir::Version;
use fhir_bulk_codec::instant::Utc;
use fhir_bulk_codec::jsonb::numeric;
use fhir_bulk_codec::resource::{Envelope, Form, Writer, write_value};
use fhir_bulk_codec::rows::json::write_string;
use fhir_bulk_codec::rows::write_integer;
use fhir_bulk_paths::item::{Item, Resource, Room, Value};
use fhir_bulk_paths::model::{Model, TypeId};

/// A cell of a row.
#[derive(Clone, Copy)]
pub enum Cell<'a> {
    /// There is no value.
    Null,
    /// One value.
    One(Item<'a>),
    /// The values of a collection.
    Many(&'a [Item<'a>]),
}

/// A value by its kind, for files of typed columns.
pub enum Scalar {
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// Another number: [`Texts::text`] has its digits.
    Number,
    /// Microseconds since 2000-01-01T00:00:00Z.
    Instant(i64),
    /// A string or a time: [`Texts::text`] has it.
    Text,
    /// A structure or a resource: [`Texts::text`] has its JSON.
    Structure,
}

/// Which kind of value an item is.
pub fn scalar(item: &Item<'_>) -> Scalar {
    match item.value {
        Value::Instant(at) => Scalar::Instant(at),
        Value::Integer(value) if item.type_id != TypeId::ID => Scalar::Integer(value),
        Value::Root(_) | Value::Meta(_) => Scalar::Structure,
        _ if item.boolean().is_some() => Scalar::Boolean(item.boolean() == Some(true)),
        _ if item.object().is_some() => Scalar::Structure,
        _ if item.number().is_some() || matches!(item.value, Value::Decimal(_)) => {
            match item.decimal().filter(|number| number.scale() == 0).and_then(|number| number.as_integer()) {
                Some(value) => Scalar::Integer(value),
                None => Scalar::Number,
            }
        }
        _ => Scalar::Text,
    }
}

/// Writes cells as text.
pub struct Texts {
    version: Version,
    model: &'static Model,
    resources: Writer,
}

impl Texts {
    /// By the definitions of a release.
    pub fn new(version: Version) -> Texts {
        // Without a creation time, which is no part of FHIR.
        let resources = Writer::new(Form::Fhir(version), "", true);
        Texts { version, model: Model::of(version), resources }
    }

    /// Appends a cell as JSON: numbers as they are, structures as FHIR has them.
    pub fn json(&self, resource: &Resource<'_>, cell: &Cell<'_>, out: &mut Vec<u8>) {
        match cell {
            Cell::Null => out.extend_from_slice(b"null"),
            Cell::One(item) => self.item(resource, item, out),
            Cell::Many(items) => {
                out.push(b'[');
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    self.item(resource, item, out);
                }
                out.push(b']');
            }
        }
    }

    /// Appends the text of a cell: a string without quotes, JSON for what is a structure or a list; nothing for no value.
    pub fn text(&self, resource: &Resource<'_>, cell: &Cell<'_>, out: &mut Vec<u8>) {
        let Cell::One(item) = cell else {
            return if matches!(cell, Cell::Many(_)) {
                self.json(resource, cell, out)
            };
        };
        match item.pieces(&mut Room::default()) {
            Some(pieces) => pieces.into_iter().for_each(|piece| out.extend_from_slice(piece)),
            None => self.item(resource, item, out),
        }
    }

    fn item(&self, resource: &Resource<'_>, item: &Item<'_>, out: &mut Vec<u8>) {
        let mut room = Room::default();
        if let Some(pieces) = item.pieces(&mut room) {
            return string(pieces, out);
        }
        match item.value {
            Value::Boolean(value) => out.extend_from_slice(if value { b"true" } else { b"false" }),
            Value::Decimal(number) => number.write(out),
            Value::Integer(value) => write_integer(value, out),
            Value::Json(value) => match value.number() {
                Some(number) => numeric::write_text(number, out),
                None => write_value(self.version, self.model.name(item.type_id), value, out),
            },
            Value::Root(json) => self.of_resource(resource, json, false, out),
            Value::Meta(_) => self.of_resource(resource, resource.json, true, out),
            Value::Text(_) | Value::Instant(_) | Value::Joined(_) | Value::Reference(..) | Value::Short(_) => {}
        }
    }

    /// The resource, or its `meta`, with what columns have of it.
    fn of_resource(&self, resource: &Resource<'_>, json: &[u8], only_meta: bool, out: &mut Vec<u8>) {
        let last_updated = resource.last_updated.map(Utc::new);
        let envelope = Envelope {
            id: resource.id,
            resource_type: resource.resource_type,
            version_id: resource.version_id,
            last_updated: last_updated.as_ref().and_then(|text| str::from_utf8(text.as_bytes()).ok()),
            created_at: None,
        };
        let written = if only_meta {
            self.resources.write_meta(&envelope, json, out)
        } else {
            self.resources.write(&envelope, json, out)
        };
        if written.is_err() {
            out.extend_from_slice(b"null");
        }
    }
}

/// A JSON string of pieces.
fn string(pieces: [&[u8]; 3], out: &mut Vec<u8>) {
    let [first, rest @ ..] = pieces;
    write_string(first, out);
    for piece in rest.into_iter().filter(|piece| !piece.is_empty()) {
        // Its quotes go, and that of the piece before it.
        out.pop();
        let at = out.len();
        write_string(piece, out);
        out.remove(at);
    }
}
