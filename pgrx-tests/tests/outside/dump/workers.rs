//! `fhir_bulk.dump_workers`: the lines are made beside the session, and nothing else is different.

use crate::support::{aidbox_tables, assert_error, fails, rows, run, value};
use fhir_bulk_tests::{Client, Database, gunzip, wait_for};
use std::io::Read as _;

/// Several pieces of rows of many sizes, some with columns that are NULL.
fn observations() -> (Database, Client) {
    let database = Database::new();
    let mut client = database.connect();
    aidbox_tables(&mut client, &["Observation"]);
    run(
        &mut client,
        r#"INSERT INTO observation (id, txid, ts, cts, status, resource)
           SELECT 'o-' || n, n, now() - n * interval '1 second', now() - n * interval '1 minute',
                  (CASE n % 10 WHEN 0 THEN 'deleted' ELSE 'created' END)::resource_status,
                  jsonb_build_object('valueString', repeat('größer ', CASE WHEN n % 997 = 5 THEN 90000 ELSE n % 300 END),
                      'n', n, 'subject', jsonb_build_object('id', n::text, 'resourceType', 'Patient'), 'path', E'C:\\x"\t\n')
           FROM generate_series(1, 5000) n"#,
    );
    (database, client)
}

fn body(client: &mut Client, workers: usize, arguments: &str) -> Vec<u8> {
    run(client, &format!("SET fhir_bulk.dump_workers = {workers}"));
    let chunks = client.query(&format!("SELECT bulk_dump_chunks('Observation', {arguments})"), &[]).unwrap();
    chunks.iter().flat_map(|row| row.get::<_, Vec<u8>>(0)).collect()
}

fn copy(client: &mut Client, workers: usize, options: &str) -> Vec<u8> {
    run(client, &format!("SET fhir_bulk.dump_workers = {workers}"));
    let mut body = Vec::new();
    client.copy_out(&format!("COPY observation TO STDOUT ({options})")).unwrap().read_to_end(&mut body).unwrap();
    body
}

#[test]
fn the_body_is_the_same_with_any_number_of_workers() {
    let (_database, mut client) = observations();
    for arguments in [
        "fhir => true",
        "fhir => false",
        "fhir => true, gzip => true",
        "fhir => true, chunk_bytes => 1024",
        "fhir => true, filter => 'subject=Patient/77,Patient/78'",
        "fhir => true, since => now() - interval '3 minutes'",
    ] {
        let expected = body(&mut client, 0, arguments);
        assert!(!expected.is_empty());
        for workers in [1, 2, 16] {
            let found = body(&mut client, workers, arguments);
            let is_same =
                if arguments.contains("gzip") { gunzip(&found) == gunzip(&expected) } else { found == expected };
            assert!(is_same, "{workers} workers, {arguments}");
        }
    }
    for options in ["FORMAT fhir", "FORMAT aidbox", "FORMAT fhir, FILTER 'subject=Patient/77'"] {
        let expected = copy(&mut client, 0, options);
        for workers in [1, 3] {
            assert!(copy(&mut client, workers, options) == expected, "{workers} workers, {options}");
        }
    }
    // A table of one piece, and an empty one, need no thread.
    for condition in ["n > 3", "true"] {
        run(
            &mut client,
            &format!("DELETE FROM observation WHERE (resource ->> 'n')::int > 3 OR {}", condition == "true"),
        );
        assert!(body(&mut client, 4, "fhir => true") == body(&mut client, 0, "fhir => true"), "{condition}");
    }
}

/// How many threads the session's process has.
fn threads(pid: &str) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

#[test]
fn a_dump_that_ends_early_leaves_no_thread() {
    let (_database, mut client) = observations();
    let pid = value(&mut client, "SELECT pg_backend_pid()");
    run(&mut client, "SET fhir_bulk.dump_workers = 3");
    let before = threads(&pid);
    run(
        &mut client,
        "BEGIN; DECLARE c CURSOR FOR SELECT bulk_dump_chunks('Observation', fhir => true, chunk_bytes => 65536); FETCH 2 FROM c",
    );
    assert_eq!(threads(&pid), before + 3);
    // What a cursor has not read yet does not keep the session from writing.
    run(&mut client, "UPDATE observation SET txid = 0 WHERE id = 'o-4999'; FETCH 1 FROM c; CLOSE c; COMMIT");
    wait_for("the threads to end", || threads(&pid) == before);
    run(&mut client, "SELECT bulk_dump_chunks('Observation', fhir => true) LIMIT 1");
    wait_for("the threads to end", || threads(&pid) == before);
    run(&mut client, "BEGIN; DECLARE c CURSOR FOR SELECT bulk_dump_chunks('Observation'); FETCH 2 FROM c; SAVEPOINT s");
    fails(&mut client, "SELECT 1 / 0");
    run(&mut client, "ROLLBACK");
    wait_for("the threads to end", || threads(&pid) == before);
}

#[test]
fn a_row_that_is_no_object_is_the_same_error() {
    let (_database, mut client) = observations();
    run(&mut client, "UPDATE observation SET resource = '[]' WHERE id = 'o-4444'");
    for workers in [0, 1, 4] {
        run(&mut client, &format!("SET fhir_bulk.dump_workers = {workers}"));
        let error = fails(&mut client, "SELECT bulk_dump_chunks('Observation', fhir => true)");
        assert_error(&error, "22023", &["Observation", "o-4444"]);
        let mut rows = client.copy_out("COPY observation TO STDOUT (FORMAT fhir)").unwrap();
        let failed = rows.read_to_end(&mut Vec::new()).unwrap_err();
        assert!(failed.to_string().contains("o-4444") || format!("{failed:?}").contains("o-4444"), "{failed:?}");
        drop(rows);
    }
}

#[test]
fn policies_and_rights_are_those_of_the_session() {
    let (database, mut client) = observations();
    let role = database.role("reader");
    run(
        &mut client,
        &format!(
            "GRANT SELECT ON observation TO {role}; ALTER TABLE observation ENABLE ROW LEVEL SECURITY;
             CREATE POLICY few ON observation TO {role} USING (txid % 100 = 1)"
        ),
    );
    let mut reader = database.connect_as(&role);
    let lines = body(&mut reader, 3, "fhir => true");
    assert_eq!(lines.split(|byte| *byte == b'\n').count() - 1, 50);
    run(&mut client, &format!("REVOKE SELECT ON observation FROM {role}"));
    assert_error(&fails(&mut reader, "SELECT bulk_dump_chunks('Observation')"), "42501", &["observation"]);
}

#[test]
fn a_dump_by_threads_can_be_cancelled() {
    let (database, mut client) = observations();
    run(
        &mut client,
        "INSERT INTO observation (id, txid, status, resource)
        SELECT 'm-' || n, n, 'created', o.resource FROM generate_series(1, 200) n, observation o WHERE o.id = 'o-5'",
    );
    let pid = value(&mut client, "SELECT pg_backend_pid()");
    let before = threads(&pid);
    run(&mut client, "SET fhir_bulk.dump_workers = 2; SET statement_timeout = '20ms'");
    assert_error(
        &fails(
            &mut client,
            "SELECT count(length(c)) FROM (SELECT bulk_dump_chunks('Observation', fhir => true) AS c) d",
        ),
        "57014",
        &[],
    );
    wait_for("the threads to end", || threads(&pid) == before);
    assert_eq!(rows(&mut database.connect(), "SELECT count(*) FROM observation"), ["5200"]);
}
