//! Loads and exports while Citus moves shards.

use super::importing::assert_patients;
use crate::exports::{done, ids, with_location_on};
use crate::job::{finish, import, inputs, wait_for_total};
use crate::nodes::{database, distributed, shared};
use crate::support::{count, load, patients, rows, run, value};
use fhir_bulk_tests::{Client, Database};
use serde_json::json;

/// Moves a shard of the patients, and with it those beside it, to the other worker.
fn move_a_shard(client: &mut Client, mode: &str) {
    let [first, second] = shared().workers.map(|worker| worker.port());
    let shard = rows(
        client,
        "SELECT shardid, nodeport FROM citus_shards WHERE table_name = 'patient'::regclass ORDER BY random() LIMIT 1",
    );
    let (shard, from) = shard[0].split_once('|').unwrap();
    let to = if from == first.to_string() { second } else { first };
    run(
        client,
        &format!("SELECT citus_move_shard_placement({shard}, '127.0.0.1', {from}, '127.0.0.1', {to}, '{mode}')"),
    );
}

fn place() -> (Database, Client) {
    let database = database();
    let _ = distributed(&database, "Patient");
    // What Citus decodes to move a shard without blocking needs this in each table; the key is one.
    with_location_on(database)
}

#[test]
fn an_import_goes_on_while_shards_move() {
    for (number, mode) in ["block_writes", "force_logical"].into_iter().enumerate() {
        let (database, mut client) = place();
        run(&mut client, "SET fhir_bulk.import_commit_rows = 2000");
        let url = database.file("patients", patients(1..=60_000));
        let id = format!("job-{number}");
        import(&mut client, &id, &[("Patient", &url)]);
        wait_for_total(&mut client, &id, 1);
        let mut other = database.connect();
        for _ in 0..2 {
            move_a_shard(&mut other, mode);
        }
        assert_eq!(inputs(&finish(&mut client, &id)), ["finished 60000"]);
        assert_patients(&mut client, 60_000);
    }
}

#[test]
fn a_load_waits_for_a_move_or_the_move_for_the_load_and_no_row_is_lost() {
    let (database, mut client) = place();
    load(&mut client, &database.file("first", patients(1..=2000)), "'Patient'");
    // The load holds the shards until it commits.
    run(&mut client, "BEGIN");
    load(&mut client, &database.file("second", patients(1001..=4000)), "'Patient', options => '{\"update\": true}'");
    let mut mover = database.connect();
    std::thread::scope(|scope| {
        let moving = scope.spawn(|| move_a_shard(&mut mover, "block_writes"));
        let mut watcher = database.connect();
        fhir_bulk_tests::wait_for("the move to wait or to be done", || {
            moving.is_finished()
                || count(
                    &mut watcher,
                    "SELECT count(*) FROM pg_locks WHERE NOT granted AND database =
                    (SELECT oid FROM pg_database WHERE datname = current_database())",
                ) > 0
                || count(
                    &mut watcher,
                    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%citus_move_shard%'
                    AND datname = current_database() AND pid <> pg_backend_pid() AND state = 'active'",
                ) > 0
        });
        run(&mut client, "COMMIT");
        moving.join().unwrap();
    });
    assert_patients(&mut client, 4000);
    assert_eq!(value(&mut client, "SELECT count(*) FROM patient_history"), "1000");
    // A plan of before the move is not used again.
    load(&mut client, &database.file("third", patients(3001..=5000)), "'Patient'");
    assert_patients(&mut client, 5000);
}

#[test]
fn an_export_beside_moves_has_every_resource_once() {
    let (database, mut client) = place();
    load(&mut client, &database.file("all", patients(1..=20_000)), "'Patient'");
    let mut mover = database.connect();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let over = fhir_bulk_tests::SetAtEnd(&over);
        scope.spawn(|| {
            while !over.0.load(std::sync::atomic::Ordering::Relaxed) {
                move_a_shard(&mut mover, "block_writes");
            }
        });
        for _ in 0..3 {
            let status = done(&mut client, &json!({"_type": "Patient"}));
            let found = ids(&mut client, &status, "Patient");
            assert_eq!(found.len(), 20_000);
            assert!(found.windows(2).all(|pair| pair[0] != pair[1]));
        }
    });
}
