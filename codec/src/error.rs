//! The reasons for which a line is refused, and the position in the line.

use std::collections::TryReserveError;
use std::fmt;

/// The reason for which a line is refused. The extension maps each to an SQLSTATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Not JSON; the text says what was expected.
    Syntax(&'static str),
    /// More than white space after the first value.
    TrailingData,
    /// Not UTF-8.
    Encoding,
    /// `\u0000`, which PostgreSQL's text types cannot hold.
    NulCharacter,
    /// A `\u` escape that is half of a surrogate pair.
    LoneSurrogate,
    /// More digits before or after the decimal point than PostgreSQL's `numeric` has.
    NumberOverflow,
    /// Arrays and objects nested deeper than [`crate::jsonb::MAX_DEPTH`].
    TooDeep,
    /// A string, array or object larger than jsonb can hold (256 MB).
    TooLarge,
    /// Out of memory for the line.
    OutOfMemory,
    /// A JSON value, but not an object.
    NotAnObject,
    /// No `id`.
    MissingId,
    /// An `id` that is not a string.
    IdNotString,
    /// An `id` that breaks the rule for ids.
    InvalidId(IdRule),
    /// A `resourceType` that is not a string.
    TypeNotString,
    /// A `meta` that is neither an object nor null.
    MetaNotObject,
    /// A createdAt (extension or `meta.createdAt`) that is not a string.
    CreatedAtNotString,
}

/// The rule for ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdRule {
    /// FHIR's `id` datatype.
    Fhir,
    /// Aidbox: any text that fits in an index and in one line of a log.
    Aidbox,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Syntax(expected) => return write!(f, "invalid JSON: {expected}"),
            Reason::TrailingData => "more than one JSON value on the line",
            Reason::Encoding => "invalid UTF-8",
            Reason::NulCharacter => "\\u0000 cannot be stored as text",
            Reason::LoneSurrogate => "invalid JSON: a Unicode surrogate without its other half",
            Reason::NumberOverflow => "a number beyond PostgreSQL's numeric",
            Reason::TooDeep => "nested too deeply",
            Reason::TooLarge => "a string, array or object beyond jsonb's 256 MB",
            Reason::OutOfMemory => "out of memory",
            Reason::NotAnObject => "not a JSON object",
            Reason::MissingId => "the resource has no id",
            Reason::IdNotString => "the resource's id is not a string",
            Reason::InvalidId(_) => "the resource's id is not a valid id",
            Reason::TypeNotString => "resourceType is not a string",
            Reason::MetaNotObject => "meta is not an object",
            Reason::CreatedAtNotString => "createdAt is not a string",
        })
    }
}

/// A refused line: the reason, and the byte in the line (from 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineError {
    /// What is wrong.
    pub reason: Reason,
    /// The offset in the line, in bytes.
    pub offset: usize,
}

impl LineError {
    pub(crate) fn new(reason: Reason, offset: usize) -> Self {
        LineError { reason, offset }
    }
}

/// A boxed [`LineError`]. It has the size of a pointer, so that results without an error are returned in registers.
pub(crate) type Refusal = Box<LineError>;

/// The limits that a value with valid syntax can exceed. One byte, for the same reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    TooLarge,
    NumberOverflow,
    OutOfMemory,
}

impl Limit {
    #[cold]
    pub(crate) fn at(self, offset: usize) -> Refusal {
        let reason = match self {
            Limit::TooLarge => Reason::TooLarge,
            Limit::NumberOverflow => Reason::NumberOverflow,
            Limit::OutOfMemory => Reason::OutOfMemory,
        };
        Box::new(LineError::new(reason, offset))
    }
}

impl From<TryReserveError> for Limit {
    #[cold]
    fn from(_: TryReserveError) -> Self {
        Limit::OutOfMemory
    }
}

impl From<TryReserveError> for Refusal {
    #[cold]
    fn from(_: TryReserveError) -> Self {
        Limit::OutOfMemory.at(0)
    }
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (byte {})", self.reason, self.offset + 1)
    }
}

impl std::error::Error for LineError {}
