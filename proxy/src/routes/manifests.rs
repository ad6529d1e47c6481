//! Prints the manifest of an export, in the shapes of HL7's Bulk Data Access.

use serde_json::{Map, Value, json};

/// A version of the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// STU3, version 3.0.0.
    Stu3,
    /// The ballot of version 4.0.0.
    V4,
}

/// The members of a manifest of STU3.
const MEMBERS: [&str; 6] = ["transactionTime", "request", "requiresAccessToken", "output", "deleted", "error"];
const TYPE_OF_V4: &str = "http://hl7.org/fhir/uv/bulkdata/StructureDefinition/BulkDataManifest";
/// What STU3 has not, of each file.
const ONLY_V4: [&str; 1] = ["fileSize"];

/// The manifest of a status that `bulk_export_status` returned for a complete export.
pub fn manifest(mut status: Value, shape: Shape) -> Value {
    match shape {
        Shape::Stu3 => {
            let mut manifest: Map<String, Value> =
                MEMBERS.iter().map(|name| ((*name).to_owned(), status[*name].take())).collect();
            manifest
                .values_mut()
                .for_each(|files| each(files, |file| ONLY_V4.iter().for_each(|name| drop(file.remove(*name)))));
            Value::Object(manifest)
        }
        Shape::V4 => {
            let (mut deleted, mut outcome) = (status["deleted"].take(), status["error"].take());
            // Only output says a type.
            each(&mut deleted, |file| drop(file.remove("type")));
            each(&mut outcome, |file| {
                file.remove("type");
                // A line has one issue, and what an export leaves out is a warning.
                let count = file.get("count").cloned().unwrap_or_default();
                file.insert("countSeverity".to_owned(), json!([{"code": "warning", "count": count}]));
            });
            json!({
                "manifestType": TYPE_OF_V4,
                "transactionTime": status["transactionTime"].take(),
                "requiresAccessToken": status["requiresAccessToken"].take(),
                "outputFormat": "application/fhir+ndjson",
                "output": status["output"].take(),
                "deleted": deleted,
                "outcome": outcome,
            })
        }
    }
}

/// Changes each file of a list; nothing if it is no list.
fn each(files: &mut Value, change: impl Fn(&mut Map<String, Value>)) {
    files.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut).for_each(change);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Value {
        let file = |name: &str| json!({"type": name, "url": format!("u-{name}"), "count": 2, "fileSize": 7});
        json!({"jobId": "j", "status": "completed", "transactionTime": "t", "request": "r", "requiresAccessToken": false,
            "output": [file("Patient")], "deleted": [file("Bundle")], "error": [file("OperationOutcome")]})
    }

    #[test]
    fn each_version_has_its_own_members() {
        let file = |name: &str| json!({"type": name, "url": format!("u-{name}"), "count": 2});
        assert_eq!(
            manifest(status(), Shape::Stu3),
            json!({"transactionTime": "t", "request": "r", "requiresAccessToken": false, "output": [file("Patient")],
                "deleted": [file("Bundle")], "error": [file("OperationOutcome")]})
        );
        assert_eq!(
            manifest(status(), Shape::V4),
            json!({"manifestType": TYPE_OF_V4, "transactionTime": "t", "requiresAccessToken": false,
                "outputFormat": "application/fhir+ndjson",
                "output": [{"type": "Patient", "url": "u-Patient", "count": 2, "fileSize": 7}],
                "deleted": [{"url": "u-Bundle", "count": 2, "fileSize": 7}],
                "outcome": [{"url": "u-OperationOutcome", "count": 2, "fileSize": 7,
                    "countSeverity": [{"code": "warning", "count": 2}]}]})
        );
    }
}
