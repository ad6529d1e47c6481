//! What tests ask of jobs, in few words.

use crate::support::{rows, value};
use fhir_bulk_tests::{Client, Database, wait_for};
use serde_json::{Value, json};

/// `SELECT bulk_import(request)` with inputs given as type and URL; the job's id.
pub fn import(client: &mut Client, id: &str, inputs: &[(&str, &str)]) -> String {
    import_with(client, id, inputs, json!({}))
}

/// As [`import`], with more members in the request.
pub fn import_with(client: &mut Client, id: &str, inputs: &[(&str, &str)], more: Value) -> String {
    value(client, &import_sql(id, inputs, more))
}

/// The statement of an import.
pub fn import_sql(id: &str, inputs: &[(&str, &str)], more: Value) -> String {
    let inputs = inputs.iter().map(|(name, url)| json!({"resourceType": name, "url": url})).collect::<Vec<_>>();
    let mut request = json!({"id": id, "inputs": inputs});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    format!("SELECT bulk_import($json${request}$json$)")
}

/// The status of an import.
pub fn status(client: &mut Client, id: &str) -> Value {
    serde_json::from_str(&value(client, &format!("SELECT bulk_import_status('{id}')::text"))).unwrap()
}

/// Waits until an import is over; its status.
pub fn finish(client: &mut Client, id: &str) -> Value {
    let mut last = Value::Null;
    wait_for(&format!("import {id} to end"), || {
        last = status(client, id);
        last["status"] != "active"
    });
    last
}

/// Each input's status and total, as `finished 20`.
pub fn inputs(status: &Value) -> Vec<String> {
    let word = |input: &Value| format!("{} {}", input["status"].as_str().unwrap(), input["total"]);
    status["inputs"].as_array().unwrap().iter().map(word).collect()
}

/// Waits until no worker is left in a database.
pub fn wait_for_workers_to_end(database: &Database) {
    let mut client = database.connect();
    wait_for("the workers to end", || workers(&mut client).is_empty());
}

/// The processes that work on jobs in the client's database.
pub fn workers(client: &mut Client) -> Vec<i32> {
    let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'fhir_bulk job worker' \
               AND datname = current_database() ORDER BY 1";
    rows(client, sql).iter().map(|pid| pid.parse().unwrap()).collect()
}
