//! What programs find: values in a stored resource, with their types.

use crate::model::TypeId;
use fhir_bulk_codec::instant::Micros;
use fhir_bulk_codec::jsonb::walk::{self, Container};

/// A stored resource, with the columns that its jsonb does not repeat.
#[derive(Clone, Copy)]
pub struct Resource<'j> {
    /// Column `id`.
    pub id: &'j str,
    /// The resource's type.
    pub resource_type: &'j str,
    /// Column `ts`.
    pub last_updated: Option<Micros>,
    /// Column `resource`, after its length header.
    pub json: &'j [u8],
}

/// A value, and its type by the definitions.
#[derive(Clone, Copy)]
pub struct Item<'j> {
    /// The value.
    pub value: Value<'j>,
    /// Its type; [`TypeId::UNKNOWN`] where the definitions do not say it.
    pub type_id: TypeId,
}

/// A value that is not an array and not null.
#[derive(Clone, Copy)]
pub enum Value<'j> {
    /// The resource itself.
    Root(&'j [u8]),
    /// A value in its jsonb.
    Json(walk::Value<'j>),
    /// A text that is a column.
    Text(&'j str),
    /// A time that is a column.
    Instant(Micros),
    /// The result of a condition.
    Boolean(bool),
}

impl<'j> Item<'j> {
    /// The object, if it is one.
    #[inline]
    pub fn object(&self) -> Option<Container<'j>> {
        let container = match self.value {
            Value::Root(json) => Container::new(json),
            Value::Json(value) => value.container()?,
            Value::Text(_) | Value::Instant(_) | Value::Boolean(_) => return None,
        };
        container.is_object().then_some(container)
    }

    /// The text, if it is a string.
    #[inline]
    pub fn text(&self) -> Option<&'j [u8]> {
        match self.value {
            Value::Json(value) => value.string(),
            Value::Text(text) => Some(text.as_bytes()),
            Value::Root(_) | Value::Instant(_) | Value::Boolean(_) => None,
        }
    }

    /// The boolean, if it is one.
    pub fn boolean(&self) -> Option<bool> {
        match self.value {
            Value::Json(value) => value.boolean(),
            Value::Boolean(value) => Some(value),
            Value::Root(_) | Value::Text(_) | Value::Instant(_) => None,
        }
    }

    /// The number in PostgreSQL's numeric bytes, if it is one.
    pub fn number(&self) -> Option<&'j [u8]> {
        match self.value {
            Value::Json(value) => value.number(),
            _ => None,
        }
    }
}
