//! Processes, connections and locks that are all taken for a while.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use fhir_bulk_tests::kills::Random;
use fhir_bulk_tests::proxy::{Proxy, Request};
use fhir_bulk_tests::support::{count, rows, run, value};
use fhir_bulk_tests::{Client, connect};
use serde_json::{Value, json};

use crate::patients::{self, Model};
use crate::place::{Place, text_of};
use crate::run::{Part, Run};

pub const PART: Part = Part {
    name: "exhaustion",
    what: "all processes (max_worker_processes), connections (max_connections) or locks (max_locks_per_transaction) of a server \
           are taken for a random time, or all but a few, while loads, COPY, imports, exports, dumps and the proxy need some: each \
           waits and goes on, or ends with an error of class 53 and has done nothing, and all works again when they are free",
    unit: "statements",
    run: try_all,
};

const IDS: usize = 2000;
/// Statements and jobs end by then, with the time for which something is taken.
const WITHIN: Duration = Duration::from_secs(30);
const PROCESSES: usize = 3;
const CONNECTIONS: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Load,
    /// With tables that are made for it.
    NewTables,
    Copy,
    Dump,
    Import,
    Export,
    Proxy,
}

const KINDS: [Kind; 7] = [Kind::Load, Kind::NewTables, Kind::Copy, Kind::Dump, Kind::Import, Kind::Export, Kind::Proxy];

#[derive(Clone, Copy, Debug)]
enum Resource {
    Processes,
    Connections,
    Locks,
}

/// What is taken, and given back.
enum Taken {
    Sessions(Vec<Client>),
    Processes(Vec<(postgres::CancelToken, thread::JoinHandle<()>)>),
}

impl Taken {
    /// All but a few.
    fn take(place: &Place, random: &mut Random, resource: Resource) -> Taken {
        let cluster = place.database.cluster();
        match resource {
            Resource::Processes => {
                let sessions = 1 + random.below(PROCESSES as u64);
                let hold = |_| {
                    let mut client = place.connect();
                    // One helper process each, which waits.
                    run(
                        &mut client,
                        "SET min_parallel_table_scan_size = 0; SET parallel_setup_cost = 0; \
                         SET parallel_tuple_cost = 0; SET max_parallel_workers_per_gather = 1; SET parallel_leader_participation = off",
                    );
                    let token = client.cancel_token();
                    let held = thread::spawn(move || {
                        let _ = client.simple_query("SELECT count(*) FROM held WHERE pg_sleep(n)::text IS NULL");
                    });
                    (token, held)
                };
                let held = Taken::Processes((0..sessions).map(hold).collect());
                thread::sleep(Duration::from_millis(50));
                held
            }
            Resource::Connections => {
                let dsn = cluster.dsn("client", place.database.name());
                let dsn = format!("{dsn} password='{}'", crate::place::PASSWORD);
                let mut sessions: Vec<Client> = std::iter::from_fn(|| connect(&dsn).ok()).take(CONNECTIONS).collect();
                sessions.truncate(sessions.len().saturating_sub(random.below(3) as usize));
                Taken::Sessions(sessions)
            }
            Resource::Locks => {
                let mut client = place.connect();
                let all = "DO $$ BEGIN FOR i IN 1..1000000 LOOP PERFORM pg_advisory_lock(i); END LOOP;
                           EXCEPTION WHEN out_of_memory THEN END $$";
                run(&mut client, all);
                let left = 1 << random.below(9);
                rows(&mut client, &format!("SELECT pg_advisory_unlock(n) FROM generate_series(1, {left}) n"));
                Taken::Sessions(vec![client])
            }
        }
    }

    fn give_back(self) {
        match self {
            // Not only by its end, which takes its time.
            Taken::Sessions(sessions) => sessions.into_iter().for_each(|mut session| {
                let _ = session.simple_query("SELECT pg_advisory_unlock_all()");
            }),
            Taken::Processes(held) => held.into_iter().for_each(|(token, thread)| {
                let _ = token.cancel_query(postgres::NoTls);
                let _ = thread.join();
            }),
        }
    }
}

fn try_all(run: &mut Run) {
    let (connections, processes) =
        (format!("max_connections = {CONNECTIONS}"), format!("max_worker_processes = {PROCESSES}"));
    let place = Place::new(&[
        &connections,
        &processes,
        "superuser_reserved_connections = 6",
        "max_logical_replication_workers = 0",
        "max_locks_per_transaction = 10",
        "max_wal_senders = 0",
    ]);
    let proxy = place.proxy();
    let mut client = place.connect();
    fhir_bulk_tests::support::run(
        &mut client,
        "CREATE TABLE held AS SELECT 60 AS n; ALTER TABLE held SET (parallel_workers = 1); GRANT CONNECT ON DATABASE campaign TO client",
    );
    let (mut model, mut refused) = (Model::default(), BTreeMap::new());
    while run.goes_on() {
        let kind = *run.random.one_of(&KINDS);
        let resource = *run.random.one_of(&[Resource::Processes, Resource::Connections, Resource::Locks]);
        let mark = run.so_far() + 1;
        let first = run.random.below(IDS as u64 / 2) as usize;
        let ids = first..first + 1 + run.random.below(IDS as u64 / 2) as usize;
        let lines = patients::lines(ids.clone(), mark);
        let url = place.database.file("Patient.ndjson", &lines);
        let mut worker = place.connect();
        let start = Instant::now();
        let taken = Taken::take(&place, &mut run.random, resource);
        let result = thread::scope(|scope| {
            let work = scope.spawn(|| work(&mut worker, &proxy, kind, mark, &url, &lines));
            run.random.sleep(Duration::from_millis(400));
            taken.give_back();
            work.join().unwrap_or_else(|_| Err("a panic, see above".into()))
        });
        let took = start.elapsed();
        run.tried(1);
        let say = |what: &str| format!("{kind:?} without {resource:?}: {result:?}: {what}");
        run.check(took < WITHIN, || say(&format!("it took {took:?}")));
        if let Err(error) = &result {
            let key = format!("{resource:?} {}", error.split([':', ' ']).next().unwrap_or_default());
            *refused.entry(key).or_insert(0) += 1;
            run.check(says_why(error), || say("an error that does not say why"));
        }
        look(run, &place, &mut client, &mut model, (kind, ids, mark), &result, &say);
    }
    let refused: Vec<String> = refused.iter().map(|(why, times)| format!("{times} × {why}")).collect();
    run.note(format!("refused were {}", refused.join(", ")));
    place.end();
}

/// Class 53, in a state or in what a job tells.
fn says_why(error: &str) -> bool {
    error.starts_with("53")
        || error.starts_with("503 ")
        || error.starts_with("job: ") && error.contains("out of shared memory")
}

fn work(client: &mut Client, proxy: &Proxy, kind: Kind, mark: u64, url: &str, lines: &str) -> Result<(), String> {
    let mut statement = |sql: &str| client.simple_query(sql).map(|_| ()).map_err(|error| text_of(&error));
    match kind {
        Kind::Load => statement(&format!("SELECT bulk_load('{url}', 'Patient', options => '{{\"update\": true}}')")),
        Kind::NewTables => {
            let path = url.trim_start_matches("file://");
            let mixed = ["Device", "Group", "List", "Basic"]
                .map(|name| format!("{{\"resourceType\":\"{name}\",\"id\":\"1\"}}\n"));
            let url = url.replace("Patient.ndjson", "mixed.ndjson");
            std::fs::write(path.replace("Patient.ndjson", "mixed.ndjson"), mixed.concat()).expect("a file of ours");
            statement(&format!("SELECT bulk_load('{url}')"))
        }
        Kind::Copy => statement(&format!(
            "COPY patient FROM '{}' (FORMAT fhir, UPDATE_HISTORY)",
            url.trim_start_matches("file://")
        )),
        Kind::Dump => statement("SELECT count(*) FROM bulk_dump_chunks('Patient', gzip => true)"),
        Kind::Import => {
            let request = json!({"id": format!("import-{mark}"), "update": true, "mode": "transaction", "allowedRetryCount": 0,
                "inputs": [{"resourceType": "Patient", "url": url}]});
            let status = job(client, "import", &request)?;
            if status["inputs"][0]["status"] == "finished" { Ok(()) } else { Err(format!("job: {status}")) }
        }
        Kind::Export => {
            let status = job(client, "export", &json!({"_type": "Patient"}))?;
            let deleted = format!("SELECT bulk_export_cancel('{}')", status["jobId"].as_str().unwrap_or_default());
            run(client, &deleted);
            if status["status"] == "completed" { Ok(()) } else { Err(format!("job: {status}")) }
        }
        Kind::Proxy => {
            let request = Request::post("/Patient/$load?update=true", "application/ndjson", lines);
            let answer = proxy.send(&Place::signed(request));
            if answer.status == 200 { Ok(()) } else { Err(format!("{} {}", answer.status, answer.text())) }
        }
    }
}

/// The last status of a job, or why it was not added.
fn job(client: &mut Client, kind: &str, request: &Value) -> Result<Value, String> {
    let added = client.query(&format!("SELECT bulk_{kind}('{request}')"), &[]).map_err(|error| text_of(&error))?;
    let id: String = added[0].get(0);
    let start = Instant::now();
    loop {
        // Who asks may lack the same for a while.
        let status = client.query(&format!("SELECT bulk_{kind}_status('{id}')::text"), &[]);
        match status {
            Ok(rows) => {
                let status: Value = serde_json::from_str(rows[0].get(0)).expect("JSON");
                if !matches!(status["status"].as_str(), Some("active" | "pending" | "processing")) {
                    return Ok(status);
                }
            }
            Err(error) if !text_of(&error).starts_with("53") => return Err(text_of(&error)),
            Err(_) => {}
        }
        if start.elapsed() > WITHIN {
            return Err("it does not end".into());
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The table has all or nothing of a statement; nothing else is left.
fn look(
    run: &mut Run,
    place: &Place,
    client: &mut Client,
    model: &mut Model,
    (kind, ids, mark): (Kind, std::ops::Range<usize>, u64),
    result: &Result<(), String>,
    say: &dyn Fn(&str) -> String,
) {
    let mut after = model.clone();
    if !matches!(kind, Kind::NewTables | Kind::Dump | Kind::Export) {
        after.write(ids, mark);
    }
    let found = patients::stored(client);
    let expected = if result.is_ok() { after.digest() } else { model.digest() };
    run.check(found == expected, || say(&format!("{found} instead of {expected}")));
    if found == after.digest() {
        *model = after;
    }
    if kind == Kind::NewTables {
        let names = "('device', 'group', 'list', 'basic')";
        let made = count(client, &format!("SELECT count(*) FROM pg_tables WHERE tablename IN {names}"));
        run.check(made == if result.is_ok() { 4 } else { 0 }, || say(&format!("{made} tables were made")));
        let drop = r#"DROP TABLE IF EXISTS device, device_history, "group", group_history, list, list_history, basic, basic_history"#;
        fhir_bulk_tests::support::run(client, drop);
    }
    if run.so_far().is_multiple_of(50) {
        let wrong = place.unsound(client, &["patient", "patient_history"]);
        run.check(wrong.is_empty(), || say(&format!("amcheck: {wrong:?}")));
        rows(client, "TRUNCATE patient_history");
        model.history = 0;
    }
    let left = place.left_over(client);
    run.check(left.is_empty(), || say(&format!("left over: {left:?}")));
    let exported = value(client, "SELECT count(*) FROM bulk_jobs WHERE status IN ('waiting', 'active')");
    run.check(exported == "0", || say(&format!("{exported} jobs have not ended")));
}
