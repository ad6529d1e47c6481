//! Short helpers for tests of jobs.

use crate::support::{count, rows, run, value};
use fhir_bulk_tests::{Client, Cluster, Database, wait_for};
use serde_json::{Value, json};

/// A database whose sessions and workers may read from 127.0.0.1, and a superuser's session in it.
pub fn allowed() -> (Database, Client) {
    let database = Database::new();
    allow(&database);
    let client = database.connect();
    (database, client)
}

/// As [`allowed`], on a server of its own.
pub fn server(settings: &[&str]) -> Database {
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(settings)));
    let database = cluster.database("jobs");
    allow(&database);
    database
}

/// Lets sessions and workers of a database read from 127.0.0.1.
pub fn allow(database: &Database) {
    set(database, "fhir_bulk.allowed_sources = '127.0.0.1'");
}

/// Changes a setting for all later sessions and workers of a database. Returns a new session.
pub fn set(database: &Database, setting: &str) -> Client {
    run(&mut database.connect(), &format!("ALTER DATABASE {} SET {setting}", database.name()));
    database.connect()
}

/// As [`allowed`], with one worker at a time.
pub fn one_worker() -> (Database, Client) {
    let (database, _) = allowed();
    let client = set(&database, "fhir_bulk.import_workers = 1");
    (database, client)
}

/// A role that may import into `patient`.
pub fn importer(database: &Database, client: &mut Client, name: &str) -> String {
    writer(database, client, name, "bulk_import(jsonb, boolean)")
}

/// A role that may write `patient`, and call some functions.
pub fn writer(database: &Database, client: &mut Client, name: &str, functions: &str) -> String {
    let role = database.role(name);
    run(
        client,
        &format!(
            "SELECT bulk_create_table('Patient'); CREATE SEQUENCE IF NOT EXISTS transaction_id_seq;
             GRANT SELECT, INSERT, UPDATE ON patient TO {role}; GRANT USAGE ON SEQUENCE transaction_id_seq TO {role};
             GRANT EXECUTE ON FUNCTION {functions} TO {role}"
        ),
    );
    role
}

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

/// Waits until an import has ended. Returns its status.
pub fn finish(client: &mut Client, id: &str) -> Value {
    wait_for_status(client, id, "is over", |status| status["status"] != "active")
}

/// Waits until an import has a status that is wanted.
pub fn wait_for_status(client: &mut Client, id: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    wait_for(&format!("import {id}: {what}"), || {
        last = status(client, id);
        wanted(&last)
    });
    last
}

/// Waits until the first input has committed at least `total` resources.
pub fn wait_for_total(client: &mut Client, id: &str, total: u64) -> Value {
    wait_for_status(client, id, &format!("{total} resources"), |status| {
        status["inputs"][0]["total"].as_u64().unwrap() >= total
    })
}

/// Each input's status and total, as `finished 20`.
pub fn inputs(status: &Value) -> Vec<String> {
    let word = |input: &Value| format!("{} {}", input["status"].as_str().unwrap(), input["total"]);
    status["inputs"].as_array().unwrap().iter().map(word).collect()
}

/// A session whose transaction has a patient's row: imports of that patient wait for it there, so that they have not ended
/// when a test comes to them late. It ends with the session, or with its server.
pub fn hold(database: &Database, id: &str) -> Client {
    let mut client = database.connect();
    // The table is committed first: whoever makes one keeps others from doing so until the end.
    run(&mut client, "SELECT bulk_create_table('Patient')");
    run(
        &mut client,
        &format!(
            "BEGIN; INSERT INTO patient (id, txid, status, resource) VALUES ('{id}', 0, 'created', '{{}}')
               ON CONFLICT (id) DO UPDATE SET resource = patient.resource"
        ),
    );
    client
}

/// Waits until no worker is left in a database.
pub fn wait_for_workers_to_end(database: &Database) {
    let mut client = database.connect();
    wait_for("the workers to end", || workers(&mut client).is_empty());
}

/// Waits for the only worker in the client's database.
pub fn worker(client: &mut Client) -> i32 {
    wait_for("a worker", || workers(client).len() == 1);
    workers(client)[0]
}

/// The processes that work on jobs in the client's database.
pub fn workers(client: &mut Client) -> Vec<i32> {
    let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'fhir_bulk job worker' \
               AND datname = current_database() ORDER BY 1";
    rows(client, sql).iter().map(|pid| pid.parse().unwrap()).collect()
}

/// Waits until a worker waits for something: `Extension` is the network, `Lock` another session.
pub fn wait_until_waiting(client: &mut Client, for_what: &str) {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'fhir_bulk job worker' \
         AND datname = current_database() AND wait_event_type = '{for_what}'"
    );
    wait_for(&format!("a worker to wait for {for_what}"), || count(client, &sql) > 0);
}

/// Asserts that table `patient` has exactly the patients `p-1` to `p-<number>`, each once and as its line has it, and
/// that table and indexes are sound.
#[track_caller]
pub fn assert_patients(client: &mut Client, number: usize) {
    let found = rows(
        client,
        "SELECT count(*), count(DISTINCT id), sum((resource ->> 'multipleBirthInteger')::bigint),
                count(*) FILTER (WHERE id <> 'p-' || (resource ->> 'multipleBirthInteger')) FROM patient",
    );
    assert_eq!(found, [format!("{number}|{number}|{}|0", number * (number + 1) / 2)]);
    assert_sound(client);
}

/// Asserts that amcheck finds nothing wrong with table `patient`, its history and the job tables.
#[track_caller]
pub fn assert_sound(client: &mut Client) {
    let tables = ["patient", "patient_history", "fhir_bulk_internal.bulk_job", "fhir_bulk_internal.bulk_job_task"];
    for table in tables {
        assert_eq!(rows(client, &format!("SELECT * FROM verify_heapam('{table}') LIMIT 5")), [""; 0], "{table}");
        let indexes = format!("SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = '{table}'::regclass");
        for index in rows(client, &indexes) {
            assert_eq!(rows(client, &format!("SELECT bt_index_check('{index}', true)")), [""], "{index}");
        }
    }
}
