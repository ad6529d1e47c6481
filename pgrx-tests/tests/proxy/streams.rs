//! Bodies that are large, slow, incomplete or abandoned.

use std::io::{Read as _, Write as _};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use fhir_bulk_tests::proxy::Request;
use fhir_bulk_tests::wait_for;

use crate::support::{PASSWORD, Service, anonymous_kb, stall_patients};

/// What "at once" may take on a busy machine; what is cut short would take far longer.
const AT_ONCE: Duration = Duration::from_secs(1);

/// `count` patients of `bytes` each, which the table holds compressed.
fn service_with(count: u32, bytes: u32, flags: &[&str]) -> Service {
    let service = Service::with(|_| flags.iter().map(|flag| (*flag).to_owned()).collect());
    service
        .connect()
        .batch_execute(&format!(
            "SELECT bulk_create_table('Patient');
             INSERT INTO patient (id, txid, status, resource) SELECT 'p-' || n, 1, 'created',
                jsonb_build_object('text', repeat('{{\"resource\"}} ', {bytes} / 13)) FROM generate_series(1, {count}) n"
        ))
        .unwrap();
    service
}

/// How many queries of requests run in a service's database, in a state that the WHERE clause tells.
fn running(service: &Service, clause: &str) -> i64 {
    let query = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE \
         'fhir_bulk_proxy %' AND state = 'active' AND {clause}"
    );
    service.database.connect().query_one(&query, &[]).unwrap().get(0)
}

#[test]
fn a_gigabyte_for_a_slow_reader_stays_on_disk_until_it_is_read() {
    let service = service_with(10_000, 100_000, &[]);
    let before = anonymous_kb(service.proxy.pid());
    let mut exchange = service.proxy.open(&service.signed(Request::get("/Patient/$dump")));
    assert_eq!(exchange.head().status, 200);
    // The first bytes are here while the backend still has nearly all of it to make, and waits.
    let mut bytes = exchange.chunk().unwrap().unwrap().len();
    wait_for("the backend to wait for the reader", || running(&service, "wait_event = 'ClientWrite'") == 1);
    let backend = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'ClientWrite'";
    let backend: i32 = service.database.connect().query_one(backend, &[]).unwrap().get(0);
    let mut most = (0, 0);
    let mut at = 0;
    loop {
        let chunk = exchange.chunk().unwrap().expect("the dump is whole");
        if chunk.is_empty() {
            break;
        }
        bytes += chunk.len();
        at += 1;
        if at % 500 == 1 {
            most = (most.0.max(anonymous_kb(service.proxy.pid())), most.1.max(anonymous_kb(backend as u32)));
        }
    }
    assert!(bytes > 1_000_000_000, "{bytes}");
    assert!(most.0 < 50 << 10, "the proxy had {} kB, and {before} kB before", most.0);
    assert!(most.1 < 64 << 10, "the backend had {} kB", most.1);
}

#[test]
fn a_client_that_goes_away_ends_its_query_at_once() {
    let service = service_with(2000, 100_000, &[]);
    let mut exchange = service.proxy.open(&service.signed(Request::get("/Patient/$dump")));
    assert_eq!(exchange.head().status, 200);
    wait_for("the backend to wait for the reader", || running(&service, "wait_event = 'ClientWrite'") == 1);
    drop(exchange);
    let start = Instant::now();
    wait_for("the query to end", || running(&service, "true") == 0);
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    // Also one that has not sent a byte yet, and would not notice by writing.
    stall_patients(&mut service.connect());
    let exchange = service.proxy.open(&service.signed(Request::get("/Patient/$dump")));
    wait_for("the query to sleep", || running(&service, "wait_event = 'PgSleep'") == 1);
    drop(exchange);
    let start = Instant::now();
    wait_for("the query to end", || running(&service, "true") == 0);
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    wait_for("the log to tell", || service.proxy.log().matches("the client went away").count() == 2);
}

#[test]
fn a_client_that_sent_more_than_its_request_and_goes_away_ends_its_query_too() {
    let service = service_with(10, 100, &[]);
    stall_patients(&mut service.connect());
    let request = service.signed(Request::get("/Patient/$dump")).without("Connection");
    // Behind a request: the line break of careless clients, another request, and more than is read at once. (Of more than
    // the server's kernel takes, the end would not get here.)
    for (more, later) in [
        (b"\r\n".to_vec(), false),
        (request.bytes(), false),
        (request.bytes(), true),
        (request.bytes().repeat(200), true),
    ] {
        let mut exchange = service.proxy.open(&request);
        let stream = exchange.reader().get_mut();
        if !later {
            stream.write_all(&more).unwrap();
        }
        wait_for("the query to sleep", || running(&service, "wait_event = 'PgSleep'") == 1);
        if later {
            stream.write_all(&more).unwrap();
        }
        drop(exchange);
        let start = Instant::now();
        wait_for("the query to end", || running(&service, "true") == 0);
        assert!(start.elapsed() < 2 * AT_ONCE, "{} bytes more: {:?}", more.len(), start.elapsed());
    }
}

#[test]
fn a_client_that_only_ends_its_own_side_gets_its_answer() {
    let service = service_with(2000, 100_000, &[]);
    // At once, and in full though it takes longer than nothing may move.
    let exchange = service.proxy.open(&Request::get("/health"));
    exchange.end_own_side();
    assert_eq!(exchange.read().status, 200);
    let exchange = service.proxy.open(&service.signed(Request::get("/Patient/$dump")));
    exchange.end_own_side();
    let dump = exchange.read();
    assert!((dump.status, dump.is_whole) == (200, true) && dump.body.len() > 100_000_000);
    // While the answer takes its time, the client is told that somebody is at it.
    let sql = Request::json("/$dump-sql", r#"{"query": "select pg_sleep(1), 'done'"}"#);
    let mut exchange = service.proxy.open(&service.signed(sql.clone()));
    exchange.end_own_side();
    assert_eq!(exchange.head().status, 102);
    let answer = exchange.read();
    assert!(answer.status == 200 && answer.text().contains("done"), "{answer:?}");
    // To HTTP/1.0, which knows no such answers, nothing is said meanwhile.
    let exchange = service.proxy.open(&Request::get("/health").version("HTTP/1.0"));
    exchange.end_own_side();
    assert_eq!(exchange.read().status, 200);
    // Who has gone for good is found out as before.
    let mut exchange =
        service.proxy.open(&service.signed(Request::json("/$dump-sql", r#"{"query": "select pg_sleep(600)"}"#)));
    exchange.end_own_side();
    assert_eq!(exchange.head().status, 102);
    wait_for("the query to sleep", || running(&service, "wait_event = 'PgSleep'") == 1);
    drop(exchange);
    wait_for("the query to end", || running(&service, "true") == 0);
}

#[test]
fn an_error_in_mid_stream_breaks_the_body_so_that_every_client_sees_it() {
    let service = service_with(1000, 10_000, &[]);
    service
        .connect()
        .batch_execute(
            "CREATE FUNCTION fail(id text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
                IF id = 'p-900' THEN RAISE 'the secret is 42'; END IF; RETURN true; END $$;
             ALTER TABLE patient ENABLE ROW LEVEL SECURITY; ALTER TABLE patient FORCE ROW LEVEL SECURITY;
             CREATE POLICY fail ON patient USING (fail(id))",
        )
        .unwrap();
    for path in ["/Patient/$dump", "/Patient/$dump?gzip=true"] {
        let response = service.send(Request::get(path));
        assert_eq!(response.status, 200);
        assert!(!response.is_whole, "{path}");
        assert!(!response.text().contains("secret"));
    }
    let url = format!("{}/Patient/$dump", service.proxy.url());
    let user = format!("{}:{PASSWORD}", service.client);
    let curl = Command::new("curl").args(["-s", "-o", "/dev/null", "-u", &user, &url]).status().unwrap();
    assert_eq!(curl.code(), Some(18), "curl's code for a partial file");
    wait_for("the log to tell", || service.proxy.log().matches("the secret is 42").count() == 3);
    // The connection is not used again with half a transaction in it.
    service
        .connect()
        .batch_execute("DROP POLICY fail ON patient; ALTER TABLE patient NO FORCE ROW LEVEL SECURITY")
        .unwrap();
    let response = service.send(Request::get("/Patient/$dump"));
    assert_eq!((response.text().lines().count(), response.is_whole), (1000, true));
}

#[test]
fn thirty_two_dumps_at_once_all_finish() {
    let service = service_with(400, 50_000, &["--connections-per-role", "8"]);
    let request = service.signed(Request::get("/Patient/$dump?fhir=true"));
    thread::scope(|scope| {
        let dumps: Vec<_> = (0..32).map(|_| scope.spawn(|| service.proxy.send(&request))).collect();
        for dump in dumps {
            let response = dump.join().unwrap();
            assert_eq!((response.status, response.is_whole), (200, true), "{}", response.text());
            assert_eq!(response.body.iter().filter(|byte| **byte == b'\n').count(), 400);
        }
    });
}

#[test]
fn a_client_that_stops_reading_does_not_keep_its_query_for_ever() {
    let service = service_with(2000, 100_000, &["--idle-timeout", "300ms"]);
    let mut exchange = service.proxy.open(&service.signed(Request::get("/Patient/$dump")));
    assert_eq!(exchange.head().status, 200);
    wait_for("the query to end", || running(&service, "true") == 0);
    let mut rest = Vec::new();
    let _ = exchange.reader().read_to_end(&mut rest);
    assert!(!rest.ends_with(b"0\r\n\r\n"));
}
