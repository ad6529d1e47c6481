//! Input that asks for more than a server has: errors, and the server goes on.

use crate::support::{fails, load, load_fails, patients, relations, run, value};
use fhir_bulk_tests::{Client, Cluster, Database, gzip};
use std::fs;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A server each process of which has 1.5 GB of addresses.
fn small() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(|| Cluster::start_after("ulimit -v 1500000", &["shared_buffers = 64MB"]))
}

/// The load must fail by a limit, in words, with the server and the session alive.
fn refused(database: &Database, client: &mut Client, name: &str, content: &[u8]) {
    let started = value(client, "SELECT pg_postmaster_start_time()");
    run(client, "SET fhir_bulk.max_line_bytes = '1GB'");
    let url = database.file(name, content);
    for arguments in ["'Patient'", "'Patient', fhir => true"] {
        let error = load_fails(client, &url, arguments);
        let state = error.code().code();
        assert!(["53", "54", "22"].contains(&&state[..2]), "{name}: {error:?}");
        assert!(error.message().contains(&url) && error.message().contains("line 1"), "{name}: {error:?}");
    }
    fs::remove_file(database.path(name)).unwrap();
    let good = database.file("good", patients(1..=10));
    assert_eq!(load(client, &good, "'Patient'"), r#"{"total": 10}"#, "{name}");
    assert_eq!(value(client, "SELECT pg_postmaster_start_time()"), started, "{name}");
    let log = database.cluster().log();
    assert!(!log.contains("was terminated by signal"), "{name}: {log}");
}

#[test]
fn a_line_beyond_memory_or_jsonb_is_an_error_and_never_a_crash() {
    let database = small().database("lines");
    let mut client = database.connect();
    let line = |start: &str, middle: &str, times: usize, end: &str| {
        let mut line = start.as_bytes().to_vec();
        line.extend(middle.as_bytes().repeat(times));
        line.extend_from_slice(end.as_bytes());
        line
    };
    let mega = 1 << 20;
    refused(&database, &mut client, "300 MB string", &line("{\"id\":\"x\",\"t\":\"", "0123456789", 30 * mega, "\"}"));
    refused(&database, &mut client, "zeros", &line("{\"id\":\"x\",\"a\":[0", ",0", 50 * mega, "]}"));
    refused(&database, &mut client, "nested", &line("{\"id\":\"x\",\"a\":", "[", 50 * mega, "}"));
    refused(&database, &mut client, "nested objects", &line("{\"id\":\"x\",\"a\":", "{\"a\":", 10 * mega, "}"));
    refused(&database, &mut client, "many digits", &line("{\"id\":\"x\",\"a\":1", "0", 100 * mega, "}"));
}

#[test]
fn a_gzip_bomb_in_one_line_is_an_error_and_never_a_crash() {
    let database = small().database("bombs");
    let mut client = database.connect();
    // A gigabyte in members of 16 MB; a single one would take long to make.
    for (name, filling) in [("spaces", b' '), ("digits", b'0')] {
        let member = gzip(&vec![filling; 16 << 20]);
        let bomb = [gzip(b"{\"id\":\"x\",\"n\":1"), member.repeat(64), gzip(b"}")].concat();
        assert!(bomb.len() < 4 << 20);
        refused(&database, &mut client, name, &bomb);
        // And at the limit that servers have unless told otherwise.
        run(&mut client, "RESET fhir_bulk.max_line_bytes");
        let error = load_fails(&mut client, &database.file(name, &bomb), "'Patient'");
        assert_eq!(error.code().code(), "54000", "{error:?}");
        let skipped =
            load(&mut client, &database.file(name, &bomb), "'Patient', options => '{\"on_error\": \"skip\"}'");
        assert_eq!(skipped, r#"{"total": 0, "errors": 1}"#);
    }
}

/// The most memory that a backend has had, in bytes; without the server's shared buffers, which it sees more of the
/// more pages it touches.
fn peak_memory(pid: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let bytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    };
    bytes("VmHWM:").saturating_sub(bytes("RssShmem:"))
}

#[test]
fn ten_million_empty_lines_are_an_empty_load_in_flat_memory() {
    let database = Database::new();
    let mut client = database.connect();
    load(&mut client, &database.file("first", patients(1..=2000)), "'Patient'");
    let pid = value(&mut client, "SELECT pg_backend_pid()");
    let before = peak_memory(&pid);
    let lines = vec![b'\n'; 10_000_000];
    for url in [database.file("plain", &lines), database.file("packed", gzip(&lines))] {
        let start = Instant::now();
        assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 0}"#);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
    let grown = peak_memory(&pid).saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes");
}

#[test]
fn two_hundred_thousand_bad_lines_are_passed_over_in_flat_memory() {
    let database = Database::new();
    let mut client = database.connect();
    let skip = "'Patient', options => '{\"on_error\": \"skip\"}'";
    load(&mut client, &database.file("first", patients(1..=2000) + "{\n"), skip);
    let pid = value(&mut client, "SELECT pg_backend_pid()");
    let before = peak_memory(&pid);
    let url = database.file("bad", "{\n".repeat(200_000));
    assert_eq!(load(&mut client, &url, skip), r#"{"total": 0, "errors": 200000}"#);
    let grown = peak_memory(&pid).saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes");
}

#[test]
fn a_lock_table_that_is_full_is_an_error_that_leaves_nothing() {
    let settings = ["max_locks_per_transaction = 10", "max_connections = 10", "max_worker_processes = 2"];
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(&settings)));
    let database = cluster.database("locks");
    let mut client = database.connect();
    let lines = |types: usize| -> String {
        (0..types).map(|n| format!("{{\"resourceType\":\"Type{n}\",\"id\":\"1\"}}\n")).collect()
    };
    let (many, few) = (database.file("many", lines(95)), database.file("few", lines(3)));
    let before = relations(&mut client);
    let error = fails(&mut client, &format!("SELECT bulk_load('{many}')"));
    assert_eq!((error.code().code(), error.message()), ("53200", "out of shared memory"), "{error:?}");
    assert!(error.hint().is_some_and(|hint| hint.contains("max_locks_per_transaction")), "{error:?}");
    assert_eq!(relations(&mut client), before);
    assert_eq!(load(&mut client, &few, "NULL"), r#"{"Type0": 1, "Type1": 1, "Type2": 1}"#);
    drop(client);
    cluster.stop_server("fast");
}
