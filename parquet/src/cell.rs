//! What a file is made of: columns and cells.

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The type of its cells.
    pub kind: Kind,
}

/// The types of cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`Cell::Bool`].
    Bool,
    /// [`Cell::Int`] of 32 bits.
    Int32,
    /// [`Cell::Int`].
    Int64,
    /// [`Cell::Float`], stored as 32 bits.
    Float32,
    /// [`Cell::Float`].
    Float64,
    /// [`Cell::Int`]: days since 1970-01-01.
    Date,
    /// [`Cell::Int`]: microseconds since midnight.
    Time,
    /// [`Cell::Int`]: microseconds since 1970-01-01T00:00:00, on a clock of no known time zone.
    Timestamp,
    /// [`Cell::Int`]: microseconds since 1970-01-01T00:00:00Z.
    Instant,
    /// [`Cell::Decimal`].
    Decimal {
        /// How many digits there are in all: 1 to [`MAX_PRECISION`].
        precision: u8,
        /// How many of them are after the point.
        scale: u8,
    },
    /// [`Cell::Bytes`]: UTF-8.
    Text,
    /// [`Cell::Bytes`]: JSON text.
    Json,
    /// [`Cell::Bytes`].
    Bytes,
    /// [`Cell::Bytes`]: 16 of them.
    Uuid,
}

/// The most digits of a [`Kind::Decimal`].
pub const MAX_PRECISION: u8 = 38;

/// A cell of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    /// For columns of all kinds.
    Null,
    /// A boolean.
    Bool(bool),
    /// A whole number, a date or a time.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// A decimal without its point: 1.50 is 150 in a column with two digits after the point.
    Decimal(i128),
    /// Text or bytes.
    Bytes(&'a [u8]),
}
