//! A load that waits for its source can be ended at any time, and leaves nothing behind.

use super::allowed;
use crate::support::{assert_error, count, load, load_fails, load_sql, patients, run, value};
use fhir_bulk_tests::http::{Server, hold, ok, status};
use fhir_bulk_tests::{Client, Database, wait_for};
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// What "at once" may take on a busy machine; the wait that is cut short is far longer.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Sends half a body, then nothing until the other side gives up.
fn stalling() -> Server {
    Server::new(|request, stream| {
        if request.path == "/silent" {
            return hold(stream);
        }
        let answer = ok(patients(1..=5000));
        let _ = stream.write_all(&answer[..answer.len() / 2]);
        hold(stream);
    })
}

/// Waits until a backend waits for its source.
fn wait_until_waiting(database: &Database, pid: i32) {
    let mut other = database.connect();
    let query = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND state = 'active' AND wait_event_type = 'Extension'"
    );
    wait_for("the load to wait for its source", || count(&mut other, &query) == 1);
}

fn pid(client: &mut Client) -> i32 {
    value(client, "SELECT pg_backend_pid()").parse().unwrap()
}

#[test]
fn a_cancel_ends_the_wait_for_a_stalled_server_at_once() {
    for path in ["/silent", "/stalls"] {
        let (database, mut client) = allowed();
        let server = stalling();
        let (pid, token) = (pid(&mut client), client.cancel_token());
        let url = server.url(path);
        let load = thread::spawn(move || {
            let error = load_fails(&mut client, &url, "'Patient'");
            (error, Instant::now(), client)
        });
        wait_until_waiting(&database, pid);
        let start = Instant::now();
        token.cancel_query(postgres::NoTls).unwrap();
        let (error, end, mut client) = load.join().unwrap();
        assert_error(&error, "57014", &["cancel"]);
        assert!(end - start < AT_ONCE, "{:?}", end - start);
        // The session goes on.
        let good = Server::answering(ok(patients(1..=3)));
        assert_eq!(crate::support::load(&mut client, &good.url("/"), "'Patient'"), r#"{"total": 3}"#);
    }
}

#[test]
fn a_statement_timeout_ends_the_wait_for_a_stalled_server() {
    for path in ["/silent", "/stalls"] {
        let (_database, mut client) = allowed();
        let server = stalling();
        run(&mut client, "SET statement_timeout = '200ms'");
        let start = Instant::now();
        assert_error(&load_fails(&mut client, &server.url(path), "'Patient'"), "57014", &["statement timeout"]);
        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
        assert_eq!(value(&mut client, "SELECT to_regclass('patient') IS NULL"), "t");
    }
}

#[test]
fn a_backend_that_is_terminated_while_it_downloads_ends_at_once_and_alone() {
    let (database, mut client) = allowed();
    let started = value(&mut client, "SELECT pg_postmaster_start_time()");
    for path in ["/silent", "/stalls"] {
        let server = stalling();
        let mut session = database.connect();
        run(&mut session, "SET fhir_bulk.allowed_sources = '127.0.0.1'");
        let pid = pid(&mut session);
        let url = server.url(path);
        let load = thread::spawn(move || session.simple_query(&load_sql(&url, "'Patient'")).is_err());
        wait_until_waiting(&database, pid);
        assert_eq!(value(&mut client, &format!("SELECT pg_terminate_backend({pid}, 1000)")), "t");
        assert!(load.join().unwrap());
        wait_for("the process to be gone", || !fs::exists(format!("/proc/{pid}")).unwrap());
    }
    // The session of before is alive: the server has not restarted.
    assert_eq!(value(&mut client, "SELECT pg_postmaster_start_time()"), started);
    let log = database.cluster().log();
    assert!(!log.lines().any(|line| line.contains("was terminated by signal") && line.contains("SIGSEGV")), "{log}");
}

/// How many threads, and how many sockets and pipes, a process has. Files of tables come and go as PostgreSQL likes.
fn threads_and_sockets(pid: i32) -> (usize, usize) {
    let entries =
        |folder: &str| fs::read_dir(format!("/proc/{pid}/{folder}")).unwrap().map(|entry| entry.unwrap().path());
    let is_file = |path: &PathBuf| fs::read_link(path).is_ok_and(|target| target.is_absolute());
    (entries("task").count(), entries("fd").filter(|path| !is_file(path)).count())
}

#[test]
fn downloads_that_fail_leave_no_threads_and_no_sockets() {
    let (_database, mut client) = allowed();
    let pid = pid(&mut client);
    run(&mut client, "SET fhir_bulk.idle_timeout = '200ms'");
    let good = Server::answering(ok(patients(1..=3)));
    load(&mut client, &good.url("/"), "'Patient'");
    let settled = |client: &mut Client| {
        load(client, &good.url("/"), "'Patient'");
        wait_for("the threads to end", || threads_and_sockets(pid).0 == 1);
        threads_and_sockets(pid)
    };
    let before = settled(&mut client);
    let stalls = stalling();
    let missing = Server::answering(status("404 Not Found", ""));
    let cut = Server::answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{".to_vec());
    let endless = Server::new(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nbad\n");
        let line = [b'\n'; 65536];
        while stream.write_all(&line).is_ok() {}
    });
    for _ in 0..6 {
        for url in [stalls.url("/"), stalls.url("/silent"), missing.url("/"), cut.url("/"), endless.url("/")] {
            load_fails(&mut client, &url, "'Patient'");
        }
    }
    run(&mut client, "SET statement_timeout = '50ms'");
    load_fails(&mut client, &stalls.url("/"), "'Patient'");
    run(&mut client, "RESET statement_timeout");
    assert_eq!(settled(&mut client), before);
}
