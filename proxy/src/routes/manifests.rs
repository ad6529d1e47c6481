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
/// Members that both have if the files are organized by something, and if more files are on another page.
const ORGANIZED_BY: &str = "outputOrganizedBy";
const LINK: &str = "link";
/// What STU3 has not, of each file.
const ONLY_V4: [&str; 1] = ["fileSize"];

/// The manifest of a status that `bulk_export_status` returned for a complete export.
pub fn manifest(mut status: Value, shape: Shape) -> Value {
    let more = [ORGANIZED_BY, LINK].map(|name| (name, status[name].take()));
    let mut manifest = match shape {
        Shape::Stu3 => {
            let mut manifest: Map<String, Value> =
                MEMBERS.iter().map(|name| ((*name).to_owned(), status[*name].take())).collect();
            manifest
                .values_mut()
                .for_each(|files| each(files, |file| ONLY_V4.iter().for_each(|name| drop(file.remove(*name)))));
            manifest
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
            let members = [
                ("manifestType", TYPE_OF_V4.into()),
                ("transactionTime", status["transactionTime"].take()),
                ("requiresAccessToken", status["requiresAccessToken"].take()),
                ("outputFormat", "application/fhir+ndjson".into()),
                ("output", status["output"].take()),
                ("deleted", deleted),
                ("outcome", outcome),
            ];
            members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
        }
    };
    manifest
        .extend(more.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.to_owned(), value)));
    Value::Object(manifest)
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
    fn files_that_are_organized_say_by_what_and_where_they_continue() {
        for shape in [Shape::Stu3, Shape::V4] {
            assert!(manifest(status(), shape).get(ORGANIZED_BY).is_none());
            let mut organized = status();
            organized[ORGANIZED_BY] = "Patient".into();
            organized["output"] = json!([{"url": "a", "continuesInFile": "b"}, {"url": "b"}]);
            let found = manifest(organized.clone(), shape);
            assert_eq!((&found[ORGANIZED_BY], &found["output"]), (&json!("Patient"), &organized["output"]));
        }
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
