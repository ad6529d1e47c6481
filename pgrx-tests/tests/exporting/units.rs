//! That a large table is written by several processes at once, as it would be by one.

use crate::job::{
    close_gate, done, dump, export, finish, gated, ids, lines, wait_for_readers, with_location, with_location_on,
};
use crate::support::{assert_error, count, fails, run};
use fhir_bulk_tests::{Client, Cluster, wait_for};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A text of 512 bytes, which stays in its row.
const RESOURCE: &str = "jsonb_build_object('text', repeat(md5(n::text), 16))";

/// A statement that inserts rows of a plain resource table, about 1700 in a MB.
fn insert(table: &str, resource: &str, numbers: std::ops::RangeInclusive<u32>) -> String {
    format!(
        "INSERT INTO {table} (id, txid, cts, ts, status, resource)
         SELECT n, 1, '2024-01-01Z', '2024-01-01Z', 'created', {resource} FROM generate_series({}, {}) n",
        numbers.start(),
        numbers.end()
    )
}

/// Patients for several processes.
fn patients(client: &mut Client) {
    run(client, "SELECT bulk_create_table('Patient')");
    run(client, &insert("patient", RESOURCE, 1..=40_000));
}

/// The numbers of a type's files in the order of the manifest.
fn numbers(status: &Value, resource_type: &str, ending: &str) -> Vec<usize> {
    let number = |file: &Value| {
        let name = file["url"].as_str().unwrap().split('?').next().unwrap().rsplit('/').next().unwrap();
        let number = name.strip_prefix(resource_type).and_then(|rest| rest.strip_prefix('.'));
        number.and_then(|rest| rest.strip_suffix(ending)).unwrap_or_else(|| panic!("{name}")).parse().unwrap()
    };
    status["output"].as_array().unwrap().iter().filter(|file| file["type"] == resource_type).map(number).collect()
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

#[test]
fn a_table_shared_by_two_processes_loses_and_repeats_no_row_while_others_write() {
    let (database, mut client) = with_location();
    run(&mut client, "SELECT bulk_create_table('Patient'), bulk_create_table('Device')");
    run(&mut client, &insert("device", RESOURCE, 1..=17_000));
    let row = format!("ROW({RESOURCE})::gated");
    gated(&mut client, &database, "Patient").open();
    // Versions in chains within a page and beyond it, holes, rows of many pages, and pages of nothing but dead rows.
    run(&mut client, &insert("patient", &row, 1..=40_000));
    run(&mut client, "DELETE FROM patient WHERE id::int % 5 = 3");
    run(&mut client, "VACUUM patient");
    for divisor in [7, 14] {
        run(
            &mut client,
            &format!("UPDATE patient SET txid = txid + 1, status = 'updated' WHERE id::int % {divisor} = 0"),
        );
    }
    run(&mut client, "UPDATE patient SET status = 'deleted' WHERE id::int % 11 = 0");
    let long = "ROW(jsonb_build_object('text', (SELECT string_agg(md5(n::text || i), '') FROM generate_series(1, 3000) i)))::gated";
    run(&mut client, &insert("patient", long, 50_001..=50_020));
    run(&mut client, &format!("BEGIN; {}; ROLLBACK", insert("patient", &row, 60_001..=66_000)));
    run(&mut client, &insert("patient", &row, 70_001..=70_100));
    let expected = sorted(dump(&mut client, "Patient"));
    assert!(expected.len() > 25_000);

    let gate = close_gate(&database);
    run(&mut client, "SET fhir_bulk.export_workers = 2");
    let id = export(&mut client, &json!({"_type": "Patient,Device"}));
    wait_for_readers(&mut client, 2);
    let mut writer = database.connect();
    run(&mut writer, "UPDATE patient SET txid = 99 WHERE id::int % 3 = 0; DELETE FROM patient WHERE id::int % 4 = 0");
    run(&mut writer, &insert("patient", &row, 80_001..=95_000));
    run(&mut writer, "DELETE FROM device WHERE id::int > 16000");
    run(&mut writer, "VACUUM patient");
    // Nobody has read a block of it yet.
    assert_error(&fails(&mut writer, "SET lock_timeout = '50ms'; CLUSTER device USING device_pkey"), "55P03", &[]);
    gate.open();

    let status = finish(&mut client, &id);
    assert_eq!(status["status"], "completed", "{status}");
    let written = sorted(lines(&mut client, &status, "Patient"));
    let (ours, theirs): (BTreeSet<_>, BTreeSet<_>) = (written.iter().collect(), expected.iter().collect());
    assert_eq!(ours.difference(&theirs).next(), None, "nobody had committed this");
    assert_eq!(theirs.difference(&ours).next(), None, "this is lost");
    assert_eq!(written.len(), expected.len(), "a row is there twice");
    assert_eq!(ids(&mut client, &status, "Device").len(), 17_000);
    for resource_type in ["Patient", "Device"] {
        let numbers = numbers(&status, resource_type, ".ndjson");
        assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>());
        assert!((2..=8).contains(&numbers.len()), "{numbers:?}");
    }
}

#[test]
fn parts_of_a_table_have_files_of_different_numbers_also_when_they_are_split_at_their_size() {
    let (_database, mut client) = with_location();
    patients(&mut client);
    run(&mut client, "SET fhir_bulk.export_workers = 2; SET fhir_bulk.export_file_size = '1MB'");
    let expected = sorted(dump(&mut client, "Patient"));
    for (encoding, ending) in [("plain", ".ndjson"), ("gzip", ".ndjson.gz")] {
        let status = done(&mut client, &json!({"_type": "Patient", "contentEncoding": encoding}));
        let numbers = numbers(&status, "Patient", ending);
        assert!(numbers.len() > 2 && numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
        assert_eq!(sorted(lines(&mut client, &status, "Patient")), expected);
    }
}

#[test]
fn who_writes_a_part_reads_no_block_of_the_others() {
    let (database, mut client) = with_location();
    // A load into a table without a key would read it to make one, which is counted some time later.
    run(&mut client, "SELECT bulk_create_table('Patient')");
    patients(&mut client);
    run(&mut client, "SET fhir_bulk.export_workers = 2");
    let read = "SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables WHERE relname = 'patient'";
    let whole = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'patient'";
    // What this session itself has read so far is counted now, and not while the export runs.
    run(&mut client, "SELECT pg_stat_force_next_flush()");
    let before = (count(&mut client, read), count(&mut client, whole));
    let status = done(&mut client, &json!({"_type": "Patient"}));
    assert!(numbers(&status, "Patient", ".ndjson").len() > 1, "{status}");
    // Other sessions see what a process has read when its transaction is over.
    let mut other = database.connect();
    wait_for("what was read", || count(&mut other, read) - before.0 >= 40_000);
    assert_eq!((count(&mut other, read), count(&mut other, whole)), (before.0 + 40_000, before.1));
}

#[test]
fn what_one_process_writes_is_one_file_in_the_order_of_the_table() {
    let (_database, mut client) = with_location();
    patients(&mut client);
    let expected = dump(&mut client, "Patient");
    run(&mut client, "SET fhir_bulk.export_workers = 1");
    let status = done(&mut client, &json!({"_type": "Patient"}));
    assert_eq!(numbers(&status, "Patient", ".ndjson"), [1]);
    assert_eq!(lines(&mut client, &status, "Patient"), expected);
    // What changed within some time is looked for once.
    run(&mut client, "SET fhir_bulk.export_workers = 2; UPDATE patient SET ts = '2024-06-01Z' WHERE id::int % 100 = 0");
    for (request, found) in [
        (json!({"_type": "Patient", "_since": "2024-06-01T00:00:00Z"}), 400),
        (json!({"_type": "Patient", "_until": "2024-06-01T00:00:00Z"}), 39_600),
    ] {
        let status = done(&mut client, &request);
        assert_eq!(numbers(&status, "Patient", ".ndjson"), [1], "{request}");
        assert_eq!(ids(&mut client, &status, "Patient").len(), found);
    }
}

#[test]
fn a_server_with_no_process_to_spare_gives_the_files_of_one() {
    let server = Box::leak(Box::new(Cluster::start(&["max_connections = 30", "max_parallel_workers = 0"])));
    let (_database, mut client) = with_location_on(server.database("no_helpers"));
    patients(&mut client);
    run(&mut client, "SELECT bulk_create_table('Device')");
    run(&mut client, &insert("device", RESOURCE, 1..=3));
    let expected = dump(&mut client, "Patient");
    run(&mut client, "SET fhir_bulk.export_workers = 4");
    let status = done(&mut client, &json!({"_type": "Patient,Device"}));
    assert_eq!(numbers(&status, "Patient", ".ndjson"), [1]);
    assert_eq!(lines(&mut client, &status, "Patient"), expected);
    assert_eq!(ids(&mut client, &status, "Device"), ["1", "2", "3"]);
}
