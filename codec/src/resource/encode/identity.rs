//! Removes from a resource what the row's columns have: `id`, `resourceType`, and the version and times in `meta`.

use super::{Encoder, Frame};
use crate::error::{IdRule, LineError, Reason, Refusal};
use crate::jsonb::kind;
use crate::jsonb::value::{Entry, Value};

impl Encoder {
    /// Removes what the columns have from `meta`. Returns true if `meta` is empty then.
    pub(super) fn close_meta(&mut self, frame: &Frame, line: &[u8]) -> Result<bool, Refusal> {
        let mut kept = frame.first;
        for at in frame.first..self.pending.len() {
            let Entry { name, value } = self.pending[at];
            match name.bytes(self.source(line)) {
                b"lastUpdated" | b"versionId" => continue,
                b"createdAt" => {
                    self.set_created_at(value, frame)?;
                    continue;
                }
                // The last member with this name is not a list: a creation time in an earlier one does not count.
                b"extension" if !matches!(value.kind(), kind::ARRAY | kind::DROPPED) => self.created_at = None,
                _ => {}
            }
            if value.kind() != kind::DROPPED {
                self.pending[kept] = self.pending[at];
                kept += 1;
            }
        }
        self.pending.truncate(kept);
        Ok(kept == frame.first)
    }

    /// Returns true if this is the extension that has the creation time.
    pub(super) fn close_meta_extension(&mut self, frame: &Frame, line: &[u8]) -> Result<bool, Refusal> {
        let source = self.source(line);
        let members = &self.pending[frame.first..];
        let member = |name: &[u8]| members.iter().find(|e| e.name.bytes(source) == name).map(|e| e.value);
        let is_created_at =
            member(b"url").is_some_and(|url| url.kind() == kind::STRING && url.bytes(source) == self.created_at_url);
        // As FHIR writes it, or as Aidbox does.
        let instant = member(b"valueInstant").or_else(|| {
            let value = member(b"value").filter(|value| value.kind() == kind::OBJECT)?;
            match &self.closed[value.entries()] {
                [only] if only.name.bytes(source) == b"instant" => Some(only.value),
                _ => None,
            }
        });
        match instant {
            Some(instant) if is_created_at => self.set_created_at(instant, frame).map(|()| true),
            _ => Ok(false),
        }
    }

    fn set_created_at(&mut self, value: Value, frame: &Frame) -> Result<(), Refusal> {
        match value.kind() {
            kind::STRING => self.created_at = Some(value),
            kind::NULL => {}
            _ => return Err(LineError::new(Reason::CreatedAtNotString, frame.line_start).into()),
        }
        Ok(())
    }

    /// Removes `id` and `resourceType` from the members, and checks `meta`.
    pub(super) fn take_identity(&mut self, line: &[u8], start: usize) -> Result<(Value, Option<Value>), Refusal> {
        let refused = |reason| Err(LineError::new(reason, start).into());
        let (mut id, mut resource_type, mut kept) = (None, None, 0);
        for at in 0..self.pending.len() {
            let Entry { name, value } = self.pending[at];
            match (name.bytes(self.source(line)), value.kind()) {
                (b"id", kind::STRING) => id = Some(value),
                (b"id", _) => return refused(Reason::IdNotString),
                (b"resourceType", kind::STRING) => resource_type = Some(value),
                (b"resourceType", _) => return refused(Reason::TypeNotString),
                (b"meta", kind::DROPPED) => {}
                (b"meta", kind::NULL) => self.created_at = None,
                (b"meta", kind) if kind != kind::OBJECT => return refused(Reason::MetaNotObject),
                _ => {
                    self.pending[kept] = self.pending[at];
                    kept += 1;
                }
            }
        }
        self.pending.truncate(kept);
        let Some(id) = id else { return refused(Reason::MissingId) };
        if !id_is_valid(id.bytes(self.source(line)), self.id_rule) {
            return refused(Reason::InvalidId(self.id_rule));
        }
        Ok((id, resource_type))
    }
}

fn id_is_valid(id: &[u8], rule: IdRule) -> bool {
    match rule {
        IdRule::Fhir => {
            (1..=64).contains(&id.len()) && id.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
        }
        // U+0080 to U+009F are control characters, too.
        IdRule::Aidbox => {
            (1..=255).contains(&id.len()) && str::from_utf8(id).is_ok_and(|text| !text.chars().any(char::is_control))
        }
    }
}
