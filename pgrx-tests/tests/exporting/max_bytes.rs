//! The limit of an export's bytes (`fhir_bulk.export_max_bytes`).

use crate::job::{
    done, export, files, finish, patients_and_observations, wait_for_no_files, with_location, with_location_on,
};
use crate::support::{fails, run, value};
use fhir_bulk_tests::{Client, wait_for};
use serde_json::{Value, json};

fn bytes(status: &Value) -> u64 {
    let files = ["output", "deleted", "error"].into_iter().flat_map(|name| status[name].as_array().unwrap());
    files.map(|file| file["fileSize"].as_u64().unwrap()).sum()
}

fn outgrown(client: &mut Client, request: &Value, most: u64) {
    let id = export(client, request);
    let status = finish(client, &id);
    assert_eq!(status["status"], "failed", "{status}");
    let error = status["error"].as_str().unwrap();
    assert!(error.contains(&format!("more than {most} bytes")), "{error}");
}

#[test]
fn an_export_may_have_as_many_bytes_as_the_limit_and_one_more_leaves_nothing() {
    let (database, mut client) = with_location();
    patients_and_observations(&mut client, 20_000);
    run(
        &mut client,
        "INSERT INTO observation (id, txid, ts, status, resource) VALUES ('gone', 9, now(), 'deleted', '{}')",
    );
    for (request, workers) in [
        (json!({"fileSizes": true}), 1),
        (json!({"fileSizes": true}), 2),
        (json!({"fileSizes": true, "contentEncoding": "gzip"}), 2),
        // One file of all types; deletions; what tells of queries that were left out.
        (json!({"resourceTypes": ["Patient", "Observation"]}), 2),
        (json!({"fileSizes": true, "_since": "2000-01-01", "lenient": true, "_typeFilter": ["Patient?nothing=1"]}), 2),
    ] {
        run(&mut client, &format!("SET fhir_bulk.export_workers = {workers}; RESET fhir_bulk.export_max_bytes"));
        let status = done(&mut client, &request);
        let total = if request["resourceTypes"].is_null() {
            bytes(&status)
        } else {
            let url = status["downloadUrl"].as_str().unwrap();
            value(&mut client, &format!("SELECT sum(length(f)) FROM bulk_export_file('{url}') f")).parse().unwrap()
        };
        run(&mut client, &format!("SET fhir_bulk.export_max_bytes = '{total}B'"));
        let kept = done(&mut client, &request);
        for status in [&status, &kept] {
            let id = status["jobId"].as_str().unwrap();
            assert_eq!(value(&mut client, &format!("SELECT bulk_export_cancel('{id}')")), "t");
        }
        wait_for_no_files(&database);
        run(&mut client, &format!("SET fhir_bulk.export_max_bytes = {}", total - 1));
        outgrown(&mut client, &request, total - 1);
        wait_for_no_files(&database);
    }
    assert_eq!(files(&database), [""; 0]);
}

#[test]
fn the_limit_is_the_administrators_and_the_one_of_when_the_export_was_asked_for() {
    let (database, mut client) = with_location_on(crate::job::own_server().database("limited"));
    patients_and_observations(&mut client, 100);
    let role = database.role("app");
    run(
        &mut client,
        &format!(
            "GRANT SELECT ON patient TO {role}; GRANT EXECUTE ON FUNCTION bulk_export TO {role};
             ALTER ROLE {role} SET fhir_bulk.export_max_bytes = '1kB'"
        ),
    );
    let mut app = database.connect_as(&role);
    outgrown(&mut app, &json!({"_type": "Patient"}), 1024);
    assert_eq!(fails(&mut app, "SET fhir_bulk.export_max_bytes = 0").code().code(), "42501");
    done(&mut client, &json!({"_type": "Patient"}));
    for wrong in ["-1", "'1 parsec'"] {
        assert_eq!(fails(&mut client, &format!("SET fhir_bulk.export_max_bytes = {wrong}")).code().code(), "22023");
    }
    run(&mut client, "SET fhir_bulk.export_max_bytes = '5TB'");
    assert_eq!(value(&mut client, "SHOW fhir_bulk.export_max_bytes"), "5TB");
    wait_for_no_files_of_others(&database);
}

/// Only the superuser's export has files.
fn wait_for_no_files_of_others(database: &fhir_bulk_tests::Database) {
    wait_for("one file", || files(database).len() == 1);
}
