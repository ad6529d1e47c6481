//! Writes the body of `POST /_bulk` of Elasticsearch and OpenSearch: for each document an action line and the document.

use super::json::write_string;

/// The action for a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Replace a document with the same id.
    Index,
    /// Fail if there is a document with the same id.
    Create,
}

/// The longest id that the servers accept, in bytes.
pub const MAX_ID_BYTES: usize = 512;
const MAX_INDEX_BYTES: usize = 255;

/// The action lines for one index.
pub struct Actions {
    /// `{"index":{"_index":"name"`
    head: Vec<u8>,
}

impl Actions {
    /// `index` is the name of an index, an alias or a data stream.
    ///
    /// # Errors
    /// The rule that the name breaks; the servers would refuse it.
    pub fn new(action: Action, index: &str) -> Result<Actions, &'static str> {
        if index.is_empty() || index.len() > MAX_INDEX_BYTES {
            return Err("has 1 to 255 bytes");
        }
        if index.starts_with(['-', '_', '+']) || matches!(index, "." | "..") {
            return Err("does not start with '-', '_' or '+', and is not '.' or '..'");
        }
        let refused = |letter: char| letter.is_control() || letter.is_whitespace() || "\\/*?\"<>|,#:".contains(letter);
        if index.contains(refused) || index.chars().any(char::is_uppercase) {
            return Err("is in lower case, without spaces and \\ / * ? \" < > | , # :");
        }
        let mut head = Vec::new();
        head.extend_from_slice(match action {
            Action::Index => br#"{"index":{"_index":"#,
            Action::Create => br#"{"create":{"_index":"#,
        });
        write_string(index.as_bytes(), &mut head);
        Ok(Actions { head })
    }

    /// Appends the line before a document, with its newline. Without an id the server makes one.
    pub fn line(&self, id: Option<&[u8]>, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        if let Some(id) = id {
            out.extend_from_slice(br#","_id":"#);
            write_string(id, out);
        }
        out.extend_from_slice(b"}}\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_one_line_of_json() {
        let mut out = Vec::new();
        Actions::new(Action::Index, "patients").unwrap().line(Some(b"a\"\n"), &mut out);
        Actions::new(Action::Create, "logs-2026.11").unwrap().line(None, &mut out);
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0], serde_json::json!({"index": {"_index": "patients", "_id": "a\"\n"}}));
        assert_eq!(lines[1], serde_json::json!({"create": {"_index": "logs-2026.11"}}));
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn a_name_that_no_server_accepts_is_refused() {
        for name in ["", "Patients", "_all", "-a", "+a", ".", "..", "a b", "a/b", "a*", "a\"", "a\n", "a,b", "a:b"] {
            assert!(Actions::new(Action::Index, name).is_err(), "{name:?}");
        }
        assert!(Actions::new(Action::Index, &"a".repeat(256)).is_err());
        for name in ["patients", "fhir.patient", "a_b-c", "pátients", ".hidden"] {
            assert!(Actions::new(Action::Index, name).is_ok(), "{name:?}");
        }
    }
}
