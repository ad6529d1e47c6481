//! The types of a query's columns, for formats that have types of their own.

use super::value::{Category, Column};

/// What all values of a column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// `boolean`.
    Bool,
    /// `smallint` or `integer`.
    Int4,
    /// `bigint`.
    Int8,
    /// `real`.
    Float4,
    /// `double precision`.
    Float8,
    /// `numeric`, with the precision and scale that the column declares.
    Numeric(Option<(i32, i32)>),
    /// `date`.
    Date,
    /// `time`, without a time zone.
    Time,
    /// `timestamp`, without a time zone.
    Timestamp,
    /// `timestamp with time zone`.
    Timestamptz,
    /// `json` or `jsonb`.
    Json,
    /// `bytea`.
    Bytea,
    /// `uuid`.
    Uuid,
    /// An array, or a row of a named type.
    Nested,
    /// A type that has only a text here.
    Text,
}

impl Column {
    /// The class of its values.
    pub fn class(&self) -> Class {
        match self.kind.category {
            Category::Bool => Class::Bool,
            Category::Int2 | Category::Int4 => Class::Int4,
            Category::Int8 => Class::Int8,
            Category::Float4 => Class::Float4,
            Category::Float8 => Class::Float8,
            Category::Numeric => Class::Numeric(declared(self.modifier)),
            Category::Date => Class::Date,
            Category::Time => Class::Time,
            Category::Timestamp => Class::Timestamp,
            Category::Timestamptz => Class::Timestamptz,
            Category::Json | Category::Jsonb => Class::Json,
            Category::Bytea => Class::Bytea,
            Category::Uuid => Class::Uuid,
            Category::Array | Category::Composite => Class::Nested,
            Category::Text | Category::Bits | Category::Castable(_) | Category::Other => Class::Text,
        }
    }
}

/// Precision and scale in the modifier of a numeric (`src/backend/utils/adt/numeric.c`). The scale may be negative, or larger
/// than the precision.
fn declared(modifier: i32) -> Option<(i32, i32)> {
    let bits = modifier.checked_sub(size_of::<i32>() as i32).filter(|bits| *bits >= 0)?;
    Some((bits >> 16 & 0xFFFF, ((bits & 0x7FF) ^ 0x400) - 0x400))
}

#[cfg(test)]
mod tests {
    use super::declared;

    #[test]
    fn modifiers_are_those_that_postgresql_makes() {
        // SELECT atttypmod FROM pg_attribute, for numeric, numeric(10,2), numeric(3,-2), numeric(2,5), numeric(1000,0).
        let modifiers = [-1, 655_366, 198_658, 131_081, 65_536_004];
        let expected = [None, Some((10, 2)), Some((3, -2)), Some((2, 5)), Some((1000, 0))];
        assert_eq!(modifiers.map(declared), expected);
    }
}
