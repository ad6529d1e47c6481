//! Everything at once for as long as there is time: what must not grow does not.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fhir_bulk_tests::kills::Random;
use fhir_bulk_tests::proxy::{Proxy, Request};
use fhir_bulk_tests::support::{count, run, value};
use fhir_bulk_tests::{Client, SetAtEnd, memory, wait_for};
use serde_json::{Value, json};

use crate::patients;
use crate::place::Place;
use crate::run::{Part, Run};

pub const PART: Part = Part {
    name: "soak",
    what: "loads, COPY, dumps, views, imports and exports by long sessions and one proxy: memory and descriptors of sessions and \
           proxy, locks, temporary files, exported files and the size of the job tables are in the last quarter what they were \
           in the second",
    unit: "operations",
    run: try_all,
};

const SESSIONS: usize = 3;
const IDS: u64 = 5000;

/// What is looked at, with how much more the last quarter may have than the second.
const FIGURES: [(&str, u64); 8] = [
    ("memory of sessions", 16 << 20),
    ("descriptors of sessions", 20),
    ("memory of the proxy", 16 << 20),
    ("descriptors of the proxy", 20),
    ("locks", 40),
    ("bytes of temporary files", 64 << 20),
    ("exported files", 200),
    ("bytes of the job tables", 8 << 20),
];

type Sample = [u64; FIGURES.len()];

fn try_all(run: &mut Run) {
    let start = Instant::now();
    let place = Place::new(&["autovacuum = on", "autovacuum_naptime = 1s"]);
    fhir_bulk_tests::support::run(
        &mut place.connect(),
        "ALTER DATABASE campaign SET fhir_bulk.job_retention = '1min'; ALTER DATABASE campaign SET fhir_bulk.export_retention = '1min'",
    );
    let proxy = place.proxy();
    let (over, operations) = (AtomicBool::new(false), AtomicU64::new(0));
    let seeds: Vec<u64> = (0..=SESSIONS).map(|_| run.random.below(1 << 31)).collect();
    let mut samples: Vec<(f64, Sample)> = Vec::new();
    let wrong: Vec<String> = thread::scope(|scope| {
        let (place, proxy, over, operations) = (&place, &proxy, &over, &operations);
        let end = SetAtEnd(over);
        let mut clients: Vec<Client> = (0..SESSIONS).map(|_| place.connect()).collect();
        let pids: Vec<i64> = clients.iter_mut().map(|client| count(client, "SELECT pg_backend_pid()")).collect();
        let mut threads: Vec<_> = clients
            .into_iter()
            .zip(&seeds)
            .enumerate()
            .map(|(at, (client, seed))| {
                scope.spawn(move || by_session(place, client, at, Random::new(*seed), over, operations))
            })
            .collect();
        let seed = seeds[SESSIONS];
        threads.push(scope.spawn(move || by_proxy(proxy, Random::new(seed), over, operations)));
        let mut watcher = place.connect();
        while run.goes_on() {
            thread::sleep(Duration::from_millis(500));
            samples.push((run.passed(), sample(place, &mut watcher, &pids, proxy)));
            run.tried(operations.swap(0, Ordering::Relaxed));
        }
        drop(end);
        threads.into_iter().flat_map(|thread| thread.join().expect("a session ends")).collect()
    });
    wrong.into_iter().for_each(|what| run.found(what));
    let run_is_short = start.elapsed() < Duration::from_secs(120);
    for (at, (name, more)) in FIGURES.iter().enumerate() {
        let most = |from: f64, to: f64| {
            let of_quarter = samples.iter().filter(|(passed, _)| (from..to).contains(passed));
            of_quarter.map(|(_, sample)| sample[at]).max().unwrap_or(0)
        };
        let (second, last) = (most(0.25, 0.5), most(0.75, 1.1));
        // A short run has hardly begun by its second quarter.
        run.check(run_is_short || last <= second + second / 4 + more, || {
            format!("{name} grew from {second} to {last}")
        });
        run.note(format!("{name} {second} → {last}"));
    }
    place.end();
}

fn sample(place: &Place, watcher: &mut Client, sessions: &[i64], proxy: &Proxy) -> Sample {
    let descriptors = |pid: i64| fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count() as u64);
    let of_proxy = i64::from(proxy.pid());
    let number = |watcher: &mut Client, sql: &str| count(watcher, sql) as u64;
    [
        sessions.iter().filter_map(|pid| memory::anonymous(*pid)).sum::<i64>() as u64,
        sessions.iter().map(|pid| descriptors(*pid)).sum(),
        memory::anonymous(of_proxy).unwrap_or(0) as u64,
        descriptors(of_proxy),
        number(watcher, "SELECT count(*) FROM pg_locks"),
        number(watcher, "SELECT coalesce(sum(size), 0)::bigint FROM pg_ls_tmpdir()"),
        place.exported() as u64,
        number(
            watcher,
            "SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c
             WHERE relnamespace = 'fhir_bulk_internal'::regnamespace AND relkind = 'r'",
        ),
    ]
}

/// What a session does, and what went wrong.
fn by_session(
    place: &Place,
    mut client: Client,
    at: usize,
    mut random: Random,
    over: &AtomicBool,
    operations: &AtomicU64,
) -> Vec<String> {
    let mut wrong = Vec::new();
    while !over.load(Ordering::Relaxed) {
        // Each session has ids of its own, so that none waits for another for long.
        let first = (at as u64 * IDS + random.below(IDS / 2)) as usize;
        let ids = first..first + 1 + random.below(IDS / 2) as usize;
        let url = place.database.file(&format!("{at}.Patient.ndjson"), patients::lines(ids, random.below(1000)));
        let view = r#"{"resource": "Patient", "select": [{"column": [{"name": "id", "path": "id"}]}]}"#;
        let sql = match random.below(9) {
            0 => format!("SELECT bulk_load('{url}', 'Patient')"),
            1 => format!("COPY patient FROM '{}' (FORMAT fhir)", url.trim_start_matches("file://")),
            2 => "SELECT count(*) FROM bulk_dump('Patient', fhir => true, filter => 'active=true')".to_owned(),
            3 => "SELECT count(*) FROM dump_sql('SELECT id, resource FROM patient ORDER BY 2', 'csv')".to_owned(),
            4 => format!("SELECT count(*) FROM dump_view_chunks('{view}', 'parquet')"),
            5 => "COPY patient TO PROGRAM 'cat >/dev/null' (FORMAT fhir, GZIP)".to_owned(),
            // An error is work, too.
            6 => "SELECT bulk_load('file:///nowhere', 'Patient')".to_owned(),
            7 => {
                let request = json!({"inputs": [{"resourceType": "Patient", "url": url}]});
                job(&mut client, "import", &request.to_string(), &mut wrong);
                continue;
            }
            _ => {
                job(&mut client, "export", r#"{"_type": ["Patient"]}"#, &mut wrong);
                continue;
            }
        };
        let result = client.simple_query(&sql);
        operations.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = result
            && !sql.contains("nowhere")
        {
            wrong.push(format!("{sql}: {error:?}"));
        }
    }
    wrong
}

fn job(client: &mut Client, name: &str, request: &str, wrong: &mut Vec<String>) {
    let id = value(client, &format!("SELECT bulk_{name}('{request}')"));
    let mut last = Value::Null;
    wait_for("a job to end", || {
        last = serde_json::from_str(&value(client, &format!("SELECT bulk_{name}_status('{id}')"))).expect("JSON");
        !matches!(last["status"].as_str(), Some("active" | "pending" | "processing"))
    });
    if !matches!(last["status"].as_str(), Some("finished" | "done" | "completed")) {
        wrong.push(format!("{name}: {last}"));
    }
    run(client, "SELECT 1");
}

/// What clients of the proxy do, and what went wrong.
fn by_proxy(proxy: &Proxy, mut random: Random, over: &AtomicBool, operations: &AtomicU64) -> Vec<String> {
    let mut wrong = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let first = SESSIONS * IDS as usize + random.below(IDS / 2) as usize;
        let lines = patients::lines(first..first + 1 + random.below(IDS / 2) as usize, random.below(1000));
        let (request, expected) = match random.below(5) {
            0 => (Request::post("/Patient/$load", "application/ndjson", lines), 200),
            1 => (Request::get("/Patient/$dump"), 200),
            2 => (Request::get("/Patient/$dump-csv"), 200),
            3 => (Request::get("/fhir/metadata"), 200),
            _ => (Request::get("/nowhere"), 404),
        };
        let answer = proxy.send(&Place::signed(request.clone()));
        operations.fetch_add(1, Ordering::Relaxed);
        if answer.status != expected {
            wrong.push(format!("{} for {:?}", answer.status, String::from_utf8_lossy(&request.bytes()).lines().next()));
        }
    }
    wrong
}
