//! The server stays in step with its client: it reads all of the data's messages and nothing beyond them, whoever reads them.

use crate::from::session;
use crate::support::{count, patients, rows, run, value};
use crate::wire::{COPY, Wire, message};
use fhir_bulk_tests::{Client, Cluster, Database, as_server_user, wait_for};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

#[test]
fn what_follows_the_data_is_the_next_command() {
    let database = Database::new();
    let mut wire = Wire::connect(&database);
    let lines = patients(1..=5000);
    let data = |size: usize| {
        let mut data: Vec<u8> = lines.as_bytes().chunks(size).flat_map(|piece| message(b'd', piece)).collect();
        data.extend(message(b'c', &[]));
        data.extend(message(b'Q', b"SELECT 1\0"));
        data
    };
    for size in [100, 8192, 65_536, 1 << 20] {
        // After the server has asked for it, and at once, when it is in PostgreSQL's buffer before the COPY begins.
        wire.query(COPY);
        wire.read_until(b'G');
        wire.0.write_all(&data(size)).unwrap();
        assert_eq!(wire.end(), "COPY 5000", "{size}");
        assert_eq!(wire.end(), "SELECT 1", "{size}");
        let all = [message(b'Q', format!("{COPY}\0").as_bytes()), data(size)].concat();
        wire.0.write_all(&all).unwrap();
        assert_eq!(wire.end(), "COPY 5000", "{size}");
        assert_eq!(wire.end(), "SELECT 1", "{size}");
    }
}

#[test]
fn messages_may_come_in_pieces_of_any_size() {
    let database = Database::new();
    let mut wire = Wire::connect(&database);
    let mut data = Vec::new();
    for piece in patients(1..=20).as_bytes().chunks(50) {
        data.extend(message(b'd', piece));
        data.extend(message(b'd', &[]));
        data.extend(message(b'H', &[]));
    }
    data.extend(message(b'c', &[]));
    for size in 1..=12 {
        wire.query(COPY);
        wire.read_until(b'G');
        for piece in data.chunks(size) {
            wire.0.write_all(piece).unwrap();
            std::thread::yield_now();
        }
        assert_eq!(wire.end(), "COPY 20", "{size}");
    }
}

/// How many bytes the feed's thread of a session has read.
fn read_by_feed(pid: i64) -> u64 {
    let text = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path());
    let feeds = tasks.filter(|task| text(&task.join("comm")).trim() == "fhir_bulk feed");
    let read = |task: PathBuf| {
        text(&task.join("io")).lines().find_map(|line| line.strip_prefix("rchar: ")?.parse::<u64>().ok())
    };
    feeds.filter_map(read).sum()
}

#[test]
fn the_feeds_thread_reads_the_data_of_a_plain_connection() {
    let database = Database::new();
    let mut wire = Wire::connect(&database);
    let mut watcher = database.connect();
    wire.query("SELECT pg_backend_pid()");
    let row = wire.read_until(b'Z').into_iter().find(|(kind, _)| *kind == b'D').unwrap().1;
    let pid = String::from_utf8_lossy(&row[6..]).parse().unwrap();
    let lines = patients(1..=5000);
    for extended in [false, true] {
        if extended {
            // As drivers do; the Sync is in PostgreSQL's buffer when the COPY begins.
            let parse = message(b'P', format!("\0{COPY}\0\0\0").as_bytes());
            let all = [parse, message(b'B', &[0; 8]), message(b'E', &[0; 5]), message(b'S', &[])].concat();
            wire.0.write_all(&all).unwrap();
        } else {
            wire.query(COPY);
        }
        wire.read_until(b'G');
        for piece in lines.as_bytes().chunks(10_000) {
            wire.send(b'd', piece);
        }
        wait_for("the thread to read all", || read_by_feed(pid) >= lines.len() as u64);
        wire.send(b'c', &[]);
        if extended {
            wire.send(b'S', &[]);
        }
        assert_eq!(wire.end(), "COPY 5000");
    }
    assert_eq!(value(&mut watcher, "SELECT count(*) FROM patient"), "5000");
}

/// A COPY that has failed, and waits for the rest of a message before it says so.
struct Stuck {
    wire: Wire,
    watcher: Client,
    pid: i64,
    rest: Vec<u8>,
}

impl Stuck {
    /// The data is bad in the end, and half a message follows it.
    fn new(database: &Database, lines: &str) -> Stuck {
        let mut wire = Wire::connect(database);
        let mut watcher = database.connect();
        wire.query("COPY patient FROM STDIN (FORMAT fhir)");
        wire.read_until(b'G');
        let query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY%'
            AND state = 'active' AND pid <> pg_backend_pid()";
        let pid = count(&mut watcher, query);
        assert_eq!(threads(pid), 2, "the server reads on a thread of its own");
        let mut rest = message(b'd', patients(1..=1000).as_bytes());
        let half: Vec<u8> = rest.drain(..50_000).collect();
        wire.0.write_all(&[message(b'd', lines.as_bytes()), half].concat()).unwrap();
        wait_for("the load to be over", || threads(pid) == 1);
        Stuck { wire, watcher, pid, rest }
    }
}

fn threads(pid: i64) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// Lines with one that PostgreSQL itself refuses, and lines with one that is no JSON.
fn bad_ends(database: &Database) -> [(String, &'static str); 2] {
    let mut client = session(database);
    run(&mut client, "SELECT bulk_create_table('Patient'); ALTER TABLE patient ADD CHECK (id <> 'p-19999')");
    [(patients(1..=50_000), "23514 "), (patients(1..=10) + "{\n", "22P02 line 11 of STDIN")]
}

#[test]
fn an_error_waits_for_the_rest_of_the_message_that_has_begun() {
    let database = Database::new();
    for (lines, expected) in bad_ends(&database) {
        let mut stuck = Stuck::new(&database, &lines);
        // A cancel waits with it.
        run(&mut stuck.watcher, &format!("SELECT pg_cancel_backend({})", stuck.pid));
        stuck.wire.0.write_all(&stuck.rest).unwrap();
        let end = stuck.wire.end();
        assert!(end.starts_with(expected), "{end}");
        stuck.wire.send(b'd', b"more of what nobody wants");
        stuck.wire.send(b'c', &[]);
        stuck.wire.query("SELECT 1");
        assert_eq!(stuck.wire.end(), "SELECT 1");
    }
}

#[test]
fn a_session_that_waits_for_the_rest_of_a_message_can_be_terminated_and_ends_with_its_client() {
    let database = Database::new();
    for (lines, _) in bad_ends(&database) {
        for by_client in [false, true] {
            let Stuck { mut wire, mut watcher, pid, .. } = Stuck::new(&database, &lines);
            if by_client {
                wire.0.shutdown(std::net::Shutdown::Write).unwrap();
            } else {
                run(&mut watcher, &format!("SELECT pg_terminate_backend({pid})"));
            }
            // What it has not read makes this an error.
            let _ = wire.0.read_to_end(&mut Vec::new());
            let query = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
            wait_for("the session to end", || count(&mut watcher, &query) == 0);
        }
    }
}

#[test]
fn a_message_of_an_impossible_length_ends_the_session() {
    let database = Database::new();
    for head in [&b"d\0\0\0\x03"[..], b"d\xff\xff\xff\xff", b"f\0\xff\xff\xff"] {
        for waits in [true, false] {
            let mut wire = Wire::connect(&database);
            let data = [message(b'd', patients(1..=10).as_bytes()), head.to_vec()].concat();
            if waits {
                wire.query(COPY);
                wire.read_until(b'G');
                wire.0.write_all(&data).unwrap();
            } else {
                let all = [message(b'Q', format!("{COPY}\0").as_bytes()), data].concat();
                wire.0.write_all(&all).unwrap();
            }
            let mut said = Vec::new();
            // PostgreSQL may close the connection before it has read all.
            let _ = wire.0.read_to_end(&mut said);
            let said = String::from_utf8_lossy(&said);
            assert!(said.contains("C08006") && said.contains("protocol synchronization was lost"), "{head:?}: {said}");
        }
    }
    assert_eq!(rows(&mut database.connect(), "SELECT to_regclass('patient')"), ["∅"]);
}

#[test]
fn an_encrypted_connection_copies_too() {
    // Only this test's server may have it: it is made with a key.
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(&[])));
    let database = cluster.database("encrypted");
    let path = |name: &str| cluster.data().join(name);
    let made = as_server_user(Path::new("openssl"))
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout"])
        .arg(path("server.key"))
        .arg("-out")
        .arg(path("server.crt"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut admin = session(&database);
    for statement in ["ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()"] {
        run(&mut admin, statement);
    }
    let dsn = format!("host=127.0.0.1 port={} user=postgres dbname=encrypted sslmode=require", cluster.port());
    let psql = |commands: &[&str]| {
        let mut psql = std::process::Command::new(fhir_bulk_tests::bin("psql"));
        psql.args(["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &dsn, "-c", "SELECT bulk_load_result()"]);
        psql.args(commands.iter().flat_map(|command| ["-c", command]));
        psql.output().unwrap()
    };
    wait_for("the server to encrypt", || psql(&[]).status.success());
    let path = database.file("Patient.ndjson", patients(1..=20_000)).replace("file://", "");
    let copy = format!("\\copy bulk_resource from '{path}' (format fhir)");
    let out = database.path("out");
    let back = format!("\\copy patient to '{}' (format fhir)", out.display());
    let output = psql(&["SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &copy, &back]);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert_eq!(shown.trim(), "t\nCOPY 20000\nCOPY 20000", "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read_to_string(out).unwrap().lines().count(), 20_000);
    assert_eq!(value(&mut admin, "SELECT count(*) FROM patient"), "20000");
    drop(admin);
    cluster.stop_server("immediate");
}
