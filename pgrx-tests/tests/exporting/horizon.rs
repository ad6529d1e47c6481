//! An export says what the next incremental export could miss.

use crate::job::{done, download, with_location_on};
use crate::support::run;
use fhir_bulk_tests::{Client, Cluster};
use serde_json::{Value, json};
use std::sync::OnceLock;

fn server() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(|| Cluster::start(&["wal_level = logical", "max_prepared_transactions = 5"]))
}

fn warnings(client: &mut Client, status: &Value) -> Vec<String> {
    let files = status["error"].as_array().unwrap();
    let lines = files.iter().flat_map(|file| {
        let text = String::from_utf8(download(client, &file["url"])).unwrap();
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    });
    lines.map(|outcome| outcome["issue"][0]["diagnostics"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_export_at_a_subscriber_warns_that_rows_come_later_with_earlier_times() {
    let publisher = server().database("publisher");
    let mut source = publisher.connect();
    run(&mut source, "SELECT bulk_create_table('Patient'); CREATE PUBLICATION p FOR TABLE patient");
    run(&mut source, "SELECT pg_create_logical_replication_slot('of_test', 'pgoutput')");
    let (_database, mut client) = with_location_on(server().database("subscriber"));
    run(&mut client, "SELECT bulk_create_table('Patient'), bulk_create_table('Device')");
    assert_eq!(done(&mut client, &json!({}))["error"], json!([]));
    // Without its own slot, since a server cannot wait for itself.
    run(
        &mut client,
        &format!(
            "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 port={} user=postgres dbname={}' PUBLICATION p
             WITH (create_slot = false, slot_name = 'of_test', copy_data = false)",
            server().port(),
            publisher.name()
        ),
    );
    let status = done(&mut client, &json!({}));
    let warnings = warnings(&mut client, &status);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("Patient receives changes of another server"), "{warnings:?}");
    assert_eq!(done(&mut client, &json!({"_type": "Device"}))["error"], json!([]));
    run(&mut client, "DROP SUBSCRIPTION s");
}

#[test]
fn an_export_beside_a_prepared_transaction_warns_that_its_start_is_not_known() {
    let (_database, mut client) = with_location_on(server().database("prepared"));
    run(
        &mut client,
        "SELECT bulk_create_table('Patient'); BEGIN;
         INSERT INTO patient (id, txid, status, resource) VALUES ('1', 1, 'created', '{}'); PREPARE TRANSACTION 'of test'",
    );
    let status = done(&mut client, &json!({}));
    let found = warnings(&mut client, &status);
    assert!(found.len() == 1 && found[0].contains("prepared for two-phase commit"), "{found:?}");
    run(&mut client, "COMMIT PREPARED 'of test'");
    assert_eq!(done(&mut client, &json!({}))["error"], json!([]));
}
