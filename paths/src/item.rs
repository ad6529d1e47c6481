//! What programs find: values in a stored resource, with their types.

use crate::decimal::Decimal;
use crate::model::TypeId;
use crate::temporal::{Short, Temporal};
use fhir_bulk_codec::instant::{Micros, Utc};
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
    /// Column `txid`.
    pub version_id: Option<i64>,
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
    /// The resource's `meta`, of which columns are parts, and what its jsonb has of it.
    Meta(Option<walk::Value<'j>>),
    /// A text that an expression has put together.
    Joined(&'j [u8]),
    /// A reference as FHIR has it: a type, a sign and an id; or a sign and an id.
    Reference(&'j [u8], u8, &'j [u8]),
    /// A time that an expression has computed.
    Short(Short),
    /// A number that an expression has computed, or that it has in its text.
    Decimal(Decimal),
    /// A whole number that is a column, or counts rows.
    Integer(i64),
}

impl<'j> Item<'j> {
    /// The object, if it is one.
    #[inline]
    pub fn object(&self) -> Option<Container<'j>> {
        let container = match self.value {
            Value::Root(json) => Container::new(json),
            Value::Json(value) => value.container()?,
            Value::Meta(stored) => stored.and_then(|stored| stored.container()).unwrap_or(Container::empty()),
            _ => return None,
        };
        container.is_object().then_some(container)
    }

    /// The text, if it is a string in one piece.
    #[inline]
    pub fn text(&self) -> Option<&'j [u8]> {
        match self.value {
            Value::Json(value) => value.string(),
            Value::Text(text) => Some(text.as_bytes()),
            Value::Joined(text) => Some(text),
            _ => None,
        }
    }

    /// The text, if it is a string or a time, in the pieces that it has. A version's number is a text, too.
    pub fn pieces<'i>(&'i self, room: &'i mut Room) -> Option<[&'i [u8]; 3]> {
        match &self.value {
            Value::Reference(first, sign, last) => Some([first, std::slice::from_ref(sign), last]),
            Value::Short(text) => Some([text.as_bytes(), b"", b""]),
            Value::Instant(at) => {
                room.0 = Short::new(Utc::new(*at).as_bytes());
                Some([room.0.as_bytes(), b"", b""])
            }
            Value::Integer(value) if self.type_id == TypeId::ID => {
                let mut digits = [0; 20];
                room.0 = Short::new(integer_text(*value, &mut digits));
                Some([room.0.as_bytes(), b"", b""])
            }
            _ => self.text().map(|text| [text, b"", b""]),
        }
    }

    /// The boolean, if it is one.
    pub fn boolean(&self) -> Option<bool> {
        match self.value {
            Value::Json(value) => value.boolean(),
            Value::Boolean(value) => Some(value),
            _ => None,
        }
    }

    /// The number in PostgreSQL's numeric bytes, if it is one in the jsonb.
    pub fn number(&self) -> Option<&'j [u8]> {
        match self.value {
            Value::Json(value) => value.number(),
            _ => None,
        }
    }

    /// The number, if it is one that can be computed with.
    pub fn decimal(&self) -> Option<Decimal> {
        match self.value {
            Value::Decimal(value) => Some(value),
            Value::Integer(value) if self.type_id != TypeId::ID => Some(Decimal::new(value.into(), 0)),
            _ => self.number().and_then(Decimal::of_numeric),
        }
    }

    /// The time, if it is one by its type or by its form.
    pub fn temporal(&self) -> Option<Temporal> {
        match &self.value {
            Value::Instant(at) => Temporal::of_instant(*at),
            Value::Short(text) => Temporal::parse(text.as_bytes()),
            _ => self.text().and_then(Temporal::parse),
        }
    }
}

/// Room for the text of a value that has none in memory.
pub struct Room(Short);

impl Default for Room {
    fn default() -> Self {
        Room(Short::new(b""))
    }
}

/// A whole number's digits.
fn integer_text(value: i64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        at -= 1;
        digits[at] = b'-';
    }
    &digits[at..]
}
