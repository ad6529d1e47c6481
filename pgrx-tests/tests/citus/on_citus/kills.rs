//! Each kind of server is killed at random moments; nothing is lost, and nothing is there twice.

use super::faults::{fragile, place};
use super::importing::assert_patients;
use crate::job::{finish, import_with, inputs, status};
use crate::nodes::wait_for_recovery;
use crate::support::{patients, run, value};
use fhir_bulk_tests::connect;
use serde_json::json;
use std::time::Duration;

/// How many kills; `FHIR_BULK_KILLS=30` for a night.
fn kills() -> usize {
    std::env::var("FHIR_BULK_KILLS").map_or(3, |number| number.parse().expect("FHIR_BULK_KILLS is a number"))
}

#[test]
fn an_import_survives_kills_of_each_server_at_random_moments() {
    let seed = std::env::var("FHIR_BULK_TEST_SEED").ok().map_or_else(
        || std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
        |seed| seed.parse().expect("FHIR_BULK_TEST_SEED is a number"),
    );
    println!("FHIR_BULK_TEST_SEED={seed}");
    let mut random = seed | 1;
    let mut below = |most: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % most
    };
    const NUMBER: usize = 20_000;
    let nodes = fragile();
    let (database, mut client) = place(&nodes);
    let url = database.file("all", patients(1..=NUMBER));
    let mut killed = 0;
    let mut rounds = 0;
    while killed < kills() {
        run(&mut client, "SET fhir_bulk.import_commit_rows = 700");
        // The first round creates, later ones replace and keep what they replace.
        rounds += 1;
        let id = format!("job-{rounds}");
        import_with(&mut client, &id, &[("Patient", &url)], json!({"update": true}));
        while killed < kills() {
            std::thread::sleep(Duration::from_micros(below(900_000)));
            if status(&mut client, &id)["status"] != "active" {
                break;
            }
            let node = nodes.all()[killed % 3];
            node.kill_server();
            std::thread::sleep(Duration::from_micros(below(300_000)));
            node.start_server();
            killed += 1;
            if connect(&database.cluster().dsn("postgres", database.name())).is_ok() {
                client = database.connect();
            }
        }
        let ended = finish(&mut client, &id);
        assert_eq!(inputs(&ended), [format!("finished {NUMBER}")], "after {killed} kills: {ended}");
        wait_for_recovery(&nodes, &database);
        assert_patients(&mut client, NUMBER);
        assert_eq!(
            value(&mut client, "SELECT count(*), count(DISTINCT (id, txid)) FROM patient_history"),
            format!("{0}|{0}", (rounds - 1) * NUMBER),
            "after {killed} kills"
        );
    }
}
