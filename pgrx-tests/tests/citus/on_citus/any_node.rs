//! Loads on the workers: the same rows, with numbers that no other load has.

use super::importing::assert_patients;
use crate::nodes::{database, distributed, shared, with_patients};
use crate::support::{assert_error, count, load, load_fails, patients, rows, run, value};

const NUMBERS: &str = "SELECT min(txid), max(txid), count(*) FROM patient GROUP BY txid ORDER BY 1";

#[test]
fn loads_on_all_nodes_count_versions_by_one_sequence() {
    let (database, mut client) = with_patients();
    let [first, second, third] = [1..=3000, 3001..=6000, 5001..=9000].map(patients);
    let [first, second, third] =
        [("first", first), ("second", second), ("third", third)].map(|(name, lines)| database.file(name, lines));
    let [mut one, mut two] = [0, 1].map(|number| shared().on_worker(number, &database));
    assert_eq!(load(&mut one, &first, "'Patient'"), r#"{"total": 3000}"#);
    assert_eq!(load(&mut client, &second, "'Patient'"), r#"{"total": 3000}"#);
    assert_eq!(load(&mut two, &third, "'Patient', options => '{\"update\": true}'"), r#"{"total": 4000}"#);
    assert_patients(&mut client, 9000);
    assert_eq!(rows(&mut client, NUMBERS), ["1|1|3000", "2|2|2000", "3|3|4000"]);
    assert_eq!(rows(&mut two, "SELECT txid, count(*) FROM patient_history GROUP BY 1"), ["2|1000"]);
    // Nobody made a sequence of the workers' own.
    for worker in [&mut one, &mut two] {
        assert_eq!(count(worker, "SELECT count(*) FROM pg_class WHERE relname = 'transaction_id_seq'"), 0);
    }
    for (path, number) in [("set", 4), ("staged", 5)] {
        run(&mut one, &format!("SET fhir_bulk.write_path = {path}"));
        assert_eq!(load(&mut one, &first, "'Patient'"), r#"{"total": 3000}"#);
        assert_eq!(value(&mut client, "SELECT DISTINCT txid FROM patient WHERE id = 'p-3000'"), number.to_string());
    }
    let bad = database.file("bad", patients(9001..=9500) + "bad\n");
    assert_error(&load_fails(&mut one, &bad, "'Patient'"), "22P02", &["line 501"]);
    assert_patients(&mut client, 9000);
}

#[test]
fn a_load_on_a_worker_makes_tables_that_all_nodes_have() {
    let database = database();
    let mut client = distributed(&database, "Patient");
    let mut worker = shared().on_worker(1, &database);
    let lines = patients(1..=500) + &patients(501..=900).replace("\"Patient\"", "\"Device\"");
    let url = database.file("all", lines);
    run(&mut worker, "SET fhir_bulk.distribute_tables = off");
    let failed = load_fails(&mut worker, &url, "null");
    assert_error(&failed, "42P01", &["Device"]);
    assert!(failed.detail().unwrap_or_default().contains("worker of Citus"), "{failed:?}");
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 0);
    run(&mut worker, "SET fhir_bulk.distribute_tables = on");
    assert_eq!(load(&mut worker, &url, "null"), r#"{"Device": 400, "Patient": 500}"#);
    assert_eq!(value(&mut client, "SELECT count(*), count(DISTINCT txid) FROM device"), "400|1");
    let distributed = "SELECT count(*) FROM pg_dist_partition WHERE logicalrelid::text IN ('device', 'device_history')";
    assert_eq!(value(&mut client, distributed), "2");
}

#[test]
fn a_role_without_the_right_to_count_on_the_coordinator_is_told_which_node_it_lacks_it_on() {
    let (database, mut client) = with_patients();
    let role = database.role("loader");
    run(&mut client, "CREATE SEQUENCE IF NOT EXISTS transaction_id_seq");
    let grant = format!("GRANT pg_read_server_files TO {role}; GRANT SELECT, INSERT, UPDATE ON patient TO {role}");
    run(&mut client, &grant);
    let execute = format!("GRANT EXECUTE ON FUNCTION bulk_load TO {role}");
    run(&mut shared().on_worker(0, &database), &execute);
    let url = database.file("patients", patients(1..=30));
    let mut worker = shared().workers[0].connect(&role, database.name());
    let failed = load_fails(&mut worker, &url, "'Patient'");
    let coordinator = format!("127.0.0.1:{}", shared().coordinator.port());
    assert_error(&failed, "42501", &["transaction_id_seq", &coordinator]);
    run(&mut client, &format!("GRANT USAGE ON SEQUENCE transaction_id_seq TO {role}"));
    assert_eq!(load(&mut worker, &url, "'Patient'"), r#"{"total": 30}"#);
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 30);
}
