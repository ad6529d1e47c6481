//! What a submission is known by: its submitter, and the submitter's own id for it.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The name of this kind of job in the queue.
pub const NAME: &str = "submission";

/// What a submission is known by. The queue stores it as the job's request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    pub submitter: Submitter,
    #[serde(rename = "submissionId")]
    pub submission_id: String,
}

/// Who submits: FHIR's Identifier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitter {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    pub value: String,
}

impl Key {
    /// The id of its job: a digest, because ids are parts of URLs, and submitters choose theirs.
    pub fn id(&self) -> String {
        let mut digest = Sha256::new();
        for part in [self.submitter.system.as_deref().unwrap_or_default(), &self.submitter.value, &self.submission_id] {
            // With its length, so that parts cannot be confused.
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part.as_bytes());
        }
        digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub fn json(&self) -> Value {
        serde_json::json!(self)
    }

    /// Reads it from the queue.
    pub fn of(request: &Value) -> Key {
        Key::deserialize(request).expect("kept as it was made")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_keys_have_different_ids() {
        let id = |system: Option<&str>, value: &str, submission: &str| {
            let submitter = Submitter { system: system.map(str::to_owned), value: value.to_owned() };
            Key { submitter, submission_id: submission.to_owned() }.id()
        };
        let ids = [
            id(None, "a", "b"),
            id(Some("a"), "b", ""),
            id(None, "ab", ""),
            id(Some("s"), "a", "b"),
            id(Some("sa"), "", "b"),
            id(None, "a", "B"),
        ];
        assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), ids.len());
        assert_eq!(ids[0].len(), 64);
        assert_eq!(ids[0], id(Some(""), "a", "b"));
    }
}
