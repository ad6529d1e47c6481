//! Servers and workers are killed at random moments, whatever an import does: what is stored in the end is what the files have.

use crate::job::{import_sql, inputs, server, status, workers};
use crate::support::{count, patients, rows, run, value};
use crate::survival::reconnect;
use fhir_bulk_tests::kills::{self, Random};
use fhir_bulk_tests::s3::{KEY_ID, S3Server, SECRET_KEY};
use fhir_bulk_tests::{Client, Database, gzip, wait_for};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

/// Files of a round, and patients in each.
const FILES: usize = 5;
const EACH: usize = 3000;
const BY_ROUND: usize = FILES * EACH;

/// What rounds do, in turn. The first patients are there before the second of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// A folder, and the folders in it: new patients, new files, no indexes meanwhile.
    Folder,
    /// A pattern: known patients get other content, and the history keeps the old one.
    Pattern,
    /// A prefix of keys with the key of an account: the same patients again, and nothing is to be written.
    Prefix,
    /// The folder again, with new files: each is visible as a whole, or not at all.
    Whole,
}

const ROUNDS: [Round; 4] = [Round::Folder, Round::Pattern, Round::Prefix, Round::Whole];

/// What the database must have at the end of a round.
struct Expected {
    /// Patients, and rows of their history.
    patients: usize,
    history: usize,
    /// Files that are remembered.
    files: usize,
    indexes: Vec<String>,
}

/// Writes the patients of some files, a part of them in a folder below and compressed.
fn write(database: &Database, first: usize, family: &str, name: &str) {
    let folder = database.path("in");
    for (file, first) in (0..FILES).map(|file| (file, first + file * EACH)) {
        let lines = patients(first..=first + EACH - 1).replace("Family", family);
        let below = if file % 2 == 0 { folder.clone() } else { folder.join("below") };
        fs::create_dir_all(&below).unwrap();
        for folder in [&folder, &below] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let (end, bytes) = if file % 2 == 0 { ("", lines.into_bytes()) } else { (".gz", gzip(lines.as_bytes())) };
        let path = below.join(format!("{name}.{file}.Patient.ndjson{end}"));
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    }
}

/// Puts the same patients into the table that is compared.
fn expect(database: &Database, client: &mut Client, first: usize, family: &str) {
    let url = database.file("expected", patients(first..=first + BY_ROUND - 1).replace("Family", family));
    run(
        client,
        &format!("BEGIN; SET LOCAL fhir_bulk.data_schema = 'expected'; SELECT bulk_load('{url}', 'Patient'); COMMIT"),
    );
}

fn indexes(client: &mut Client) -> Vec<String> {
    rows(
        client,
        "SELECT pg_get_indexdef(indexrelid), indisvalid FROM pg_index WHERE indrelid = 'public.patient'::regclass ORDER BY 1",
    )
}

/// Kills the whole server, its first process only, or one worker, and waits until it takes connections again.
fn kill(database: &Database, client: &mut Client, random: &mut Random) -> &'static str {
    let cluster = database.cluster();
    let at_work = workers(client);
    let done = match (random.below(3), at_work.first()) {
        // Unless it has ended meanwhile.
        (0, Some(worker)) if is_killed(*worker) => {
            wait_for("the server to end all sessions", || client.simple_query("SELECT 1").is_err());
            "a worker"
        }
        (1, _) => {
            cluster.kill_postmaster();
            cluster.start_server();
            "the first process"
        }
        _ => {
            cluster.kill_server();
            cluster.start_server();
            "the server"
        }
    };
    *client = reconnect(database);
    done
}

fn is_killed(pid: i32) -> bool {
    Command::new("/bin/kill").args(["-9", &pid.to_string()]).output().unwrap().status.success()
}

/// What is committed is counted, and what is counted is committed, at any moment; files of a `Whole` round are there as a
/// whole.
fn check_meanwhile(client: &mut Client, round: Round, id: &str, before: usize) {
    if matches!(round, Round::Folder | Round::Whole) {
        let counts = format!(
            "SELECT (SELECT sum(total) FROM bulk_job_inputs WHERE id = '{id}'), (SELECT count(*) - {before} FROM patient)"
        );
        let counts = value(client, &counts);
        let (counted, there) = counts.split_once('|').unwrap();
        assert_eq!(counted, there, "{round:?}");
        if round == Round::Whole {
            assert_eq!(there.parse::<usize>().unwrap() % EACH, 0, "a part of a file is visible");
        }
    }
    let done = "SELECT count(*) FROM bulk_files f JOIN bulk_job_inputs i ON i.url = f.url AND i.status = 'finished'
        WHERE f.status <> 'done' OR f.loaded <> i.total";
    assert_eq!(count(client, done), 0, "a file is done with its last row");
}

#[test]
fn imports_of_all_kinds_survive_kills_at_random_moments() {
    let mut random = Random::from_environment();
    let kills = kills::number();
    let database = server(&[]);
    let service = S3Server::new();
    let mut client = database.connect();
    run(
        &mut client,
        "SELECT bulk_create_table('Patient'); CREATE SCHEMA expected;
         CREATE INDEX paths ON patient USING gin (resource jsonb_path_ops); CREATE INDEX by_ts ON patient (ts);
         CREATE INDEX family ON patient ((resource -> 'name' -> 0 ->> 'family'))",
    );
    let mut expected = Expected { patients: 0, history: 0, files: 0, indexes: indexes(&mut client) };
    let (mut killed, mut number) = (0, 0);
    // What ten workers in a row could not do is given up.
    const MOST_IN_A_ROUND: usize = 8;
    // All kinds at least once, and until there have been enough kills.
    while killed < kills || number < ROUNDS.len() {
        let (round, id) = (ROUNDS[number % ROUNDS.len()], format!("job-{number}"));
        let (first, family) = (expected.patients + 1, format!("Family-{number}-"));
        let folder = format!("file://{}/", database.path("in").display());
        let before = expected.patients;
        let mut request: Value = match round {
            Round::Folder | Round::Whole => {
                write(&database, first, &family, &format!("round-{number}"));
                expect(&database, &mut client, first, &family);
                expected.patients += BY_ROUND;
                expected.files += FILES;
                let mode = if round == Round::Whole { "transaction" } else { "bulk" };
                json!({"onlyNew": true, "mode": mode, "onConflict": "error", "disableIndexes": round == Round::Folder,
                    "inputs": [{"url": folder}]})
            }
            Round::Pattern => {
                // The files of the round before, with other content.
                write(&database, first - BY_ROUND, &family, &format!("round-{}", number - 1));
                expect(&database, &mut client, first - BY_ROUND, &family);
                expected.history += BY_ROUND;
                let files = [format!("{folder}*-{}.*", number - 1), format!("{folder}*/*-{}.*", number - 1)];
                json!({"update": true, "disableIndexes": true, "inputs": files.map(|url| json!({"url": url}))})
            }
            Round::Prefix => {
                for (file, first) in (0..FILES).map(|file| (file, first - BY_ROUND + file * EACH)) {
                    let lines =
                        patients(first..=first + EACH - 1).replace("Family", &format!("Family-{}-", number - 1));
                    service.put("bucket", &format!("in/Patient.{number}.{file}.ndjson"), lines);
                }
                expected.files += FILES;
                json!({"onlyNew": true, "skipUnchanged": true, "update": true, "workers": 2,
                    "inputs": [{"url": format!("s3://bucket/in/Patient.{number}**")}],
                    "account": {"accessKeyId": KEY_ID, "secretAccessKey": SECRET_KEY, "region": "us-east-1", "host": service.endpoint()}})
            }
        };
        request["allowedRetryCount"] = 10.into();
        run(&mut client, &format!("SET fhir_bulk.import_commit_rows = 700; {}", import_sql(&id, &[], request)));
        let most = kills.min(killed + MOST_IN_A_ROUND);
        while killed < most && status(&mut client, &id)["status"] == "active" {
            random.sleep(Duration::from_millis(250));
            let what = kill(&database, &mut client, &mut random);
            killed += 1;
            println!("kill {killed}: {what}, {round:?}");
            check_meanwhile(&mut client, round, &id, before);
            // Often enough it comes to its next file.
            random.sleep(Duration::from_millis(100));
        }
        let ended = crate::job::finish(&mut client, &id);
        check_at_end(&mut client, &expected, round, &ended);
        number += 1;
    }
    drop(client);
    database.cluster().stop_server("fast");
}

fn check_at_end(client: &mut Client, expected: &Expected, round: Round, ended: &Value) {
    assert_eq!(inputs(ended), vec![format!("finished {EACH}"); FILES], "{round:?}: {ended}");
    assert_eq!(ended.get("disabledIndexes"), None, "{ended}");
    if round == Round::Prefix {
        assert_eq!(ended["unchanged"], BY_ROUND, "{ended}");
    }
    let columns = "id, resource, resource_type";
    let different = format!(
        "SELECT count(*) FROM ((SELECT {columns} FROM patient EXCEPT ALL SELECT {columns} FROM expected.patient)
             UNION ALL (SELECT {columns} FROM expected.patient EXCEPT ALL SELECT {columns} FROM patient)) d"
    );
    assert_eq!(count(client, &different), 0, "{round:?}");
    assert_eq!(count(client, "SELECT count(*) FROM patient"), expected.patients as i64, "{round:?}");
    assert_eq!(
        value(client, "SELECT count(*), count(DISTINCT (id, txid)) FROM patient_history"),
        format!("{0}|{0}", expected.history),
        "{round:?}"
    );
    let files = "SELECT count(*), count(*) FILTER (WHERE status = 'done'), sum(loaded) FROM bulk_files";
    assert_eq!(value(client, files), format!("{0}|{0}|{1}", expected.files, expected.files * EACH), "{round:?}");
    assert_eq!(indexes(client), expected.indexes, "{round:?}");
    assert_eq!(count(client, "SELECT count(*) FROM fhir_bulk_internal.bulk_job_secret"), 0);
    for table in ["patient", "patient_history", "fhir_bulk_internal.bulk_file", "fhir_bulk_internal.bulk_job_task"] {
        assert_eq!(rows(client, &format!("SELECT * FROM verify_heapam('{table}') LIMIT 5")), [""; 0], "{table}");
        let trees = format!(
            "SELECT bt_index_check(i.indexrelid, true) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
             JOIN pg_am a ON a.oid = c.relam WHERE a.amname = 'btree' AND i.indrelid = '{table}'::regclass"
        );
        rows(client, &trees);
    }
}
