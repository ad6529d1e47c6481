//! A backend's memory does not grow with the data, and errors free what they used.

use crate::support::{count, fails, load_fails, load_sql, patient, patients, rows, run};
use fhir_bulk_tests::memory::{self, growth};
use fhir_bulk_tests::{Client, Cluster, Database, gzip, is_without};
use std::io::Read as _;

/// How much a backend may grow.
const GROWTH: i64 = 64 << 20;

/// A view that has all of a patient.
const VIEW: &str = r#"{"resource": "Patient", "select": [{"column": [{"name": "id", "path": "id"},
    {"name": "born", "path": "birthDate"}, {"name": "name", "path": "name.first()"}]}]}"#;

fn anonymous(pid: i64) -> i64 {
    memory::anonymous(pid).expect("a living backend")
}

fn pid(client: &mut Client) -> i64 {
    count(client, "SELECT pg_backend_pid()")
}

#[test]
#[should_panic(expected = "of the work")]
fn work_that_panics_ends_its_watch() {
    let mut client = Database::new().connect();
    growth(&mut client, |_| panic!("of the work"));
}

/// Patients of some 1,000 bytes; 150 MB of them.
fn large_file() -> String {
    let filler = "Lorem ipsum dolor sit amet, consetetur sadipscing elitr. ".repeat(14);
    (0..170_000).map(|n| patient(&format!("p-{n}"), n).replace("1970-01-01", &filler) + "\n").collect()
}

#[test]
fn loads_and_dumps_of_150_mb_do_not_grow_a_backend() {
    let database = Database::new();
    let large = large_file();
    assert!(large.len() > 140 << 20);
    let small = database.file("small", patients(1..=5000));
    let plain = database.file("plain", &large);
    let compressed = database.file("gzip", gzip(large.as_bytes()));
    drop(large);
    let mut client = database.connect();
    rows(&mut client, &load_sql(&small, "'Patient'"));
    let mut grown = Vec::new();
    for (name, url) in [("insert", &plain), ("update", &compressed)] {
        let load =
            |client: &mut Client| assert_eq!(rows(client, &load_sql(url, "'Patient', true")), [r#"{"total": 170000}"#]);
        grown.push((name, growth(&mut client, load) >> 20));
    }
    let [view_csv, view_parquet] = ["csv", "parquet"].map(|format| format!("dump_view_chunks('{VIEW}', '{format}')"));
    for dump in [
        "bulk_dump('Patient')",
        "bulk_dump('Patient', fhir => true)",
        "bulk_dump_chunks('Patient', fhir => true)",
        "bulk_dump('Patient', filter => 'name:contains=family 1,odegard&birthdate:missing=false')",
        "bulk_dump_chunks('Patient', gzip => true)",
        "bulk_dump_chunks('Patient', gzip => true, chunk_bytes => 1024)",
        "dump_csv('Patient')",
        "dump_csv_chunks('Patient', gzip => true)",
        "dump_sql('TABLE patient')",
        "dump_sql('SELECT *, ARRAY[ts, cts], patient FROM patient', 'ndjson')",
        "dump_sql_chunks('TABLE patient', 'json')",
        "dump_sql_chunks('TABLE patient', 'sql', options => '{\"table\": \"t\"}')",
        "dump_sql_chunks('TABLE patient', 'elastic-bulk', options => '{\"index\": \"i\", \"id_column\": \"id\"}')",
        "dump_sql_chunks('TABLE patient', 'parquet')",
        &view_csv,
        &view_parquet,
        "dump_sql_chunks('SELECT g, md5(g::text), now() FROM generate_series(1, 1000000) AS g', 'parquet')",
        // A query within the query, for each row.
        "dump_sql('SELECT id, query_to_xml(''SELECT 1'', true, true, '''')::text FROM patient')",
    ] {
        if dump.contains("to_xml") && is_without("libxml") {
            continue;
        }
        let read = |client: &mut Client| {
            let mut body = client.copy_out(&format!("COPY (SELECT {dump}) TO STDOUT WITH (FORMAT binary)")).unwrap();
            let (mut piece, mut length) = (vec![0; 1 << 20], 0);
            loop {
                match body.read(&mut piece).unwrap() {
                    0 => break,
                    count => length += count,
                }
            }
            // Of Parquet little is left.
            assert!(length > 1 << 16, "{dump}: {length}");
        };
        grown.push((dump, growth(&mut client, read) >> 20));
    }
    assert!(grown.iter().all(|(_, megabytes)| *megabytes < GROWTH >> 20), "the backend grew by so many MB: {grown:?}");
}

#[test]
fn one_huge_resource_does_not_keep_its_memory() {
    let database = Database::new();
    let mut client = database.connect();
    let small = patients(1..=3000);
    let huge = format!("{{\"id\":\"huge\",\"resourceType\":\"Patient\",\"data\":\"{}\"}}\n", "QUJD".repeat(10 << 20));
    let url = database.file("huge", huge + &small);
    rows(&mut client, &load_sql(&database.file("small", &small), "'Patient'"));
    let pid = pid(&mut client);
    let before = anonymous(pid);
    for _ in 0..3 {
        rows(&mut client, &load_sql(&url, "'Patient'"));
        assert_eq!(
            rows(&mut client, "SELECT sum(length(line)) > 40000000 FROM (SELECT bulk_dump('Patient') AS line) AS d"),
            ["t"]
        );
        let sum = "SELECT sum(length(line)) > 40000000 FROM (SELECT dump_csv('Patient') AS line) AS d";
        assert_eq!(rows(&mut client, sum), ["t"]);
        let sum =
            "SELECT sum(length(part)) > 1000 FROM (SELECT dump_sql_chunks('TABLE patient', 'parquet') AS part) AS d";
        assert_eq!(rows(&mut client, sum), ["t"]);
        for format in ["'csv'", "'ndjson'", "'sql', '{\"table\": \"t\"}'"] {
            let dump = format!("dump_sql('TABLE patient', {format}) AS line");
            let sum = format!("SELECT sum(length(line)) > 40000000 FROM (SELECT {dump}) AS d");
            assert_eq!(rows(&mut client, &sum), ["t"]);
        }
    }
    let kept = anonymous(pid) - before;
    assert!(kept < GROWTH, "the backend keeps {} MB", kept >> 20);
}

#[test]
fn fifty_failed_loads_in_one_session_leave_no_memory_behind() {
    let database = Database::new();
    let mut client = database.connect();
    let good = patients(1..=20_000);
    let gzipped = [&gzip(good.as_bytes())[..], &gzip(good.as_bytes())[..1000]].concat();
    let urls = [
        ("broken", (good.clone() + "{broken").into_bytes()),
        ("truncated", gzipped),
        ("foreign", (good.clone() + "{\"id\":\"x\",\"resourceType\":\"Other\"}").into_bytes()),
        ("too long", (good.clone() + &" ".repeat(3 << 20)).into_bytes()),
    ]
    .map(|(name, content)| database.file(name, content));
    run(
        &mut client,
        "SELECT bulk_create_table('Patient'); SET fhir_bulk.max_line_bytes = '2MB'; ALTER TABLE patient ADD CHECK (resource ->> 'multipleBirthInteger' <> '77777')",
    );
    let constraint = database.file("constraint", good + &patient("x", 77_777));
    let pid = pid(&mut client);
    let mut fail_all = |times: usize| {
        for _ in 0..times {
            for url in &urls {
                load_fails(&mut client, url, "'Patient'");
            }
            load_fails(&mut client, &constraint, "'Patient'");
            fails(&mut client, "SELECT bulk_dump('Absent')");
        }
    };
    fail_all(2);
    // What is lost with each load is lost in every fifty; a thread that ended late has left what the next one uses.
    let mut fifty = || {
        let before = anonymous(pid);
        fail_all(10);
        anonymous(pid).saturating_sub(before)
    };
    let kept = fifty().min(fifty());
    assert!(kept < 8 << 20, "50 failed loads left {} kB", kept >> 10);
}

#[test]
fn a_thousand_dumps_that_end_early_in_one_transaction_leave_no_memory_behind() {
    let database = Database::new();
    let mut client = database.connect();
    let url = database.file("patients", patients(1..=3000));
    rows(&mut client, &load_sql(&url, "'Patient'"));
    let pid = pid(&mut client);
    run(&mut client, "BEGIN");
    let mut dump = |times: usize| {
        for _ in 0..times {
            assert_eq!(rows(&mut client, "SELECT bulk_dump('Patient') LIMIT 3").len(), 3);
            assert_eq!(
                rows(&mut client, "SELECT bulk_dump_chunks('Patient', gzip => true, chunk_bytes => 1024) LIMIT 1")
                    .len(),
                1
            );
            assert_eq!(rows(&mut client, "SELECT dump_csv('Patient') LIMIT 1").len(), 1);
        }
    };
    dump(50);
    let before = anonymous(pid);
    dump(500);
    let kept = anonymous(pid) - before;
    assert!(kept < 8 << 20, "1,000 dumps left {} kB", kept >> 10);
}

#[test]
fn a_session_that_gets_no_more_memory_has_an_error_and_the_others_go_on() {
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(&[])));
    let database = cluster.database("no_memory");
    let mut witness = database.connect();
    run(&mut witness, "SELECT bulk_create_table('Patient')");
    // Lines of two megabytes take more at once than is held back for what is small.
    let filler = "Lorem ipsum dolor sit amet. ".repeat(75_000);
    let large = (1..=4).map(|n| patient(&format!("p-{n}"), n).replace("1970-01-01", &filler) + "\n").collect();
    for (lines, steps, step_kb) in [(patients(1..=3000), 64, 640), (large, 48, 2048)] {
        let (url, number) = (database.file("patients", &lines), lines.lines().count() as i64);
        let mut refused = 0;
        // Wherever the memory ends: in the library's own first pages, its threads, a batch, PostgreSQL's contexts.
        for more in (0..steps).map(|step| (step * step_kb) << 10) {
            let mut client = database.connect();
            // With it the library is there before the limit is.
            run(&mut client, "SELECT count(*) FROM bulk_dump('Patient')");
            memory::limit(count(&mut client, "SELECT pg_backend_pid()"), more);
            // A line without memory is no bad one, which could be passed over.
            let options = r#"'Patient', options => '{"on_error": "skip"}'"#;
            match client.simple_query(&load_sql(&url, options)) {
                Ok(_) => {
                    assert_eq!(count(&mut witness, "SELECT count(*) FROM patient"), number, "with {more} bytes more");
                    run(&mut witness, "TRUNCATE patient");
                }
                Err(error) => {
                    refused += 1;
                    let error = error
                        .as_db_error()
                        .unwrap_or_else(|| panic!("with {more} bytes more the session is gone: {}", cluster.log()));
                    assert!(
                        ["53200", "53000"].contains(&error.code().code()),
                        "with {more} bytes more: {error:?}: {}",
                        cluster.log()
                    );
                }
            }
            assert_eq!(count(&mut witness, "SELECT count(*) FROM patient"), 0, "with {more} bytes more");
        }
        assert!((1..steps).contains(&refused), "{refused} of {steps}");
    }
    cluster.stop_server("fast");
}
