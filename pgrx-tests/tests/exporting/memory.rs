//! How much memory the processes of an export take.

use crate::job::{done, with_location};
use crate::support::{rows, run};
use fhir_bulk_tests::memory::anonymous;
use fhir_bulk_tests::{Client, Database, SetAtEnd};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The most memory that a worker of the database, or a process that helps it, has while an export runs, in bytes.
fn most(database: &Database, client: &mut Client, request: &Value) -> i64 {
    let (mut watcher, ended) = (database.connect(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !ended.load(Ordering::Relaxed) {
                let pids = rows(
                    &mut watcher,
                    "SELECT pid FROM pg_stat_activity WHERE datname = current_database()
                     AND backend_type IN ('fhir_bulk job worker', 'parallel worker')",
                );
                most = pids.iter().filter_map(|pid| anonymous(pid.parse().unwrap())).fold(most, i64::max);
                std::thread::sleep(Duration::from_millis(2));
            }
            most
        });
        let end = SetAtEnd(&ended);
        done(client, request);
        drop(end);
        watch.join().unwrap()
    })
}

#[test]
fn a_group_of_a_hundred_thousand_takes_little_more_memory_than_an_export_of_everything() {
    let (database, mut client) = with_location();
    run(
        &mut client,
        "SELECT bulk_create_table(t) FROM unnest('{Patient,Observation,Group}'::text[]) t;
         INSERT INTO patient (id, txid, ts, status, resource) SELECT gen_random_uuid(), n, '2020-01-01Z', 'created', '{}' FROM generate_series(1, 100000) n;
         INSERT INTO observation (id, txid, ts, status, resource) SELECT 'o' || row_number() OVER (), 1, '2020-01-01Z', 'created',
             jsonb_build_object('subject', jsonb_build_object('id', id, 'resourceType', 'Patient')) FROM patient, generate_series(1, 2);
         INSERT INTO \"group\" (id, txid, status, resource) SELECT 'g', 1, 'created', jsonb_build_object('member', jsonb_agg(
             jsonb_build_object('entity', jsonb_build_object('id', id, 'resourceType', 'Patient'), 'period', jsonb_build_object('start', '2024-01-01')))) FROM patient",
    );
    for workers in [1, 2] {
        run(&mut client, &format!("SET fhir_bulk.export_workers = {workers}"));
        let types = "Patient,Observation";
        let system = most(&database, &mut client, &json!({"_type": types}));
        let group = most(&database, &mut client, &json!({"level": "group", "group": "g", "_type": types}));
        assert!(system > 1 << 20 && group > 1 << 20, "the processes were not seen: {system}, {group}");
        let more = (group - system) >> 20;
        eprintln!("{workers} workers: {} MB for everything, {more} MB more for the Group", system >> 20);
        assert!(more < 64, "with {workers} workers the Group takes {more} MB more");
        // All of them are new, so there are two sets of them.
        run(&mut client, "SET fhir_bulk.group_since_new_members = on");
        let request = json!({"level": "group", "group": "g", "_type": types, "_since": "2023-01-01"});
        let more = (most(&database, &mut client, &request) - system) >> 20;
        eprintln!("{workers} workers: {more} MB more with new members");
        assert!(more < 64, "with {workers} workers new members take {more} MB more");
    }
}

#[test]
fn the_newest_provenance_of_two_hundred_thousand_resources_takes_little_memory() {
    let (database, mut client) = with_location();
    run(
        &mut client,
        "SELECT bulk_create_table(t) FROM unnest('{Patient,Provenance}'::text[]) t;
         INSERT INTO patient (id, txid, status, resource) SELECT gen_random_uuid(), n, 'created', '{}' FROM generate_series(1, 200000) n;
         INSERT INTO provenance (id, txid, status, resource) SELECT gen_random_uuid(), 1, 'created', jsonb_build_object('recorded', '2024-01-01',
             'target', jsonb_build_array(jsonb_build_object('id', id, 'resourceType', 'Patient'))) FROM patient; ANALYZE",
    );
    run(&mut client, "SET fhir_bulk.export_workers = 1");
    let without = most(&database, &mut client, &json!({"_type": "Patient,Provenance"}));
    let associated = json!({"_type": "Patient", "includeAssociatedData": "LatestProvenanceResources"});
    let more = (most(&database, &mut client, &associated) - without) >> 20;
    eprintln!("{} MB without, {more} MB more with the newest Provenance", without >> 20);
    assert!(more < 64, "the newest Provenance takes {more} MB more");
}
