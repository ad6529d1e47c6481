//! An encoded line whose bytes are not written yet.

use crate::error::LineError;
use crate::jsonb::build::Tree;
use crate::jsonb::value::{Entry, Value};

/// An encoded line: its identity, and its bytes to write.
pub struct Encoded<'a> {
    pub(super) tree: Tree<'a>,
    pub(super) members: &'a [Entry],
    pub(super) id: Value,
    pub(super) resource_type: Option<Value>,
    pub(super) created_at: Option<Value>,
}

impl<'a> Encoded<'a> {
    fn text(&self, value: Value) -> &'a str {
        // The line is valid UTF-8, escapes write whole characters, and quotes never split a character.
        str::from_utf8(value.bytes(self.tree.source)).unwrap_or_default()
    }

    /// The resource's id.
    pub fn id(&self) -> &'a str {
        self.text(self.id)
    }

    /// The `resourceType` of the line, if it has one.
    pub fn resource_type(&self) -> Option<&'a str> {
        self.resource_type.map(|value| self.text(value))
    }

    /// The text of the creation time in the line.
    pub fn created_at(&self) -> Option<&'a str> {
        self.created_at.map(|value| self.text(value))
    }

    /// Appends the jsonb bytes of the stored resource, without a length header. `out` must end at a multiple of 4.
    ///
    /// # Errors
    /// [`Reason::TooLarge`], [`Reason::OutOfMemory`]; then nothing is appended.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), LineError> {
        self.tree.write_object(self.members, out).map_err(|limit| *limit.at(0))
    }
}
