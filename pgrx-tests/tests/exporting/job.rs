//! Short helpers for tests of exports.

use crate::support::{rows, run, value};
use fhir_bulk_tests::{Client, Cluster, Database, gunzip, wait_for};
use serde_json::Value;
use std::path::Path;

/// A database whose exports go to a folder of its own, `exports` among its files.
pub fn with_location() -> (Database, Client) {
    with_location_on(Database::new())
}

/// The same in a database of a server that is not shared.
pub fn with_location_on(database: Database) -> (Database, Client) {
    let location = format!("file://{}", database.path("exports").display());
    run(
        &mut database.connect(),
        &format!("ALTER DATABASE {} SET fhir_bulk.export_location = '{location}'", database.name()),
    );
    let client = database.connect();
    (database, client)
}

/// The statement of an export.
pub fn export_sql(request: &Value) -> String {
    format!("SELECT bulk_export('{}')", request.to_string().replace('\'', "''"))
}

/// Starts an export. Returns the job's id.
pub fn export(client: &mut Client, request: &Value) -> String {
    value(client, &export_sql(request))
}

/// The status of an export.
pub fn status(client: &mut Client, id: &str) -> Value {
    serde_json::from_str(&value(client, &format!("SELECT bulk_export_status('{id}')"))).unwrap()
}

/// Waits until an export has ended. Returns its status.
pub fn finish(client: &mut Client, id: &str) -> Value {
    let mut last = Value::Null;
    wait_for(&format!("export {id} to end"), || {
        last = status(client, id);
        last["status"] != "pending" && last["status"] != "processing"
    });
    last
}

/// Runs an export, which must complete.
pub fn done(client: &mut Client, request: &Value) -> Value {
    let id = export(client, request);
    let status = finish(client, &id);
    assert_eq!(status["status"], "completed", "{status}");
    status
}

/// The bytes behind a URL, as they are stored.
pub fn download(client: &mut Client, url: &Value) -> Vec<u8> {
    let rows = client.query("SELECT bulk_export_file($1)", &[&url.as_str().unwrap()]).unwrap();
    rows.iter().flat_map(|row| row.get::<_, Vec<u8>>(0)).collect()
}

/// The lines of a type's files, in order; each file has as many as the manifest says.
pub fn lines(client: &mut Client, status: &Value, resource_type: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for file in status["output"].as_array().unwrap().iter().filter(|file| file["type"] == resource_type) {
        let mut bytes = download(client, &file["url"]);
        if bytes.starts_with(b"\x1F\x8B") {
            bytes = gunzip(&bytes);
        }
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.ends_with('\n'));
        assert_eq!(text.lines().count() as u64, file["count"], "{file}");
        lines.extend(text.lines().map(str::to_owned));
    }
    lines
}

/// The same as sorted ids.
pub fn ids(client: &mut Client, status: &Value, resource_type: &str) -> Vec<String> {
    let id = |line: &String| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
    let mut ids: Vec<String> = lines(client, status, resource_type).iter().map(id).collect();
    ids.sort();
    ids
}

/// What a dump has of a type that exports write as they do.
pub fn dump(client: &mut Client, resource_type: &str) -> Vec<String> {
    let sql = format!(
        "SET fhir_bulk.version_id = string; SET TimeZone = 'UTC'; SELECT bulk_dump('{resource_type}', fhir => true)"
    );
    rows(client, &sql)
}

/// What is in the folder of exports, with paths from there on.
pub fn files(database: &Database) -> Vec<String> {
    let root = database.path("exports");
    let root = root.to_str().unwrap();
    // Only the server's user may look.
    let mut find = fhir_bulk_tests::as_server_user(Path::new("/usr/bin/find"));
    let output = find.args([root, "-type", "f"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut files: Vec<String> = text.lines().map(|line| line[root.len() + 1..].to_owned()).collect();
    files.sort();
    files
}

/// Waits until nothing is left of any export.
pub fn wait_for_no_files(database: &Database) {
    wait_for("files to be gone", || files(database).is_empty());
}

/// Patients `1` to `count` and as many observations, with references between them.
pub fn patients_and_observations(client: &mut Client, count: usize) {
    for resource_type in ["Patient", "Observation"] {
        let table = resource_type.to_lowercase();
        run(
            client,
            &format!(
                "SELECT bulk_create_table('{resource_type}');
                 INSERT INTO {table} (id, txid, cts, ts, status, resource) SELECT n, n, '2024-01-01Z', '2024-01-01Z', 'created',
                   jsonb_build_object('subject', jsonb_build_object('id', n::text, 'resourceType', 'Patient'), 'text', md5(n::text))
                   FROM generate_series(1, {count}) n"
            ),
        );
    }
}

/// Makes the table of patients the largest: one process alone reads it first.
pub fn patients_first(client: &mut Client) {
    run(client, "UPDATE patient SET txid = txid");
}

/// A type whose resources cannot be read while a file is there, though its table is a plain one.
pub fn gated(client: &mut Client, database: &Database, resource_type: &str) -> Gate {
    let gate = close_gate(database);
    let path = gate.0.display();
    let table = resource_type.to_lowercase();
    run(
        client,
        &format!(
            "DO $$ BEGIN IF to_regtype('public.gated') IS NULL THEN
               CREATE TYPE public.gated AS (resource jsonb);
               CREATE FUNCTION public.opened(public.gated) RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER AS $f$
                 BEGIN WHILE (pg_stat_file('{path}', true)).size IS NOT NULL LOOP PERFORM pg_sleep(0.01); END LOOP; RETURN $1.resource; END $f$;
               CREATE CAST (public.gated AS jsonb) WITH FUNCTION public.opened(public.gated);
             END IF; END $$;
             ALTER TABLE {table} ALTER COLUMN resource TYPE public.gated USING ROW(resource)::public.gated"
        ),
    );
    gate
}

/// Closes it again.
pub fn close_gate(database: &Database) -> Gate {
    let gate = Gate(database.path("gate"));
    std::fs::write(&gate.0, "").unwrap();
    gate
}

/// See [`gated`].
pub struct Gate(std::path::PathBuf);

impl Gate {
    pub fn open(self) {
        std::fs::remove_file(self.0).unwrap();
    }
}

/// Waits until so many processes wait behind a gate: that of the job, and those that help it.
pub fn wait_for_readers(client: &mut Client, count: usize) {
    wait_for("readers behind the gate", || {
        rows(
            client,
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'
             AND backend_type IN ('fhir_bulk job worker', 'parallel worker')",
        )
        .len()
            == count
    });
}

/// A server of one's own.
pub fn own_server() -> &'static Cluster {
    Box::leak(Box::new(Cluster::start(&["max_connections = 30"])))
}

/// A connection once the server takes some again.
pub fn reconnected(database: &Database) -> Client {
    let dsn = database.cluster().dsn("postgres", database.name());
    let connect =
        || fhir_bulk_tests::connect(&dsn).and_then(|mut client| client.batch_execute("SELECT 1").map(|()| client));
    let mut client = None;
    wait_for("connections", || {
        client = connect().ok();
        client.is_some()
    });
    client.unwrap()
}
