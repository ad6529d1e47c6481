//! PostgreSQL's jsonb bytes (`src/include/utils/jsonb.h`): makes them from JSON text, and writes them as JSON text.
//!
//! A container is a `u32` header (count and kind), one `u32` JEntry per array element or, for an object, per key
//! and then per value, and the data area. Every 32nd JEntry holds the end offset of its item instead of its
//! length. Numbers and containers are aligned to 4 bytes; the padding counts as part of the item.

pub(crate) mod build;
pub mod numeric;
pub(crate) mod out;
pub(crate) mod parse;
pub(crate) mod scan;
pub mod text;
pub(crate) mod value;
pub mod walk;

/// How deep arrays and objects may nest in a line. PostgreSQL's own limit follows from `max_stack_depth` (some thousands at
/// its default), so its jsonb functions can handle everything that is stored.
pub const MAX_DEPTH: usize = 1000;

/// The bytes of `{}`.
pub const EMPTY_OBJECT: &[u8; 4] = &OBJECT.to_le_bytes();

pub(crate) const COUNT_MASK: u32 = 0x0FFF_FFFF;
pub(crate) const SCALAR: u32 = 0x1000_0000;
pub(crate) const OBJECT: u32 = 0x2000_0000;
pub(crate) const ARRAY: u32 = 0x4000_0000;

/// The largest offset or length in a JEntry.
pub(crate) const LENGTH_MASK: u32 = 0x0FFF_FFFF;
pub(crate) const TYPE_MASK: u32 = 0x7000_0000;
pub(crate) const HAS_OFFSET: u32 = 0x8000_0000;
/// One of this many JEntries holds an offset.
pub(crate) const OFFSET_STRIDE: usize = 32;

/// The most bytes a container may have.
pub(crate) const MAX_BYTES: usize = LENGTH_MASK as usize;
/// The most values in a line: jsonb has no room for the JEntries of more.
pub(crate) const MAX_ENTRIES: usize = MAX_BYTES / 4;

/// The kinds of values: those that a JEntry has, and those that exist only until a value is written.
pub(crate) mod kind {
    pub const STRING: u32 = 0x0000_0000;
    pub const NUMERIC: u32 = 0x1000_0000;
    pub const FALSE: u32 = 0x2000_0000;
    pub const TRUE: u32 = 0x3000_0000;
    pub const NULL: u32 = 0x4000_0000;
    pub const CONTAINER: u32 = 0x5000_0000;
    /// A container that is an object, before it is written.
    pub const OBJECT: u32 = CONTAINER;
    /// A container that is an array, before it is written.
    pub const ARRAY: u32 = 0x6000_0000;
    /// A member that is not stored, but replaces earlier members with its name.
    pub const DROPPED: u32 = 0x7000_0000;
}
