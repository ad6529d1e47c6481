//! A partitioned table with a partition on another server, through postgres_fdw: what jobs and reads make of it, and what
//! becomes of them when a server ends. How loads write it, `paths` has.

use crate::exports::{done, dump as exported_dump, export, files, finish as finish_export, lines, with_location_on};
use crate::job::{finish, import_with, inputs, status, wait_for_total};
use crate::support::{aidbox_tables, assert_error, count, load, load_fails, patients, rows, run, value};
use fhir_bulk_tests::{Client, Cluster, Database, connect, wait_for};
use serde_json::json;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// The server of the extension, and that of a partition. One test at a time may end them.
struct Servers {
    near: &'static Cluster,
    far: &'static Cluster,
}

fn servers() -> MutexGuard<'static, Servers> {
    static SERVERS: OnceLock<Mutex<Servers>> = OnceLock::new();
    let start = || -> &'static Cluster { Box::leak(Box::new(Cluster::start(&["max_connections = 50"]))) };
    let both = SERVERS.get_or_init(|| Mutex::new(Servers { near: start(), far: start() }));
    let both = both.lock().unwrap_or_else(PoisonError::into_inner);
    for server in [both.near, both.far] {
        if !server.is_running() {
            server.start_server();
        }
    }
    both
}

const COLUMNS: &str = "(id text, txid bigint NOT NULL, cts timestamptz DEFAULT now(), ts timestamptz DEFAULT now(),
    resource_type text DEFAULT 'Patient', status resource_status NOT NULL, resource jsonb NOT NULL";

/// A database with patients of whom about a half are far, and a folder for exports.
fn place(servers: &Servers, name: &'static str) -> (Database, Client) {
    run(&mut servers.far.connect("postgres", "postgres"), &format!("CREATE DATABASE {name}"));
    run(
        &mut servers.far.connect("postgres", name),
        &format!(
            "CREATE TYPE resource_status AS ENUM ('created', 'updated', 'deleted', 'recreated');
             CREATE TABLE far_patient {COLUMNS}, PRIMARY KEY (id))"
        ),
    );
    let database = servers.near.database(name);
    let mut client = database.connect();
    aidbox_tables(&mut client, &["Patient"]);
    run(
        &mut client,
        &format!(
            "CREATE EXTENSION postgres_fdw; DROP TABLE patient;
             CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw
                 OPTIONS (host '127.0.0.1', port '{}', dbname '{name}', batch_size '1000');
             CREATE USER MAPPING FOR PUBLIC SERVER far OPTIONS (user 'postgres', password_required 'false');
             CREATE TABLE patient {COLUMNS}) PARTITION BY HASH (id);
             CREATE TABLE patient_0 PARTITION OF patient (PRIMARY KEY (id)) FOR VALUES WITH (modulus 2, remainder 0);
             CREATE FOREIGN TABLE patient_1 PARTITION OF patient FOR VALUES WITH (modulus 2, remainder 1)
                 SERVER far OPTIONS (table_name 'far_patient')",
            servers.far.port()
        ),
    );
    with_location_on(database)
}

/// That table `patient` has exactly the patients `p-1` to `p-<number>`, each once and as its line has it, on both servers.
fn assert_patients(client: &mut Client, number: usize) {
    let found = rows(
        client,
        "SELECT count(*), count(DISTINCT id), sum((resource ->> 'multipleBirthInteger')::bigint),
                count(*) FILTER (WHERE id <> 'p-' || (resource ->> 'multipleBirthInteger')), count(DISTINCT tableoid) FROM patient",
    );
    assert_eq!(found, [format!("{number}|{number}|{}|0|2", number * (number + 1) / 2)]);
}

/// Whether the server's log has a line with all of these.
fn logged(server: &Cluster, pieces: &[&str]) -> bool {
    server.log().lines().any(|line| pieces.iter().all(|piece| line.contains(piece)))
}

#[test]
fn dumps_and_exports_have_the_rows_of_both_servers() {
    let servers = servers();
    let (database, mut client) = place(&servers, "far_reads");
    let lines_in: String = patients(1..=3000)
        .lines()
        .enumerate()
        .map(|(at, line)| {
            let identifier = format!(
                "\"identifier\":[{{\"system\":\"urn:x\",\"value\":\"v-{at}\"}}],\"birthDate\":\"{}",
                1900 + at % 10
            );
            line.replace("\"birthDate\":\"1970", &identifier) + "\n"
        })
        .collect();
    let url = database.file("lines", lines_in);
    assert_eq!(load(&mut client, &url, "'Patient', fhir => true"), r#"{"total": 3000}"#);
    run(&mut client, "UPDATE patient SET txid = 7, ts = '2024-01-01Z', cts = '2023-01-01Z'");
    run(&mut client, "CREATE TABLE plain AS SELECT * FROM patient; CREATE SCHEMA local; SET TimeZone = 'UTC'");
    run(&mut client, "ALTER TABLE plain RENAME TO patient_of_here; ALTER TABLE patient_of_here SET SCHEMA local");
    run(
        &mut client,
        "ALTER TABLE local.patient_of_here RENAME TO patient; ALTER TABLE local.patient ADD PRIMARY KEY (id)",
    );
    for query in [
        "SELECT bulk_dump('Patient')",
        "SELECT bulk_dump('Patient', fhir => true)",
        "SELECT bulk_dump('Patient', filter => 'birthdate=1903')",
        "SELECT dump_sql('SELECT id, status, resource FROM patient')",
        "SELECT bulk_read('Patient', 'p-30')",
        "SELECT bulk_export_identifiers('{\"type\": \"Patient\", \"identifiers\": [\"urn:x|v-5\", \"v-6\", \"|v-7\", \"urn:x|none\"]}')",
    ] {
        let mut both = ["public", "local"].map(|schema| {
            run(&mut client, &format!("SET fhir_bulk.data_schema = {schema}; SET search_path = {schema}, public"));
            rows(&mut client, query)
        });
        both.iter_mut().for_each(|rows| rows.sort());
        assert!(!both[0].is_empty() && both[0] == both[1], "{query}");
    }
    run(&mut client, "RESET fhir_bulk.data_schema; RESET search_path");
    for request in [json!({"_type": "Patient"}), json!({"_type": "Patient", "organizeOutputBy": "Patient"})] {
        let status = done(&mut client, &request);
        if request["organizeOutputBy"].is_null() {
            let (mut found, mut expected) =
                (lines(&mut client, &status, "Patient"), exported_dump(&mut client, "Patient"));
            found.sort();
            expected.sort();
            assert!(found == expected, "{} {}", found.len(), expected.len());
        }
    }
}

#[test]
fn row_level_security_hides_rows_of_both_servers_and_forbids_new_ones() {
    let servers = servers();
    let (database, mut client) = place(&servers, "far_policies");
    load(&mut client, &database.file("first", patients(1..=2000)), "'Patient'");
    let role = database.role("reader");
    run(
        &mut client,
        &format!(
            "GRANT SELECT, INSERT, UPDATE ON patient TO {role}; GRANT USAGE ON SEQUENCE transaction_id_seq TO {role};
             GRANT pg_read_server_files TO {role}; GRANT EXECUTE ON FUNCTION bulk_load TO {role};
             ALTER TABLE patient ENABLE ROW LEVEL SECURITY;
             CREATE POLICY low ON patient USING ((resource ->> 'multipleBirthInteger')::int <= 1000)"
        ),
    );
    let mut reader = database.connect_as(&role);
    assert_eq!(count(&mut reader, "SELECT count(*) FROM (SELECT bulk_dump('Patient')) AS d"), 1000);
    let url = database.file("allowed", patients(1..=1000).replace("Family", "Other"));
    assert_eq!(load(&mut reader, &url, "'Patient'"), r#"{"total": 1000}"#);
    let url = database.file("forbidden", patients(900..=1000) + &patients(5000..=5001));
    assert_error(&load_fails(&mut reader, &url, "'Patient'"), "42501", &["row-level security policy"]);
    let changed = "SELECT count(*) FROM patient WHERE resource::text ~ 'Other'";
    assert_eq!(count(&mut client, changed), 1000);
    assert_patients(&mut client, 2000);
}

#[test]
fn with_a_server_that_is_down_every_statement_says_which_and_jobs_go_on_when_it_is_back() {
    let servers = servers();
    let (database, mut client) = place(&servers, "far_down");
    load(&mut client, &database.file("first", patients(1..=1000)), "'Patient'");
    let url = database.file("second", patients(501..=3000));
    servers.far.stop_server("immediate");
    let mut session = database.connect();
    for options in ["{}", r#"{"update": true}"#] {
        let error = load_fails(&mut session, &url, &format!("'Patient', options => '{options}'"));
        assert_error(&error, "08001", &["far"]);
    }
    let error = crate::support::fails(&mut session, "SELECT bulk_dump('Patient')");
    assert_error(&error, "08001", &["far"]);
    import_with(&mut session, "job", &[("Patient", &url)], json!({}));
    let exported = export(&mut session, &json!({"_type": "Patient"}));
    wait_for("the import to have met the failure", || logged(servers.near, &["begins again", "import \"job\"", "far"]));
    wait_for("the export to have met the failure", || logged(servers.near, &["starts again", &exported, "far"]));
    assert_eq!(status(&mut session, "job")["status"], "active");
    assert_eq!(
        count(&mut session, "SELECT count(*) FROM patient_0 WHERE txid <> (SELECT min(txid) FROM patient_0)"),
        0
    );
    assert_eq!(files(&database), [""; 0]);
    servers.far.start_server();
    assert_eq!(inputs(&finish(&mut session, "job")), ["finished 2500"]);
    assert_eq!(finish_export(&mut session, &exported)["status"], "completed");
    assert_patients(&mut session, 3000);
}

#[test]
fn an_import_survives_kills_of_either_server() {
    const NUMBER: usize = 30_000;
    let servers = servers();
    let (database, mut client) = place(&servers, "far_kills");
    run(&mut client, "SET fhir_bulk.import_commit_rows = 1000");
    let url = database.file("all", patients(1..=NUMBER));
    import_with(&mut client, "job", &[("Patient", &url)], json!({"update": true}));
    for (number, server) in [servers.far, servers.near, servers.far].into_iter().enumerate() {
        wait_for_total(&mut client, "job", (number as u64 + 1) * 3000);
        server.kill_server();
        server.start_server();
        wait_for("the server to take connections", || connect(&servers.near.dsn("postgres", database.name())).is_ok());
        client = database.connect();
    }
    assert_eq!(inputs(&finish(&mut client, "job")), [format!("finished {NUMBER}")]);
    assert_patients(&mut client, NUMBER);
    assert_eq!(value(&mut client, "SELECT count(*) = count(DISTINCT (id, txid)) FROM patient_history"), "t");
}
