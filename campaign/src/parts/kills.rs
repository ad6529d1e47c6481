//! Processes that are killed with SIGKILL at random moments.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use fhir_bulk_tests::kills::Random;
use fhir_bulk_tests::proxy::{Proxy, Request};
use fhir_bulk_tests::s3::{KEY_ID, S3Server, SECRET_KEY};
use fhir_bulk_tests::support::{count, rows, run, value};
use fhir_bulk_tests::{Client, wait_for};
use serde_json::{Value, json};

use crate::patients::{self, Model};
use crate::place::Place;
use crate::run::{Part, Run};

pub const PART: Part = Part {
    name: "kills",
    what: "kill -9 of the server, its first process, a backend, a job worker, a helper process or the proxy, at random moments \
           of loads, COPY, imports and exports to a folder and a bucket, also twice: each resource is there once, statements \
           have done all or nothing, jobs end right, amcheck is content, no file, upload or lock is left",
    unit: "kills",
    run: try_all,
};

const IDS: usize = 20_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Load,
    Copy,
    Import,
    ImportWhole,
    Export,
    ByPatient,
    ToBucket,
    LoadByProxy,
}

const KINDS: [Kind; 8] = [
    Kind::Load,
    Kind::Copy,
    Kind::Import,
    Kind::ImportWhole,
    Kind::Export,
    Kind::ByPatient,
    Kind::ToBucket,
    Kind::LoadByProxy,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Server,
    First,
    Backend,
    Worker,
    Proxy,
}

const VICTIMS: [Victim; 5] = [Victim::Server, Victim::First, Victim::Backend, Victim::Worker, Victim::Proxy];

/// Where it all happens.
struct Scene {
    place: Place,
    bucket: S3Server,
    proxy: Proxy,
    model: Model,
}

fn try_all(run: &mut Run) {
    let bucket = S3Server::new();
    let settings = [
        format!("fhir_bulk.s3_endpoint = '{}'", bucket.endpoint()),
        format!("fhir_bulk.s3_access_key_id = '{KEY_ID}'"),
        format!("fhir_bulk.s3_secret_access_key = '{SECRET_KEY}'"),
        "fsync = on".to_owned(),
    ];
    let place = Place::new(&settings.iter().map(String::as_str).collect::<Vec<_>>());
    let proxy = place.proxy();
    let mut scene = Scene { place, bucket, proxy, model: Model::default() };
    let mut middle = 0;
    let mut round = 0;
    while run.goes_on() {
        round += 1;
        let kind = *run.random.one_of(&KINDS);
        let first = run.random.below(IDS as u64 / 2) as usize;
        let ids = first..first + 1000 + run.random.below(IDS as u64 / 2 - 1000) as usize;
        let (done, was_in_the_middle, wrong) = scene.round(&mut run.random, kind, round, ids);
        run.tried(done);
        middle += was_in_the_middle;
        wrong.into_iter().for_each(|what| run.found(format!("{kind:?}: {what}")));
    }
    run.note(format!("{middle} of them in the middle of the work"));
    scene.place.end();
}

impl Scene {
    /// One piece of work with one or two kills. How many there were, how many in the middle of the work, and what is wrong.
    fn round(
        &mut self,
        random: &mut Random,
        kind: Kind,
        mark: u64,
        ids: std::ops::Range<usize>,
    ) -> (u64, u64, Vec<String>) {
        let lines = patients::lines(ids.clone(), mark);
        let url = self.place.database.file("Patient.ndjson", &lines);
        let mut client = self.place.when_up();
        let job = self.start_job(&mut client, kind, mark, &url);
        let mut wrong = Vec::new();
        let (mut kills, mut middle) = (0, 0);
        let succeeded = thread::scope(|scope| {
            let work = scope.spawn(|| self.work(client, kind, &url, &lines));
            for _ in 0..1 + random.below(2) {
                let victim = *random.one_of(&VICTIMS);
                random.sleep(Duration::from_millis(200));
                if self.kill(victim) {
                    kills += 1;
                    middle += u64::from(!work.is_finished() || job.is_some());
                }
                drop(self.place.when_up());
            }
            work.join().expect("the work ends")
        });
        if self.proxy.ended().is_some() {
            self.proxy = self.place.proxy();
        }
        let mut client = self.place.when_up();
        let succeeded = match &job {
            Some(job) => self.finish(&mut client, kind, job, &mut wrong),
            None => succeeded,
        };
        self.look(&mut client, kind, mark, ids, succeeded, &mut wrong);
        // At least one, so that a campaign ends which finds nobody to kill.
        (kills.max(1), middle, wrong)
    }

    fn start_job(&self, client: &mut Client, kind: Kind, mark: u64, url: &str) -> Option<String> {
        let import = |mode: &str| {
            let request = json!({"id": format!("import-{mark}"), "update": true, "mode": mode, "allowedRetryCount": 20,
                "inputs": [{"resourceType": "Patient", "url": url}]});
            format!("SET fhir_bulk.import_commit_rows = 500; SELECT bulk_import('{request}')")
        };
        let sql = match kind {
            Kind::Import => import("bulk"),
            Kind::ImportWhole => import("transaction"),
            Kind::Export => r#"SELECT bulk_export('{"_type": ["Patient"]}')"#.to_owned(),
            Kind::ByPatient => {
                r#"SELECT bulk_export('{"_type": ["Patient"], "level": "patient", "organizeOutputBy": "Patient"}')"#
                    .to_owned()
            }
            Kind::ToBucket => {
                r#"SET fhir_bulk.export_location = 's3://bucket/exports'; SELECT bulk_export('{"_type": ["Patient"]}')"#
                    .to_owned()
            }
            Kind::Load | Kind::Copy | Kind::LoadByProxy => return None,
        };
        let id = value(client, &sql);
        run(client, "RESET ALL");
        Some(id)
    }

    /// A statement that is killed; jobs work by themselves. Whether it said that it succeeded.
    fn work(&self, mut client: Client, kind: Kind, url: &str, lines: &str) -> bool {
        match kind {
            Kind::Load => {
                let sql = format!("SELECT bulk_load('{url}', 'Patient', options => '{{\"update\": true}}')");
                client.simple_query(&sql).is_ok()
            }
            // Its commit is a statement, for the driver takes the end of the COPY for the end of all.
            Kind::Copy => client
                .simple_query("BEGIN")
                .and_then(|_| {
                    let mut copy = client.copy_in("COPY patient FROM STDIN (FORMAT fhir, UPDATE_HISTORY)")?;
                    let _ = copy.write_all(lines.as_bytes());
                    copy.finish()
                })
                .and_then(|_| client.simple_query("COMMIT"))
                .is_ok(),
            Kind::LoadByProxy => {
                let request =
                    Request::post("/Patient/$load?update=true", "application/ndjson", lines).basic("client", "any");
                let Ok(mut stream) = TcpStream::connect(self.proxy.address()) else { return false };
                let _ = stream.write_all(&request.bytes());
                let mut answer = Vec::new();
                let _ = stream.read_to_end(&mut answer);
                answer.starts_with(b"HTTP/1.1 200")
            }
            _ => false,
        }
    }

    /// Whether there was such a process.
    fn kill(&self, victim: Victim) -> bool {
        let cluster = self.place.database.cluster();
        match victim {
            Victim::Server => cluster.kill_server(),
            Victim::First => cluster.kill_postmaster(),
            Victim::Proxy => return kill(i64::from(self.proxy.pid())),
            Victim::Backend | Victim::Worker => {
                let mut watcher = self.place.when_up();
                // Helpers of an export are parallel workers.
                let types = if victim == Victim::Backend {
                    "'client backend'"
                } else {
                    "'fhir_bulk job worker', 'parallel worker'"
                };
                let sql = format!(
                    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
                         AND backend_type IN ({types}) ORDER BY random() LIMIT 1"
                );
                let Some(pid) = rows(&mut watcher, &sql).first().map(|pid| pid.parse().expect("a pid")) else {
                    return false;
                };
                if !kill(pid) {
                    return false;
                }
                // The server ends all sessions before it takes new ones. It does not if the process had just ended by itself.
                let start = Instant::now();
                while watcher.simple_query("SELECT 1").is_ok() {
                    if start.elapsed() > Duration::from_secs(5) {
                        return false;
                    }
                }
            }
        }
        true
    }

    /// Waits for a job, and looks at what it made. Whether it has written what it was to write.
    fn finish(&self, client: &mut Client, kind: Kind, id: &str, wrong: &mut Vec<String>) -> bool {
        let is_import = matches!(kind, Kind::Import | Kind::ImportWhole);
        let name = if is_import { "import" } else { "export" };
        let mut last = Value::Null;
        wait_for("a job to end", || {
            last = serde_json::from_str(&value(client, &format!("SELECT bulk_{name}_status('{id}')"))).expect("JSON");
            !matches!(last["status"].as_str(), Some("active" | "pending" | "processing"))
        });
        if is_import {
            if last["inputs"][0]["status"] != "finished" {
                wrong.push(format!("an import that did not finish: {last}"));
            }
            return true;
        }
        let there = count(client, "SELECT count(*) FROM patient") as u64;
        let lines: u64 =
            last["output"].as_array().into_iter().flatten().filter_map(|file| file["count"].as_u64()).sum();
        if last["status"] != "completed" || kind != Kind::ByPatient && lines != there {
            wrong.push(format!("an export of {there}: {last}"));
        }
        run(client, &format!("SELECT bulk_export_cancel('{id}')"));
        let left = || match kind {
            Kind::ToBucket => self.bucket.keys("bucket").len() + self.bucket.unfinished().len(),
            _ => self.place.exported(),
        };
        wait_for("the files of an export that is deleted to be gone", || left() == 0);
        false
    }

    /// What is stored is what was said.
    fn look(
        &mut self,
        client: &mut Client,
        kind: Kind,
        mark: u64,
        ids: std::ops::Range<usize>,
        succeeded: bool,
        wrong: &mut Vec<String>,
    ) {
        let mut after = self.model.clone();
        if !matches!(kind, Kind::Export | Kind::ByPatient | Kind::ToBucket) {
            after.write(ids, mark);
        }
        // Who sent the lines may be gone before the server has read the last of them.
        wait_for("sessions to end", || self.place.others(client) == 0 || kind != Kind::LoadByProxy);
        let found = patients::stored(client);
        // Whose client was not told may still have committed.
        let expected = if succeeded { vec![after.digest()] } else { vec![after.digest(), self.model.digest()] };
        if !expected.contains(&found) {
            wrong.push(format!("{found} instead of one of {expected:?}"));
        }
        if found == after.digest() {
            self.model = after;
        }
        let tables = ["patient", "patient_history", "fhir_bulk_internal.bulk_job", "fhir_bulk_internal.bulk_job_task"];
        wrong.extend(self.place.unsound(client, &tables));
        wrong.extend(self.place.left_over(client));
        run(client, "TRUNCATE patient_history");
        self.model.history = 0;
    }
}

fn kill(pid: i64) -> bool {
    Command::new("/bin/kill").args(["-9", &pid.to_string()]).output().is_ok_and(|output| output.status.success())
}
