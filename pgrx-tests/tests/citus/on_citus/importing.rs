//! Imports into distributed tables.

use crate::job::{finish, import, import_with, inputs};
use crate::nodes::{database, distributed, with_patients};
use crate::support::{patients, rows, run, value};
use serde_json::json;

/// That table `patient` has exactly the patients `p-1` to `p-<number>`, each once and as its line has it.
pub fn assert_patients(client: &mut fhir_bulk_tests::Client, number: usize) {
    let found = rows(
        client,
        "SELECT count(*), count(DISTINCT id), sum((resource ->> 'multipleBirthInteger')::bigint),
                count(*) FILTER (WHERE id <> 'p-' || (resource ->> 'multipleBirthInteger')) FROM patient",
    );
    assert_eq!(found, [format!("{number}|{number}|{}|0", number * (number + 1) / 2)]);
}

#[test]
fn inputs_of_several_types_arrive_by_several_workers_and_commits() {
    let database = database();
    let mut client = distributed(&database, "Patient");
    run(&mut client, "SET fhir_bulk.import_commit_rows = 1500");
    let first = database.file("first", patients(1..=8000));
    let second = database.file("second", patients(8001..=16_000));
    let device = database.file("device", patients(1..=4000).replace("\"Patient\"", "\"Device\""));
    let bad = database.file("bad", "bad\n");
    import(&mut client, "job", &[("Patient", &first), ("Patient", &second), ("Device", &device), ("Group", &bad)]);
    let status = finish(&mut client, "job");
    assert_eq!(inputs(&status), ["finished 8000", "finished 8000", "finished 4000", "failed 0"], "{status}");
    assert_patients(&mut client, 16_000);
    assert_eq!(value(&mut client, "SELECT count(*), count(DISTINCT txid) > 1 FROM device"), "4000|t");
    let shards = "SELECT count(*) FROM pg_dist_partition WHERE logicalrelid::text IN ('device', 'device_history')";
    assert_eq!(value(&mut client, shards), "2", "the workers have the setting of the session");
}

#[test]
fn an_import_of_known_resources_keeps_their_versions() {
    let (database, mut client) = with_patients();
    let url = database.file("patients", patients(1..=5000));
    run(&mut client, "SET fhir_bulk.import_commit_rows = 2000");
    for (id, mode) in [("first", "bulk"), ("second", "bulk"), ("third", "transaction")] {
        import_with(&mut client, id, &[("Patient", &url)], json!({"update": true, "mode": mode}));
        assert_eq!(inputs(&finish(&mut client, id)), ["finished 5000"]);
    }
    assert_patients(&mut client, 5000);
    assert_eq!(
        value(&mut client, "SELECT count(*), count(DISTINCT id), count(DISTINCT (id, txid)) FROM patient_history"),
        "10000|5000|10000"
    );
}
