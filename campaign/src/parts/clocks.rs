//! A server's clock that jumps, by a library that is preloaded into it (`clocks.c`).

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fhir_bulk_tests::kills::Random;
use fhir_bulk_tests::support::{count, rows, run, value};
use fhir_bulk_tests::{Client, SetAtEnd, gunzip};
use serde_json::{Value, json};

use crate::patients;
use crate::place::{Place, text_of};
use crate::preload;
use crate::run::{Part, Run};

pub const PART: Part = Part {
    name: "clocks",
    what: "the server's clock jumps by up to hours, forwards and backwards, at random moments of loads, COPY, imports and \
           incremental exports, some of transactions that stay open: nothing hangs, each resource is there once, no job is \
           forgotten before it has ended, and each export since the time of the last one, less what the clock was set back \
           after it had begun, misses nothing",
    unit: "operations",
    run: try_all,
};

const IDS: u64 = 2000;
/// Statements and jobs end by then.
const WITHIN: Duration = Duration::from_secs(30);
const HOUR: i64 = 3_600_000_000;

/// The clock, which one thread sets.
struct Clock {
    control: File,
    /// Microseconds.
    off: AtomicI64,
    /// What it was set back by, all jumps together.
    back: AtomicI64,
    /// It stays as it is for now.
    stands: AtomicBool,
}

impl Clock {
    fn jump(&self, random: &mut Random) {
        let most = *random.one_of(&[1_000_000, 60_000_000, HOUR / 4, 3 * HOUR]);
        let by = random.below(2 * most as u64) as i64 - most;
        // Not further than a job is kept.
        let off = (self.off.load(Ordering::SeqCst) + by).clamp(-6 * HOUR, 6 * HOUR);
        let before = self.off.load(Ordering::SeqCst);
        // It counts before it happens: what comes between is looked for twice, not never.
        self.back.fetch_add((before - off).max(0), Ordering::SeqCst);
        self.off.store(off, Ordering::SeqCst);
        self.control.write_all_at(&off.to_ne_bytes(), 0).expect("the control file takes it");
    }

    fn jump_until(&self, over: &AtomicBool, mut random: Random) {
        while !over.load(Ordering::Relaxed) {
            if !self.stands.load(Ordering::SeqCst) {
                self.jump(&mut random);
            }
            random.sleep(Duration::from_millis(60));
        }
    }
}

/// What the next export must have, and what the table must.
#[derive(Default)]
struct Written {
    marks: HashMap<u64, u64>,
    pending: HashMap<u64, u64>,
    history: u64,
}

impl Written {
    fn write(&mut self, ids: &[u64], mark: u64) {
        for id in ids {
            self.history += u64::from(self.marks.insert(*id, mark).is_some());
            self.pending.insert(*id, mark);
        }
    }
}

fn try_all(run: &mut Run) {
    let (before, control) = preload::compile("clocks");
    let place = Place::after(&before, &["deadlock_timeout = '1h'"]);
    let clock = Clock { control, off: 0.into(), back: 0.into(), stands: false.into() };
    // Only jobs that have ended may go by it.
    let short = "ALTER DATABASE campaign SET fhir_bulk.job_retention = '1min'";
    fhir_bulk_tests::support::run(&mut place.connect(), short);
    let (over, seed) = (AtomicBool::new(false), run.random.below(1 << 31));
    thread::scope(|scope| {
        let end = SetAtEnd(&over);
        let (clock, of_jumps) = (&clock, &over);
        scope.spawn(move || clock.jump_until(of_jumps, Random::new(seed)));
        Session { place: &place, clock, client: place.connect(), beside: place.connect(), since: None }.work(run);
        drop(end);
    });
    let (forwards, back) = (clock.off.load(Ordering::SeqCst), clock.back.load(Ordering::SeqCst));
    run.note(format!(
        "the clock went back by {} h in all, and forwards by {} h",
        back / HOUR,
        (back + forwards) / HOUR
    ));
    place.end();
}

struct Session<'a> {
    place: &'a Place,
    clock: &'a Clock,
    client: Client,
    /// Has a transaction open while exports run.
    beside: Client,
    /// The last export's time, and what the clock had been set back by before that export began.
    since: Option<(String, i64)>,
}

impl Session<'_> {
    fn work(mut self, run: &mut Run) {
        let mut written = Written::default();
        while run.goes_on() {
            let mark = run.so_far() + 1;
            let ids = ids(&mut run.random);
            let start = Instant::now();
            let what = *run.random.one_of(&["load", "load", "copy", "import", "export", "export beside a load"]);
            let done = match what {
                "import" => self.import(&ids, mark).map(|()| written.write(&ids, mark)),
                "export" => self.export(&mut written.pending),
                "export beside a load" => self.export_beside(&mut written, &ids, mark),
                _ => self.statement(what == "copy", &ids, mark).map(|()| written.write(&ids, mark)),
            };
            let took = start.elapsed();
            run.tried(1);
            run.check(took < WITHIN, || format!("{what}: it took {took:?}"));
            if let Err(wrong) = done {
                run.found(format!("{what}: {wrong}"));
                return;
            }
            if run.so_far().is_multiple_of(10) {
                let found = self.stored();
                let expected = written.marks.iter().map(|(id, mark)| id * 31 + mark).sum::<u64>();
                let expected = format!("{0}|{0}|{expected}|{1}", written.marks.len(), written.history);
                run.check(found == expected, || format!("{found} is stored instead of {expected}"));
            }
        }
    }

    fn stored(&mut self) -> String {
        value(
            &mut self.client,
            "SELECT count(*), count(DISTINCT id), coalesce(sum(substring(id FROM 3)::bigint * 31
                 + (resource #>> '{name,0,family}')::bigint), 0), (SELECT count(*) FROM patient_history) FROM patient",
        )
    }

    fn file(&self, name: &str, ids: &[u64], mark: u64) -> String {
        let mut lines = String::new();
        ids.iter().for_each(|id| patients::line(&mut lines, *id as usize, mark));
        self.place.database.file(name, lines)
    }

    fn statement(&mut self, copies: bool, ids: &[u64], mark: u64) -> Result<(), String> {
        let url = self.file("Patient.ndjson", ids, mark);
        let sql = if copies {
            format!("COPY patient FROM '{}' (FORMAT fhir, UPDATE_HISTORY)", url.trim_start_matches("file://"))
        } else {
            load(&url)
        };
        self.client.simple_query(&sql).map(|_| ()).map_err(|error| text_of(&error))
    }

    fn import(&mut self, ids: &[u64], mark: u64) -> Result<(), String> {
        let url = self.file("Patient.ndjson", ids, mark);
        let (id, mode) = (format!("import-{mark}"), if mark.is_multiple_of(2) { "bulk" } else { "transaction" });
        let request = json!({"id": id, "update": true, "mode": mode, "allowedRetryCount": 0,
            "inputs": [{"resourceType": "Patient", "url": url}]});
        run(&mut self.client, &format!("SET fhir_bulk.import_commit_rows = 50; SELECT bulk_import('{request}')"));
        let start = Instant::now();
        while start.elapsed() < WITHIN {
            let status = self.client.simple_query(&format!("SELECT bulk_import_status('{id}')"));
            let last = match status {
                Ok(messages) => messages.iter().find_map(|message| match message {
                    postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                    _ => None,
                }),
                // It has ended, and its time is over: what it stored says whether it had.
                Err(error) if error.code().is_some_and(|code| code.code() == "P0002") => {
                    let family =
                        format!("SELECT count(*) FROM patient WHERE resource #>> '{{name,0,family}}' = '{mark}'");
                    let stored = count(&mut self.client, &family);
                    return if stored == ids.len() as i64 { Ok(()) } else { Err("forgotten before its end".into()) };
                }
                Err(error) => return Err(text_of(&error)),
            };
            let last: Value = serde_json::from_str(&last.unwrap_or_default()).map_err(|error| error.to_string())?;
            match last["inputs"][0]["status"].as_str() {
                Some("finished") => return Ok(()),
                Some("failed" | "cancelled") => return Err(last.to_string()),
                _ => thread::sleep(Duration::from_millis(5)),
            }
        }
        Err("it does not end".into())
    }

    /// An increment, while a transaction is open that has written something and commits at the end.
    fn export_beside(&mut self, written: &mut Written, ids: &[u64], mark: u64) -> Result<(), String> {
        let url = self.file("Beside.Patient.ndjson", ids, mark);
        run(&mut self.beside, "BEGIN");
        thread::sleep(Duration::from_millis(30));
        self.beside.simple_query(&load(&url)).map_err(|error| text_of(&error))?;
        let exported = self.export(&mut written.pending);
        run(&mut self.beside, "COMMIT");
        written.write(ids, mark);
        exported
    }

    /// An increment that has all that is pending, which is then nothing.
    fn export(&mut self, pending: &mut HashMap<u64, u64>) -> Result<(), String> {
        let back = self.clock.back.load(Ordering::SeqCst);
        let mut request = json!({"_type": "Patient"});
        if let Some((time, before)) = &self.since {
            let sql = format!(
                "SELECT to_char(('{time}'::timestamptz - make_interval(secs => {})) AT TIME ZONE 'UTC',
                     'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
                (back - before) as f64 / 1e6
            );
            request["_since"] = value(&mut self.client, &sql).into();
        }
        let id = value(&mut self.client, &format!("SELECT bulk_export('{request}')"));
        let start = Instant::now();
        let mut last = Value::Null;
        while start.elapsed() < WITHIN && !matches!(last["status"].as_str(), Some("completed" | "failed" | "cancelled"))
        {
            let status = rows(&mut self.client, &format!("SELECT bulk_export_status('{id}')::text"));
            last = serde_json::from_str(&status.concat()).map_err(|error| error.to_string())?;
        }
        if last["status"] != "completed" {
            return Err(last.to_string());
        }
        // Its URLs end with their time.
        self.clock.stands.store(true, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(5));
        let found = self.read(&id);
        self.clock.stands.store(false, Ordering::SeqCst);
        let found = found?;
        run(&mut self.client, &format!("SELECT bulk_export_cancel('{id}')"));
        let missed: Vec<_> = pending.iter().filter(|(id, mark)| found.get(id) != Some(mark)).collect();
        if !missed.is_empty() {
            return Err(format!("{request} of {} resources misses {missed:?} (id, mark): {last}", found.len()));
        }
        pending.clear();
        let time = last["transactionTime"].as_str().ok_or("no transactionTime")?.to_owned();
        self.since = Some((time, back));
        Ok(())
    }

    /// The resources of an export, with their marks.
    fn read(&mut self, id: &str) -> Result<HashMap<u64, u64>, String> {
        let status = value(&mut self.client, &format!("SELECT bulk_export_status('{id}')::text"));
        let status: Value = serde_json::from_str(&status).map_err(|error| error.to_string())?;
        let mut found = HashMap::new();
        for file in status["output"].as_array().into_iter().flatten() {
            let url = file["url"].as_str().unwrap_or_default();
            let parts = self.client.query("SELECT bulk_export_file($1)", &[&url]).map_err(|error| text_of(&error))?;
            let bytes: Vec<u8> = parts.iter().flat_map(|row| row.get::<_, Vec<u8>>(0)).collect();
            let bytes = if bytes.starts_with(b"\x1F\x8B") { gunzip(&bytes) } else { bytes };
            for line in String::from_utf8_lossy(&bytes).lines() {
                let resource: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
                let number = |text: Option<&str>| text.and_then(|text| text.parse::<u64>().ok()).ok_or("a number");
                let id = number(resource["id"].as_str().map(|id| &id[2..]))?;
                if found.insert(id, number(resource["name"][0]["family"].as_str())?).is_some() {
                    return Err(format!("p-{id} is there twice"));
                }
            }
        }
        Ok(found)
    }
}

fn ids(random: &mut Random) -> Vec<u64> {
    let first = random.below(IDS);
    (first..first + 1 + random.below(200)).collect()
}

fn load(url: &str) -> String {
    format!("SELECT bulk_load('{url}', 'Patient', options => '{{\"update\": true}}')")
}
