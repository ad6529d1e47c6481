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
    let inputs = inputs(status);
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

/// The imports that the caller sees, the newest first: how many, and after how many.
pub const LIST: &str = "\
    SELECT j.id, j.status, j.created_at, j.inputs, j.inputs_ended, j.resources FROM {schema}.bulk_jobs j \
    WHERE j.kind OPERATOR(pg_catalog.=) 'import' ORDER BY j.created_at DESC, j.id LIMIT $1 OFFSET $2";

/// The last imports of the caller whose ids begin with an argument: first those that run.
pub const LAST: &str = "\
    SELECT j.id, j.created_at, j.status, j.inputs, j.inputs_ended FROM {schema}.bulk_jobs j \
    WHERE j.kind OPERATOR(pg_catalog.=) 'import' \
    AND pg_catalog.starts_with(j.id, $1) AND j.role OPERATOR(pg_catalog.=) current_user \
    AND COALESCE(j.subject OPERATOR(pg_catalog.=) {schema}.bulk_job_subject(), {schema}.bulk_job_subject() IS NULL) \
    ORDER BY j.ended_at IS NULL DESC, j.created_at DESC LIMIT 1000";

/// The inputs of an import that failed.
pub const FAILED: &str = "\
    SELECT i.number, i.resource_type, i.error FROM {schema}.bulk_job_inputs i \
    WHERE i.id OPERATOR(pg_catalog.=) $1 AND i.status OPERATOR(pg_catalog.=) 'failed' ORDER BY i.number LIMIT 1000";

/// The state of the loads from a bucket, which [`LAST`] has found, in the shape of `aidbox.bulk/load-from-bucket-status`: of
/// those that run together, or of the last one.
pub fn of_bucket(jobs: &[Value]) -> Value {
    let runs = |job: &&Value| matches!(text(&job["status"]), "waiting" | "active");
    let running: Vec<&Value> = jobs.iter().filter(runs).collect();
    let last = jobs.first();
    let state = match last.map(|job| text(&job["status"])) {
        _ if !running.is_empty() => "in-progress",
        Some("cancelled") => "interrupted",
        _ => "completed",
    };
    let meant = if running.is_empty() { last.into_iter().collect() } else { running };
    let sum = |name: &str| meant.iter().map(|job| job[name].as_u64().unwrap_or_default()).sum::<u64>();
    let (total, done) = (sum("inputs"), sum("inputs_ended"));
    json!({"state": state, "progress": {"total": total, "pending": total.saturating_sub(done), "done": done}})
}

/// An import in the shape of `aidbox.bulk/import-start`. Of many inputs it has some, as the status does.
pub fn of_rpc(status: &Value) -> Value {
    let state = match text(&status["status"]) {
        "active" => "in-progress",
        "cancelled" => "canceled",
        "finished" if status["inputsFailed"] == 0 => "finished",
        _ => "failed",
    };
    let input = |input: &Value| {
        let state = match text(&input["status"]) {
            "active" => "in-progress",
            "finished" => "loaded",
            "cancelled" => "canceled",
            other => other,
        };
        let mut out = json!({"url": input["url"], "status": state, "count": input["total"],
            "errors": u8::from(state == "failed")});
        if let Some(time) = input.get("duration") {
            out["time"] = time.clone();
        }
        out
    };
    json!({
        "id": status["id"],
        "format": status["type"],
        "status": state,
        "count": status["total"],
        "errors": status["inputsFailed"],
        "input": inputs(status).iter().map(input).collect::<Vec<_>>(),
    })
}

/// Why an input failed ([`FAILED`]), in the shape of `aidbox.bulk/import-errors`: an input ends at its first error.
pub fn error_of_rpc(input: &Value) -> Value {
    let message = text(&input["error"]);
    let mut out = json!({"input_no": input["number"].as_u64().unwrap_or(1) - 1});
    // As loads begin their messages about a line.
    let line = message.strip_prefix("line ").and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
    if let Some(line) = line {
        out["line_no"] = line.into();
    }
    if input["resource_type"].is_string() {
        out["type"] = input["resource_type"].clone();
    }
    out["errors"] = json!([{"path": [], "message": message}]);
    out
}

fn inputs(status: &Value) -> &[Value] {
    status["inputs"].as_array().map_or(&[][..], Vec::as_slice)
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
    fn loads_of_a_bucket_that_run_are_counted_together() {
        let job =
            |status: &str, inputs: u64, ended: u64| json!({"status": status, "inputs": inputs, "inputs_ended": ended});
        let of = |state: &str, total: u64, pending: u64, done: u64| json!({"state": state, "progress": {"total": total, "pending": pending, "done": done}});
        let both = [job("waiting", 4, 0), job("active", 6, 2), job("finished", 9, 9)];
        assert_eq!(of_bucket(&both), of("in-progress", 10, 8, 2));
        assert_eq!(of_bucket(&[job("failed", 3, 3), job("finished", 9, 9)]), of("completed", 3, 0, 3));
        assert_eq!(of_bucket(&[job("cancelled", 3, 3)]), of("interrupted", 3, 0, 3));
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
