//! Prints the status of an import, in the shapes of Aidbox.

use serde_json::{Map, Value, json};

/// A version of the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `BulkImportStatus`, as `bulk_import_status` returns it.
    V1,
    /// That of `/v2/$import`: what runs has a status, what has ended an outcome.
    V2,
}

impl Shape {
    /// The path of an import's status.
    pub fn path(self, id: &str) -> Vec<&str> {
        match self {
            Shape::V1 => vec!["BulkImportStatus", id],
            Shape::V2 => vec!["v2", "$import", id],
        }
    }
}

/// The second version's form of a status that `bulk_import_status` returned.
pub fn v2(status: &Value) -> Value {
    let inputs = status["inputs"].as_array().map_or(&[][..], Vec::as_slice);
    let mut out = json!({
        "id": status["id"],
        "type": status["type"],
        "contentEncoding": status["contentEncoding"],
        "status": "in-progress",
    });
    let state = status["status"].as_str().unwrap_or_default();
    if state != "active" {
        out["status"] = "done".into();
        // Of many inputs the status has some, those that failed among them; it counts all.
        let (files, total) = (&status["inputsTotal"], &status["total"]);
        let failed = inputs.iter().find(|input| input["status"] == "failed");
        match (state, failed) {
            ("finished", None) => {
                out["outcome"] = "succeeded".into();
                out["result"] = json!({
                    "message": format!("All input files imported, {total} new resources loaded"),
                    "total-files": files,
                    "total-imported-resources": total,
                });
            }
            ("cancelled", _) => fail(&mut out, "The import was cancelled".to_owned()),
            (_, failed) => {
                let mut message = format!("{} of {files} input files failed", status["inputsFailed"]);
                if let Some(input) = failed {
                    message += &format!(", one of them is {}: {}", text(&input["url"]), text(&input["error"]));
                }
                fail(&mut out, message);
            }
        }
    }
    out["inputs"] = inputs.iter().map(input_of_v2).collect();
    out
}

fn input_of_v2(input: &Value) -> Value {
    let mut out = json!({"url": input["url"]});
    if let Some(resource_type) = input.get("resourceType") {
        out["resourceType"] = resource_type.clone();
    }
    match text(&input["status"]) {
        "waiting" => out["status"] = "waiting".into(),
        "active" => out["status"] = "in-progress".into(),
        ended => {
            out["status"] = "done".into();
            match ended {
                "finished" => out["outcome"] = "succeeded".into(),
                "cancelled" => fail(&mut out, "It was cancelled".to_owned()),
                _ => fail(&mut out, text(&input["error"]).to_owned()),
            }
        }
    }
    // What was committed before a failure stays.
    if out["status"] != "waiting" {
        out["result"] = json!({"imported-resources": input["total"]});
    }
    out
}

fn fail(out: &mut Value, message: String) {
    out["outcome"] = "failed".into();
    out["error"] = json!({"message": message});
}

/// An import of the list that `bulk_jobs` is.
pub fn listed(job: &Map<String, Value>) -> Value {
    let state = job.get("status").map_or("", text);
    let status = match state {
        "waiting" => "waiting",
        "active" => "in-progress",
        _ => "done",
    };
    let mut out = json!({"id": job.get("id"), "status": status});
    for (name, column) in [
        ("created", "created_at"),
        ("total-files", "inputs"),
        ("ended-files", "inputs_ended"),
        ("total-imported-resources", "resources"),
    ] {
        out[name] = job.get(column).cloned().unwrap_or_default();
    }
    out
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_that_runs_has_no_outcome() {
        let status = json!({"id": "i1", "type": "fhir", "contentEncoding": "gzip", "status": "active", "inputs": [
            {"url": "a", "resourceType": "Patient", "status": "finished", "total": 615},
            {"url": "b", "status": "active", "total": 50},
            {"url": "c", "status": "waiting", "total": 0}]});
        let expected = json!({"id": "i1", "type": "fhir", "contentEncoding": "gzip", "status": "in-progress", "inputs": [
            {"url": "a", "resourceType": "Patient", "status": "done", "outcome": "succeeded", "result": {"imported-resources": 615}},
            {"url": "b", "status": "in-progress", "result": {"imported-resources": 50}},
            {"url": "c", "status": "waiting"}]});
        assert_eq!(v2(&status), expected);
    }

    #[test]
    fn an_import_succeeds_if_all_its_files_do() {
        let inputs =
            json!([{"url": "a", "status": "finished", "total": 1}, {"url": "b", "status": "finished", "total": 2}]);
        let mut status = json!({"id": "i1", "status": "finished", "total": 3, "inputsTotal": 2, "inputs": inputs});
        let done = v2(&status);
        assert_eq!((&done["status"], &done["outcome"]), (&json!("done"), &json!("succeeded")));
        assert_eq!(
            done["result"],
            json!({"message": "All input files imported, 3 new resources loaded", "total-files": 2,
                   "total-imported-resources": 3})
        );
        status["inputsFailed"] = 1.into();
        status["inputs"][1] = json!({"url": "b", "status": "failed", "total": 1, "error": "403: Forbidden"});
        let done = v2(&status);
        assert_eq!((&done["status"], &done["outcome"]), (&json!("done"), &json!("failed")));
        assert_eq!(done["error"], json!({"message": "1 of 2 input files failed, one of them is b: 403: Forbidden"}));
        assert_eq!(done["inputs"][1]["error"], json!({"message": "403: Forbidden"}));
        assert_eq!(done["inputs"][1]["result"], json!({"imported-resources": 1}));
        status["status"] = "cancelled".into();
        assert_eq!(v2(&status)["error"], json!({"message": "The import was cancelled"}));
    }
}
