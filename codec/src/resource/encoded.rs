//! What a line became, until its bytes are written.

use crate::error::LineError;
use crate::jsonb::build::Tree;
use crate::jsonb::value::{Entry, Value};

/// An encoded line: who it is, and its bytes to be written.
pub struct Encoded<'a> {
    pub(super) tree: Tree<'a>,
    pub(super) members: &'a [Entry],
    pub(super) id: Value,
    pub(super) resource_type: Option<Value>,
    pub(super) created_at: Option<Value>,
}

impl<'a> Encoded<'a> {
    fn text(&self, value: Value) -> &'a str {
        // The line was checked as UTF-8, and escapes write whole characters; quotes never split one.
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

    /// The creation time the line bears, as written there.
    pub fn created_at(&self) -> Option<&'a str> {
        self.created_at.map(|value| self.text(value))
    }

    /// Appends the jsonb bytes of the stored resource, without a length header. `out` must end at a multiple of 4.
    ///
    /// # Errors
    /// [`Reason::TooLarge`], [`Reason::OutOfMemory`]; nothing is appended then.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), LineError> {
        self.tree.write_object(self.members, out).map_err(|limit| *limit.at(0))
    }
}
