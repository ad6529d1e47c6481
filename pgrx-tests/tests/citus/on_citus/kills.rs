//! Each kind of server is killed at random moments; nothing is lost, and nothing is there twice.

use super::faults::{fragile, place};
use super::importing::assert_patients;
use crate::job::{finish, import_with, inputs, status};
use crate::nodes::wait_for_recovery;
use crate::support::{patients, run, value};
use fhir_bulk_tests::citus::Nodes;
use fhir_bulk_tests::kills::{self, Random};
use fhir_bulk_tests::{Client, Database, connect};
use serde_json::json;
use std::time::Duration;

/// Kills one server after another and starts it again, at random moments at most so many milliseconds apart, as long as something
/// is at work, from so many kills up to so many. The session is a new one if it was the killed server's. Returns how many were
/// killed.
pub fn kill_while(
    nodes: &Nodes,
    database: &Database,
    (mut killed, kills): (usize, usize),
    random: &mut Random,
    apart: u64,
    client: &mut Client,
    mut is_at_work: impl FnMut(&mut Client) -> bool,
) -> usize {
    while killed < kills {
        random.sleep(Duration::from_millis(apart));
        if !is_at_work(client) {
            break;
        }
        let node = nodes.all()[killed % 3];
        node.kill_server();
        random.sleep(Duration::from_millis(300));
        node.start_server();
        killed += 1;
        if connect(&database.cluster().dsn("postgres", database.name())).is_ok() {
            *client = database.connect();
        }
    }
    killed
}

/// So many patients are there, and each version of them that so many rounds of imports have replaced, once.
pub fn assert_versions(client: &mut Client, patients: usize, rounds: usize, killed: usize) {
    assert_patients(client, patients);
    assert_eq!(
        value(client, "SELECT count(*), count(DISTINCT (id, txid)) FROM patient_history"),
        format!("{0}|{0}", (rounds - 1) * patients),
        "after {killed} kills"
    );
}

#[test]
fn an_import_survives_kills_of_each_server_at_random_moments() {
    let mut random = Random::from_environment();
    let kills = kills::number();
    const NUMBER: usize = 20_000;
    let nodes = fragile();
    let (database, mut client) = place(&nodes);
    let url = database.file("all", patients(1..=NUMBER));
    let mut killed = 0;
    let mut rounds = 0;
    while killed < kills {
        run(&mut client, "SET fhir_bulk.import_commit_rows = 700");
        // The first round creates, later ones replace and keep what they replace.
        rounds += 1;
        let id = format!("job-{rounds}");
        import_with(&mut client, &id, &[("Patient", &url)], json!({"update": true}));
        killed = kill_while(&nodes, &database, (killed, kills), &mut random, 900, &mut client, |client| {
            status(client, &id)["status"] == "active"
        });
        let ended = finish(&mut client, &id);
        assert_eq!(inputs(&ended), [format!("finished {NUMBER}")], "after {killed} kills: {ended}");
        wait_for_recovery(&nodes, &database);
        assert_versions(&mut client, NUMBER, rounds, killed);
    }
}
